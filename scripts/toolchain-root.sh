#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of the toolchain root: a Debian trixie with the compilers
# that Debian's own kernel was built with. Makes it if it is not cached.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"

packages=(
	apt bc bindgen binutils bison cargo cpio debian-archive-keyring e2fsprogs flex
	gcc gcc-14 kmod libc6-dev libclang-dev libelf-dev libssl-dev make pahole perl
	python3 rsync rust-clippy rust-src rustc rustfmt xz-utils
)

make_root() {
	local to=$1
	# As a tar, so that it is the same whether root made it or somebody else.
	mmdebstrap --variant=apt --format=tar \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$(IFS=,; echo "${packages[*]}")" \
		trixie - ${CKPT_MIRROR:+"$CKPT_MIRROR"} |
		tar -x --no-same-owner --exclude='./dev/*' -C "$to"
	mkdir -p "$to"/{src,build,kmod,out,work}
	# The kernel comes from backports: same host and keys, another suite.
	sed -n 's/ trixie main/ trixie-backports main/p' "$to/etc/apt/sources.list" \
		>"$to/etc/apt/sources.list.d/backports.list"
	dpkg-query --admindir="$to/var/lib/dpkg" -W >"$to/packages"
}

case ${1:-} in
--make)
	# The first run makes the rest as well; better to refuse now than halfway.
	cache_need_mib "a first run" 6000
	say "First run: the compilers, the kernel and the guest are put into $cache_dir."
	say "That loads 750 MB, takes 5 GB of disk and about 4 minutes on 2 processors. Later runs find it there."
	step "a Debian trixie with the kernel's compilers" "$(cache_log root)" "$0" --fill "$2"
	;;
--fill) make_root "$2" ;;
*)
	"$here/host-setup.sh" kmod
	cache_get root "$(cache_key "$0" "${CKPT_MIRROR:-}")" "$0" --make
	;;
esac
