#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Does all of the workspace compile with the Rust of Debian 13, the oldest that we
# promise, and is its clippy content? The toolchain root has it. What cargo on the host has loaded is used.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

root=$("$here/toolchain-root.sh")
registry=${CARGO_HOME:-$HOME/.cargo}/registry
cd "$top"
cargo fetch --quiet --locked
mkdir -p target/oldest-rust
step_tail=60
step "all with the oldest Rust" target/logs/oldest-rust.log \
	in_root "$root" --ro-bind "$top:/work" --bind "$top/target/oldest-rust:/out" --bind "$registry:/root/.cargo/registry" \
	cargo clippy --manifest-path /work/Cargo.toml --target-dir /out --workspace --all-targets --locked --offline -- -D warnings
