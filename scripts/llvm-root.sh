#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of a toolchain root that has clang too, for the debug kernel: a
# kernel with Rust and KASAN can be built with nothing else. Who only builds for
# Debian's kernel does not need it. It is the toolchain root, file by file the
# same (hard links), with a few packages unpacked on top.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

# Of the version that rustc's own code generator is.
packages=(clang-19 lld-19 llvm-19)

fill() {
	local to=$1 root=$2 work deb
	cp -al "$root/." "$to/"
	work=$to/llvm-work
	mkdir -p "$work/lists/partial" "$work/debs/partial"
	in_root "$to" --bind "$work/lists:/var/lib/apt/lists" apt-get update -o APT::Sandbox::User=root
	in_root "$to" --bind "$work/lists:/var/lib/apt/lists" --bind "$work/debs:/work" \
		apt-get install --download-only --yes --no-install-recommends \
		-o APT::Sandbox::User=root -o Dir::Cache::archives=/work "${packages[@]}"
	# Unpacked, not installed: their scripts would do nothing that a build needs, and want
	# more rights than an ordinary user's root has.
	for deb in "$work/debs"/*.deb; do
		echo "unpacking ${deb##*/}"
		# shellcheck disable=SC2016 # for the shell inside
		in_root "$to" --bind "$work/debs:/work" \
			sh -ec 'dpkg-deb --fsys-tarfile "/work/$1" | tar -x --no-same-owner -C /' sh "${deb##*/}"
	done
	# A new file: the old one is the toolchain root's as well.
	rm "$to/packages"
	{
		cat "$root/packages"
		for deb in "$work/debs"/*.deb; do
			in_root "$to" --bind "$work/debs:/work" dpkg-deb -W "/work/${deb##*/}"
		done
	} >"$to/packages"
	rm -rf "$work"
	in_root "$to" clang-19 --version
}

case ${1:-} in
--make)
	cache_need_mib "clang for the debug kernel" 1000
	step "clang for the debug kernel" "$(cache_log llvm-root)" "$0" --fill "$3" "$2"
	;;
--fill) fill "$2" "$3" ;;
*)
	root=$("$here/toolchain-root.sh")
	cache_get llvm-root "$(cache_key "$0" "${root##*/}" "${CKPT_MIRROR:-}")" "$0" --make "$root"
	;;
esac
