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

# Whether this is Debian (or a relative), and we are its root.
may_install() {
  [[ $EUID == 0 ]] && command -v apt-get >/dev/null && command -v dpkg-query >/dev/null
}

# Installs those of the named Debian packages that are missing, where that is possible; says so where it fails.
install_packages() {
  may_install || return 0
  local missing=() package
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  echo "Installing Debian packages: ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } </dev/null >&2 ||
    echo 'They could not be installed: what needs them will be skipped.' >&2
}
