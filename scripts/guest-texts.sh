#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of a folder with texts.cpio: real texts for the demonstration, at
# /ckpt/texts in the guest: those of the kernel's source and Debian's licences.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

pack() {
	local to=$1 root=$2 tree=$3
	mkdir -p "$to/stage/ckpt/texts"
	(cd "$tree/src" && find LICENSES MAINTAINERS Documentation -type f \
		\( -path 'LICENSES/*' -o -name MAINTAINERS -o -name '*.rst' \) -print0 |
		tar -c --null -T -) | tar -x -C "$to/stage/ckpt/texts"
	cp -a "$root/usr/share/common-licenses" "$to/stage/ckpt/texts/"
	# shellcheck disable=SC2016 # for the shell inside
	in_root "$root" --bind "$to:/work" sh -ec '
		cd /work/stage
		find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0 --reproducible >../texts.cpio
	'
	rm -rf "$to/stage"
}

case ${1:-} in
--make)
	step "texts of the kernel's source" "$(cache_log guest-texts)" "$0" --pack "$4" "$2" "$3"
	;;
--pack) pack "$2" "$3" "$4" ;;
*)
	root=$("$here/toolchain-root.sh")
	tree=$("$here/kernel-tree.sh")
	key=$(cache_key "$0" "$(<"$tree/version")")
	cache_get guest-texts "$key" "$0" --make "$root" "$tree"
	;;
esac
