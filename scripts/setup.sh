# Sourced by the commands of package.json: after a fresh clone they set themselves up. Needs Node and npm.
# Promise: nothing is downloaded or built when all is there.

fail() {
  echo "$1" >&2
  exit 1
}

command -v node >/dev/null || fail 'Node.js >= 20.19 is needed: https://nodejs.org'
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
  fail "Node.js >= 20.19 is needed; this is $(node --version)"

if [[ ! -x node_modules/.bin/tsc ]]; then
  echo 'Installing the npm packages (npm ci)…' >&2
  # --ignore-scripts: nothing of what is installed needs one. stdout belongs to the command that called this.
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 </dev/null || fail 'npm ci failed'
fi

build() {
  node_modules/.bin/tsc -p . || fail 'the build failed'
}
