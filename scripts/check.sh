#!/bin/bash
# `npm run check`: everything that can be judged without running the programs. Each check runs even if one before it
# failed, so that one run shows all there is to do; the exit code is 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
PATH=$PWD/node_modules/.bin:$PATH

failed=()
check() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

no_leftovers() {
  local found=0 pattern
  # Places of this machine: the checkout, the folder it lies in, any user's home folder.
  local above
  above=$(dirname "$PWD")
  local places=("$PWD/")
  [[ $above == / || $above == "${TMPDIR:-/tmp}" || $above == /tmp || $above == /home ]] || places+=("$above/")
  for pattern in "${places[@]}"; do
    git grep -InF -e "$pattern" -- . && found=1
  done
  git grep -InE -e '(^|[^A-Za-z0-9._/-])/(home|Users)/[a-z]' -- . && found=1
  # What somebody meant to come back to, and tests that hide others.
  git grep -InE -e '\b(TO''DO|FIX''ME|XX''X)\b|\bdebug''ger\b|\b(test|it|describe)\.on''ly\(|\bon''ly: true' -- . && found=1
  git grep -InE -e '"resolved": "' -- package-lock.json && found=1
  git ls-files | grep -E '\.(orig|rej|swp|log|tsbuildinfo)$|~$' && found=1
  return $found
}

# Every relative link of a document leads to a file.
links() {
  local document target broken=0
  while IFS=: read -r document target; do
    [[ -e $(dirname "$document")/$target ]] || { echo "$document: no $target"; broken=1; }
  done < <(git grep -IoE '\]\([^)#: ]+' -- '*.md' | sed 's/\](//')
  return $broken
}

bash_syntax() {
  local file failed=0
  for file in scripts/*.sh .ci/run; do bash -n "$file" || failed=1; done
  return $failed
}

check types tsc -p . --noEmit --incremental false
check format biome format --error-on-warnings
check lint oxlint --deny-warnings --report-unused-disable-directives-severity=error
check layers node scripts/check-layers.mjs
check 'dead code' knip --no-progress --no-config-hints
# Exports may be for tests alone (the other half of an encoder and decoder pair); whole files may not.
check 'files that tests alone use' knip --no-progress --no-config-hints --production --include files,dependencies
check leftovers no_leftovers
check links links
check shell bash_syntax

if ((${#failed[@]} > 0)); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo 'All checks passed.'
