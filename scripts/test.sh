#!/bin/bash
# `npm test [-- [--no-skip] [WORD…]]`: sets itself up, runs the tests whose path contains one of the words (all without
# words), and ends with the runner's closing lines. With --no-skip a skipped test is a failure, as in .ci/run.
set -uo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh

no_skip=0
words=()
for argument in "$@"; do
  case $argument in
    --no-skip) no_skip=1 ;;
    -*) fail "Unknown option $argument: npm test [-- [--no-skip] [WORD…]], for example: npm test -- unit" ;;
    *) words+=("$argument") ;;
  esac
done

# The foreign programs that the tests compare with. A test whose program is missing says so and is skipped.
install_packages nbdkit libnbd-bin qemu-utils fio nginx-light strace e2fsprogs xfsprogs curl openssl
if may_install && [[ -f scripts/vm-setup.sh ]]; then
  bash scripts/vm-setup.sh </dev/null || echo 'The VM suite could not be set up; its tests will be skipped.' >&2
fi

build

files=()
while IFS= read -r source; do
  if ((${#words[@]} > 0)); then
    wanted=0
    for word in "${words[@]}"; do [[ $source == *"$word"* ]] && wanted=1; done
    ((wanted)) || continue
  fi
  files+=("dist/${source%.ts}.js")
done < <(find test -name '*.test.ts' | LC_ALL=C sort)
((${#files[@]} > 0)) || fail "No test file matches: ${words[*]}"

results=$(mktemp) || exit 1
trap 'rm -f "$results"' EXIT

# Two at a time: more would only make the tests with real processes wait for each other.
node --test --test-concurrency=2 --test-timeout=2400000 \
  --test-reporter=spec --test-reporter-destination=stdout \
  --test-reporter=tap --test-reporter-destination="$results" \
  "${files[@]}" </dev/null
status=$?

closing_line() { sed -n "s/^# $1 \([0-9]*\)\$/\1/p" "$results" | tail -n 1; }
skipped=$(closing_line skipped)
if [[ ${skipped:-0} != 0 ]]; then
  echo
  echo "Skipped ($skipped):"
  grep -E '^ *ok .*# SKIP' "$results" | sed -E 's/^ *ok [0-9]+ - /  /'
  ((no_skip == 0)) || status=1
fi
if [[ -z $(closing_line tests) || $(closing_line tests) == 0 ]]; then
  echo 'No test was run.'
  status=1
fi
echo
grep -E '^# (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ' "$results" | tail -n 8
exit "$status"
