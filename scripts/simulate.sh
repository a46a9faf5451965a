#!/bin/bash
# `npm run simulate -- --seeds N [--from SEED]`: sets itself up, then runs the simulation (test/simulation/).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
build
exec node dist/test/simulation/simulate.js "$@"
