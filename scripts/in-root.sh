# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Running a command in the toolchain root, as root or as an ordinary user.
# Mounts live in a namespace of their own and end with the command.

# in_root ROOT [--bind HOST:INSIDE | --ro-bind HOST:INSIDE]... COMMAND...
in_root() {
	local root=$1 mounts=() user=()
	shift
	while [[ ${1:-} == --bind || ${1:-} == --ro-bind ]]; do
		mounts+=("${1#--}" "${2%:*}" "${2##*:}")
		shift 2
	done
	((EUID == 0)) || user=(--map-root-user)
	# shellcheck disable=SC2016 # the inner shell expands these
	unshare "${user[@]}" --mount --propagation private -- bash -euc '
		root=$1 count=$2
		shift 2
		for dir in proc dev sys; do mount --rbind "/$dir" "$root/$dir"; done
		if [[ -f /etc/resolv.conf ]]; then
			[[ -f $root/etc/resolv.conf ]] || : >"$root/etc/resolv.conf"
			mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
		fi
		while ((count > 0)); do
			if [[ -d $2 ]]; then mkdir -p "$root$3"; else mkdir -p "$(dirname "$root$3")"; : >>"$root$3"; fi
			mount --bind "$2" "$root$3"
			[[ $1 == bind ]] || mount -o remount,bind,ro "$root$3"
			shift 3
			((count -= 3)) || true
		done
		exec env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" \
			KBUILD_BUILD_USER=ckpt KBUILD_BUILD_HOST=ckpt KBUILD_BUILD_TIMESTAMP="1970-01-01" \
			${KRUSTFLAGS:+KRUSTFLAGS="$KRUSTFLAGS"} \
			chroot "$root" "$@"
	' in_root "$root" "${#mounts[@]}" "${mounts[@]}" "$@"
}
