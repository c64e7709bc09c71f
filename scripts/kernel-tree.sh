#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of the kernel's source (src/) and of a build tree (build/) with
# the Rust artefacts that Debian's header packages lack. Modules built with it
# load into Debian's own kernel image: same compilers, same flags, same hashes
# in the names of Rust symbols. Inside the root the two are /src and /build.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

prepare() {
	local to=$1 root=$2 packages=$3 release
	release=$(<"$packages/release")
	mkdir -p "$to/src" "$to/build"
	in_root "$root" --bind "$to/src:/src" --ro-bind "$packages:/work" \
		tar -x --no-same-owner --strip-components=1 -C /src -f /work/source.tar.xz
	cp "$packages/config" "$to/build/.config"
	cp "$packages/Module.symvers" "$to/build/"
	in_root "$root" --bind "$to/src:/src" --bind "$to/build:/build" \
		make -C /src O=/build CC=gcc-14 KERNELRELEASE="$release" -j"$(nproc)" prepare modules_prepare
	[[ -f $to/build/rust/libkernel.rmeta ]] || die "the kernel's build made no rust/libkernel.rmeta"
	cp "$packages/release" "$packages/version" "$to/"
}

case ${1:-} in
--make)
	cache_need_mib "the kernel's source and build tree" 3500
	step "the kernel's build tree (about 2 minutes)" "$(cache_log kernel-tree)" "$0" --prepare "$4" "$2" "$3"
	;;
--prepare) prepare "$2" "$3" "$4" ;;
*)
	root=$("$here/toolchain-root.sh")
	packages=$("$here/kernel-packages.sh")
	# Only the packages that make what is compiled.
	compilers=$(grep -E '^(binutils|bindgen|gcc-14|libc6-dev|libclang|libelf-dev|libssl-dev|pahole|rust)' "$root/packages")
	key=$(cache_key "$0" "$compilers" "$(<"$packages/version")")
	cache_get kernel-tree "$key" "$0" --make "$root" "$packages"
	;;
esac
