#!/bin/bash
# `npm run crash-loop -- [--minutes N]`: sets itself up, then kills and hangs servers under load (test/crash/).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
build
exec node dist/test/crash/crash-loop.js "$@"
