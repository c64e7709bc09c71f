#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of what every test VM starts from: vmlinuz, base.cpio (a small
# Debian trixie with the kernel modules it needs) and scratch.img (an empty ext4
# disk). What this checkout builds comes on top of it, see guest-payload.sh.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

programs=(kmod less libgcc-s1 mount procps strace)
# With what they depend on. The virtio bus, console and random source are built in.
kernel_modules=(virtio_blk ext4)

make_debian() {
	mmdebstrap --variant=essential --format=tar \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/zoneinfo/*' \
		--dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/gconv/*' \
		--include="$(IFS=,; echo "${programs[*]}")" \
		trixie - ${CKPT_MIRROR:+"$CKPT_MIRROR"} |
		tar -x --no-same-owner --exclude='./dev/*' -C "$1"
	rm -rf "$1"/var/{cache,lib/apt,lib/dpkg,log}
	mkdir -p "$1"/{ckpt,scratch,proc,sys,dev,run,tmp}
}

# Two users who may use /dev/ckpt, and one who may not.
add_users() {
	echo 'ckpt:x:900:member,colleague' >>"$1/etc/group"
	local name id=1000
	for name in member colleague outsider; do
		id=$((id + 1))
		echo "$name:x:$id:" >>"$1/etc/group"
		echo "$name:*:$id:$id::/tmp:/bin/bash" >>"$1/etc/passwd"
	done
	echo ckpt-vm >"$1/etc/hostname"
}

add_kernel_modules() {
	local to=$1 packages=$2 release file
	release=$(<"$packages/release")
	for file in $(in_root "$root" --ro-bind "$packages/modules:/work" \
		modprobe --dirname /work --set-version "$release" --all --show-depends "${kernel_modules[@]}" |
		sed -n 's|^insmod /work/*\(lib/modules/[^ ]*\).*|\1|p' | sort -u); do
		install -D -m 644 "$packages/modules/$file" "$to/usr/$file"
	done
	cp "$packages/modules/lib/modules/$release"/modules.builtin* "$to/usr/lib/modules/$release/"
	in_root "$root" --bind "$to:/work" depmod -b /work "$release"
}

make_image() {
	local to=$1 root=$2 packages=$3
	mkdir "$to/debian"
	make_debian "$to/debian"
	add_users "$to/debian"
	add_kernel_modules "$to/debian" "$packages"
	# shellcheck disable=SC2016 # for the shell inside
	in_root "$root" --bind "$to:/work" sh -ec '
		cd /work/debian
		find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0 --reproducible >../base.cpio
		truncate --size=1G ../scratch.img
		mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -L scratch ../scratch.img
	'
	rm -rf "$to/debian"
	cp "$packages/vmlinuz" "$packages/release" "$to/"
}

case ${1:-} in
--make)
	cache_need_mib "the guest image" 400
	step "the guest image" "$(cache_log guest-image)" "$0" --fill "$4" "$2" "$3"
	;;
--fill) make_image "$2" "$3" "$4" ;;
*)
	root=$("$here/toolchain-root.sh")
	packages=$("$here/kernel-packages.sh")
	key=$(cache_key "$0" "$(<"$packages/version")" "${CKPT_MIRROR:-}")
	cache_get guest-image "$key" "$0" --make "$root" "$packages"
	;;
esac
