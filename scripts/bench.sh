#!/bin/bash
# `npm run bench [-- --help]`: sets itself up after a clone, then measures (bench/main.ts, docs/performance.md).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
install_packages fio nbdkit libnbd-bin qemu-utils nginx-light
build
exec node dist/bench/main.js "$@"
