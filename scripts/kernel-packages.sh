#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the path of what Debian ships of the kernel: vmlinuz, modules/, config,
# Module.symvers, source.tar.xz and the files version and release. Loads it
# if it is not cached. The version is the one of kernel.env, or the newest of
# its series when the archive no longer has it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=cache.sh
. "$here/cache.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"
# shellcheck source=kernel.env
. "$here/kernel.env"

# Runs apt in the root with package lists of its own, so the root stays as made.
root_apt() {
	in_root "$root" --bind "$work/lists:/var/lib/apt/lists" --bind "$work:/work" "$@"
}

has_package() { root_apt apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

versions_of() { root_apt apt-cache madison "$1" | awk -F '|' '{ gsub(/ /, "", $2); print $2 }'; }

# Prints "version release" of the kernel to take.
choose() {
	local sources release version
	sources=$(versions_of "linux-source-$kernel_series")
	if [[ $kernel_series == "$pin_series" ]] && grep -qxF "$pin_version" <<<"$sources" &&
		versions_of "linux-headers-$pin_release" | grep -qxF "$pin_version"; then
		echo "$pin_version $pin_release"
		return
	fi
	while IFS= read -r release; do
		for version in $(versions_of "linux-headers-$release"); do
			if grep -qxF "$version" <<<"$sources"; then
				echo "$version $release"
				return
			fi
		done
	done < <(root_apt apt-cache pkgnames linux-headers-"$kernel_series" |
		sed -n 's/^linux-headers-\([0-9.]*+deb[0-9]*-amd64\)$/\1/p' | sort -Vr)
	die "$kernel_suite has no linux-source-$kernel_series with headers of the same version: set another series in scripts/kernel.env"
}

fetch() {
	local to=$1 root=$2 version release names name deb
	work=$to/work
	mkdir -p "$work/lists/partial" "$work/debs" "$work/files"
	root_apt apt-get update -o APT::Sandbox::User=root
	read -r version release < <(choose)
	echo "taking $version, release $release"

	names=("linux-source-$kernel_series" "linux-headers-$release")
	if has_package "linux-binary-$release"; then
		names+=("linux-binary-$release" "linux-modules-$release")
	else
		# Before 7.0 the image package held both.
		names+=("linux-image-$release")
	fi
	# shellcheck disable=SC2016 # for the shell inside
	for name in "${names[@]}"; do
		root_apt sh -ec 'cd /work/debs && apt-get -o APT::Sandbox::User=root download "$1"' sh "$name=$version"
	done
	for deb in "$work/debs"/*.deb; do
		in_root "$root" --bind "$work:/work" dpkg-deb -x "/work/debs/${deb##*/}" /work/files
	done

	find "$work/files" \( -name vmlinuz -o -name "vmlinuz-$release" \) -exec cp {} "$to/vmlinuz" \;
	[[ -f $to/vmlinuz ]] || die "the packages of $release hold no kernel image"
	mv "$work/files/usr/src/linux-source-$kernel_series.tar.xz" "$to/source.tar.xz"
	mv "$work/files/usr/src/linux-headers-$release/.config" "$to/config"
	mv "$work/files/usr/src/linux-headers-$release/Module.symvers" "$to/Module.symvers"
	grep -qx CONFIG_RUST=y "$to/config" || die "the kernel $release was built without CONFIG_RUST: ckpt needs it"
	mkdir -p "$to/modules/lib"
	if [[ -d $work/files/usr/lib/modules ]]; then
		mv "$work/files/usr/lib/modules" "$to/modules/lib/"
	else
		mv "$work/files/lib/modules" "$to/modules/lib/"
	fi
	in_root "$root" --bind "$to/modules:/work" depmod -b /work "$release"
	echo "$version" >"$to/version"
	echo "$release" >"$to/release"
	rm -rf "$work"
}

case ${1:-} in
--make)
	cache_need_mib "the kernel's packages" 1500
	step "the kernel of $kernel_suite" "$(cache_log kernel-packages)" "$0" --fetch "$3" "$2"
	;;
--fetch) fetch "$2" "$3" ;;
*)
	root=$("$here/toolchain-root.sh")
	key=$(cache_key "$0" "$kernel_suite $kernel_series $pin_version" "${CKPT_MIRROR:-}")
	entry=$(cache_get kernel-packages "$key" "$0" --make "$root")
	if [[ $kernel_series == "$pin_series" && $(<"$entry/version") != "$pin_version" ]]; then
		warn "the archive no longer has linux $pin_version, which scripts/kernel.env pins; using $(<"$entry/version"), the newest of the $kernel_series series"
	fi
	printf '%s\n' "$entry"
	;;
esac
