#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Builds library, tool and examples: target/release and target/examples.
# With --vm: also the module and what only the test VM needs.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"
step_tail=60

"$here/host-setup.sh" userland
built=${CARGO_TARGET_DIR:-$top/target}/release

cd "$top"
packages=(--package ckptctl --package ckpt-ffi)
[[ ${1:-} != --vm ]] || packages=(--workspace)
step "library and tool" target/logs/cargo-build.log \
	cargo build --release --locked "${packages[@]}" --bins --lib --examples
# The name by which programs that were linked with it look for it.
ln -sf libckpt.so "$built/libckpt.so.1"
if [[ -f examples/Makefile ]]; then
	step "examples in C" target/logs/examples.log \
		make -C examples OUT="$top/target/examples" CKPT_CFLAGS="-I$top/include" CKPT_LIBS="-L$built -lckpt"
fi
[[ ${1:-} != --vm ]] || "$here/kmod.sh"
