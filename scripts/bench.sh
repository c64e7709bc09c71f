#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs the workspace's benchmark program ckpt-bench in the test VM, on one
# processor that counts instructions, and shows its table. What was not measured
# is not printed.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"

cd "$top"
"$here/host-setup.sh" userland
step "the benchmark program" target/logs/bench-build.log cargo build --release --locked --package ckpt-bench
"$here/kmod.sh"
CKPT_VM_ICOUNT=1 CKPT_VM_CPUS=1 "$here/run-vm.sh" bench "$here/guest/bench"
