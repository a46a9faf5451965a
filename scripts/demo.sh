#!/bin/bash
# `npm run demo`: sets itself up after a clone, then tells its story (demo/main.ts).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
build
exec node dist/demo/main.js "$@"
