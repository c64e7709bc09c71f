#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# host-setup.sh PURPOSE...: sees to it that the host has the tools for it. Root
# gets them installed; others are told the command. PURPOSE is kmod, vm, userland,
# test or check.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=say.sh
. "$here/say.sh"

missing=()

# tool COMMAND PACKAGE
tool() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2"); }

# file PATH PACKAGE
file() { [[ -e $1 ]] || missing+=("$2"); }

# rust_part CARGO-COMMAND PACKAGE COMPONENT: Debian has packages, rustup components.
rust_part() {
	cargo "$1" --version >/dev/null 2>&1 && return
	if [[ $(command -v cargo) == /usr/bin/cargo ]]; then
		missing+=("$2")
	else
		die "cargo $1 is missing; run: rustup component add $3"
	fi
}

for purpose in "$@"; do
	case $purpose in
	kmod)
		tool mmdebstrap mmdebstrap
		tool nm binutils
		file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
		# mmdebstrap needs it when somebody else than root runs it.
		((EUID == 0)) || tool newuidmap uidmap
		;;
	vm)
		tool qemu-system-x86_64 qemu-system-x86
		file /usr/share/seabios/bios-256k.bin seabios
		tool strip binutils
		;;
	userland)
		tool gcc gcc
		file /usr/include/stdio.h libc6-dev
		tool pkg-config pkg-config
		file /usr/include/lua5.4/lua.h liblua5.4-dev
		command -v cargo >/dev/null ||
			die "cargo is missing: install Rust 1.85 or newer (Debian 13: apt-get install cargo; else rustup)"
		;;
	test)
		tool python3 python3
		# Tests start their own, in directories and on ports of their own; that of the package is not used.
		tool etcd etcd-server
		tool ip iproute2
		tool tc iproute2
		tool mandoc mandoc
		tool zsh zsh
		tool fish fish
		;;
	check)
		tool shellcheck shellcheck
		tool git git
		rust_part fmt rustfmt rustfmt
		rust_part clippy rust-clippy clippy
		;;
	*) die "unknown purpose $purpose" ;;
	esac
done

((${#missing[@]} > 0)) || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
command="apt-get install --no-install-recommends ${missing[*]}"
command -v apt-get >/dev/null || die "missing: ${missing[*]} (names of Debian's packages)"
((EUID == 0)) || die "tools are missing; run: sudo $command"
say "installing what is missing here: ${missing[*]}"
install_missing() {
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}
step "$command" "$(dirname "$here")/target/logs/apt.log" install_missing
