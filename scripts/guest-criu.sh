#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of a folder with criu.cpio: Debian's CRIU and the libraries it needs,
# for the benchmark that compares with it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

pack() {
	local to=$1 root=$2
	mkdir -p "$to/stage"
	mmdebstrap --variant=essential --format=tar --include=criu \
		--aptopt='APT::Install-Recommends "false"' \
		trixie - ${CKPT_MIRROR:+"$CKPT_MIRROR"} |
		tar -x --no-same-owner -C "$to/stage" --wildcards './usr/sbin/criu' './usr/lib/x86_64-linux-gnu/lib*.so*'
	# shellcheck disable=SC2016 # for the shell inside
	in_root "$root" --bind "$to:/work" sh -ec '
		cd /work/stage
		find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0 --reproducible >../criu.cpio
	'
	rm -rf "$to/stage"
}

case ${1:-} in
--make)
	cache_need_mib "CRIU for the guest" 300
	step "CRIU for the guest" "$(cache_log guest-criu)" "$0" --pack "$3" "$2"
	;;
--pack) pack "$2" "$3" ;;
*)
	root=$("$here/toolchain-root.sh")
	key=$(cache_key "$0" "${CKPT_MIRROR:-}")
	cache_get guest-criu "$key" "$0" --make "$root"
	;;
esac
