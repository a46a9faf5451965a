#!/usr/bin/env bash
# Gets what the tests in test/vm/ need: QEMU, a Debian kernel with its modules and the tools of DRBD (both unpacked under .cache/vm/,
# not installed: nothing of them ever runs on this machine) and the tools that the cases use inside the virtual machine, which sees this
# machine's own tree.
# Idempotent: does nothing when everything is there. Needs Debian 12 or later on x86-64, and root for what is missing.
set -euo pipefail

cd "$(dirname "$0")/.."
cache=.cache/vm
# The first one that the package sources offer is taken.
kernels=(linux-image-6.12-cloud-amd64 linux-image-cloud-amd64)
packages=(qemu-system-x86 busybox-static kmod e2fsprogs xfsprogs util-linux fio nbd-client dmsetup systemd)

fail() {
  echo "vm-setup: $*" >&2
  exit 1
}

[ "$(uname -m)" = x86_64 ] || fail "only x86-64 hosts are supported"
command -v apt-get > /dev/null || fail "needs apt-get (Debian); install QEMU and unpack a kernel into $cache/kernel by hand instead"

updated=no
update_once() {
  [ "$updated" = no ] || return 0
  apt-get update -q > /dev/null || fail "apt-get update failed"
  updated=yes
}

is_installed() {
  dpkg-query --show --showformat='${db:Status-Status}' "$1" 2> /dev/null | grep -q '^installed$'
}

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if [ ! -x /usr/lib/qemu/virtiofsd ] && [ ! -x /usr/libexec/virtiofsd ]; then
  update_once
  # Up to Debian 12 it comes with QEMU.
  if apt-cache show virtiofsd > /dev/null 2>&1; then missing+=(virtiofsd); fi
fi
if [ "${#missing[@]}" -gt 0 ]; then
  [ "$(id -u)" = 0 ] || fail "missing packages: ${missing[*]} (installing them needs root)"
  update_once
  DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=300 -q -y --no-install-recommends "${missing[@]}" > /dev/null ||
    fail "cannot install: ${missing[*]}"
fi

# The package that a meta-package stands for: its only dependency on a kernel image.
kernel_package() {
  local meta
  for meta in "${kernels[@]}"; do
    apt-cache show --no-all-versions "$meta" 2> /dev/null |
      sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,(]*\).*/\1/p' | grep . && return 0
  done
  return 1
}

# download FOLDER COMMAND…: the package that COMMAND names, unpacked into FOLDER.
download() {
  local folder=$1
  shift
  # A list of packages that is out of date names files that are gone.
  (cd "$folder" && apt-get download -q "$("$@")" > /dev/null 2>&1) || {
    update_once
    (cd "$folder" && apt-get download -q "$("$@")" > /dev/null) || fail "cannot download $("$@")"
  }
  dpkg -x "$folder"/*.deb "$folder"
  rm "$folder"/*.deb
}

if [ ! -e "$cache/ready" ]; then
  rm -rf "$cache"
  mkdir -p "$cache/kernel"
  package=$(kernel_package) || { update_once && package=$(kernel_package); } || fail "no kernel package: tried ${kernels[*]}"
  download "$cache/kernel" kernel_package
  mapfile -t versions < <(ls "$cache/kernel/lib/modules")
  [ "${#versions[@]}" = 1 ] || fail "expected one kernel in $package"
  version=${versions[0]}
  for module in nbd brd drbd overlay xfs dm-mod dm-flakey dm-zero dm-delay dm-log-writes; do
    find "$cache/kernel/lib/modules" -name "$module.ko*" | grep -q . || fail "$package has no module $module"
  done
  grep -q '^CONFIG_VIRTIO_FS=y' "$cache/kernel/boot/config-$version" || fail "$package has no virtiofs built in"
  depmod -b "$cache/kernel" "$version"
  find "$cache/kernel/lib/modules" -name overlay.ko.xz -exec busybox xzcat {} \; > "$cache/overlay.ko"
  [ -s "$cache/overlay.ko" ] || fail "cannot unpack overlay.ko.xz"
  ln -s "kernel/boot/vmlinuz-$version" "$cache/vmlinuz"
  echo "$version" > "$cache/ready"
fi
if [ ! -e "$cache/drbd/ready" ]; then
  rm -rf "$cache/drbd"
  mkdir -p "$cache/drbd"
  download "$cache/drbd" echo drbd-utils
  # The tools for the kernel's own DRBD, 8.4.
  find "$cache/drbd" -name drbdsetup-84 | grep -q . || fail "drbd-utils has no drbdsetup for DRBD 8.4"
  touch "$cache/drbd/ready"
fi
echo "vm-setup: kernel $(cat "$cache/ready"), $(qemu-system-x86_64 --version | head -1)"
