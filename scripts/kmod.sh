#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Builds target/kmod/ckpt.ko. Nothing is written into kmod/.
#   kmod.sh            for the pinned Debian kernel, in the toolchain root
#                      (CKPT_KERNEL_SERIES and CKPT_VM_KERNEL as in kernel.env: for
#                      another one, into target/kmod-SERIES or target/kmod-debug)
#   KDIR=DIR kmod.sh   for a prepared kernel tree of your own, with your tools
#   kmod.sh --clippy   the kernel's clippy, warnings denied
#   kmod.sh --fmt      is the source formatted as the kernel's rustfmt wants it?
#   kmod.sh --reformat makes it so
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"
# shellcheck source=kernel.env
. "$here/kernel.env"

source=${CKPT_KMOD_SRC:-$top/kmod}
out=$top/target/$kmod_folder
mode=${1:-build}
step_tail=60

# make compares times, which mean nothing between two sources or two kernels.
fresh_when_changed() {
	local dir=$1 now=$2
	[[ -f $dir/.made-from && $(<"$dir/.made-from") == "$now" ]] || rm -rf "$dir"
	mkdir -p "$dir"
	echo "$now" >"$dir/.made-from"
	rm -f "$dir/ckpt.ko"
}

[[ -f $source/Kbuild ]] || die "$source has no Kbuild"

build_in_own_tree() {
	local kdir
	kdir=$(readlink -f "$KDIR") || true
	[[ -f $kdir/Makefile && -f $kdir/include/config/auto.conf ]] ||
		die "KDIR=$KDIR is not a prepared kernel tree: run make prepare modules_prepare there"
	grep -qx CONFIG_RUST=y "$kdir/include/config/auto.conf" || die "the kernel in KDIR=$KDIR is without CONFIG_RUST"
	fresh_when_changed "$out" "$source $kdir"
	step "ckpt.ko for $kdir" "$top/target/logs/kmod.log" \
		make -C "$kdir" M="$source" MO="$out" -j"$(nproc)" modules
	"$here/kmod-symbols.sh" "$out/ckpt.ko" "$kdir/Module.symvers"
	say "built target/kmod/ckpt.ko for $kdir"
}

# kernel_make OUT ARGUMENT...: the kernel's make for our folder. All but OUT is read-only.
kernel_make() {
	local to=$1
	shift
	fresh_when_changed "$to" "$source $kernel"
	in_root "$root" --ro-bind "$tree/src:/src" --ro-bind "$kernel/build:/build" --ro-bind "$source:/kmod" \
		--ro-bind "$top/include:/include" --bind "$to:/out" \
		make -C /src O=/build M=/kmod MO=/out "${compiler[@]}" -j"$(nproc)" "$@"
}

if [[ $mode == build && -n ${KDIR:-} ]]; then
	build_in_own_tree
	exit
fi

tree=$("$here/kernel-tree.sh")
case $kernel_kind in
stock)
	root=$("$here/toolchain-root.sh")
	kernel=$tree
	compiler=(CC=gcc-14 KERNELRELEASE="$(<"$tree/release")")
	;;
debug)
	root=$("$here/llvm-root.sh")
	kernel=$("$here/debug-kernel.sh")
	compiler=(LLVM=-19)
	;;
*) die "CKPT_VM_KERNEL=$kernel_kind is no kernel: stock or debug" ;;
esac

case $mode in
build)
	step "ckpt.ko for $(<"$kernel/release")" "$top/target/logs/$kmod_folder.log" kernel_make "$out" modules
	"$here/kmod-symbols.sh" "$out/ckpt.ko" "$kernel/build/Module.symvers"
	say "built ${out#"$top"/}/ckpt.ko"
	;;
--clippy)
	KRUSTFLAGS=-Dwarnings step "clippy of kmod/" "$top/target/logs/kmod-clippy.log" \
		kernel_make "$top/target/kmod-clippy" CLIPPY=1 KCFLAGS=-Werror modules
	;;
--fmt | --reformat)
	mapfile -t files < <(cd "$source" && find . -name '*.rs' | sort)
	check=--check bind=--ro-bind
	[[ $mode == --fmt ]] || check='' bind=--bind
	# shellcheck disable=SC2016 # for the shell inside
	in_root "$root" --ro-bind "$tree/src:/src" "$bind" "$source:/kmod" \
		sh -ec 'cd /kmod && exec rustfmt --config-path /src/.rustfmt.toml "$@"' sh ${check:+"$check"} "${files[@]}" ||
		die "kmod/ is not formatted as the kernel's rustfmt wants it: run scripts/kmod.sh --reformat"
	;;
*) die "unknown argument $mode" ;;
esac
