#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of the debug kernel: vmlinux, which QEMU boots as it is, build/, the
# tree that modules for it are built with, and the files version and release. Its source
# is that of the Debian kernel (kernel-tree.sh); its configuration is the kernel's
# tinyconfig with debug-kernel.config over it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

wanted=$here/debug-kernel.config

# Dies when the configuration is not what the file wants of it: the kernel's own tools drop
# silently what depends on something that is off.
examine_config() {
	local config=$1 line name lost=()
	while IFS= read -r line; do
		case $line in
		CONFIG_*) grep -qxF "$line" "$config" || lost+=("$line") ;;
		'# CONFIG_'*' is not set')
			name=${line#\# }
			! grep -q "^${name%% *}=" "$config" || lost+=("$line")
			;;
		esac
	done <"$wanted"
	((${#lost[@]} == 0)) || die "the kernel's configuration did not take: ${lost[*]}"
}

make_kernel() { # TARGET...
	in_root "$root" --ro-bind "$tree/src:/src" --bind "$to/build:/build" \
		make -C /src O=/build LLVM=-19 -j"$(nproc)" "$@"
}

build() {
	local to=$1 root=$2 tree=$3
	mkdir "$to/build"
	make_kernel tinyconfig
	cp "$wanted" "$to/build/wanted"
	in_root "$root" --ro-bind "$tree/src:/src" --bind "$to/build:/build" env KCONFIG_CONFIG=/build/.config \
		/src/scripts/kconfig/merge_config.sh -m -Q -O /build /build/.config /build/wanted
	make_kernel olddefconfig
	examine_config "$to/build/.config"
	# All that a module is built with is a by-product of this.
	make_kernel vmlinux modules_prepare
	cp "$to/build/vmlinux.symvers" "$to/build/Module.symvers"
	cp "$to/build/vmlinux" "$to/vmlinux"
	cp "$to/build/include/config/kernel.release" "$to/release"
	cp "$tree/version" "$to/version"
	# What no build of a module reads, and most of the space.
	find "$to/build" -path "$to/build/scripts" -prune -o -path "$to/build/tools" -prune -o \
		\( -name '*.o' -o -name '*.a' -o -name '.*.cmd' -o -name 'vmlinux*' ! -name vmlinux.symvers \) -type f -exec rm {} +
}

case ${1:-} in
--make)
	cache_need_mib "the debug kernel" 2500
	step "the debug kernel (once, some 10 minutes on 2 processors)" "$(cache_log debug-kernel)" \
		"$0" --build "$4" "$2" "$3"
	;;
--build) build "$2" "$3" "$4" ;;
*)
	root=$("$here/llvm-root.sh")
	tree=$("$here/kernel-tree.sh")
	compilers=$(grep -E '^(bindgen|binutils|clang|libclang|libelf-dev|lld|llvm|rust)' "$root/packages")
	# Words about an option are no reason to build again.
	options=$(grep -E '^(CONFIG_|# CONFIG_)' "$wanted")
	cache_get debug-kernel "$(cache_key "$0" "$options" "$compilers" "${tree##*/}")" "$0" --make "$root" "$tree"
	;;
esac
