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
if ! cargo metadata --no-deps --format-version 1 --locked | grep -q '"name":"ckpt-bench"'; then
	die "nothing to measure with yet: the workspace has no program ckpt-bench"
fi
"$here/build.sh" --vm
CKPT_VM_ICOUNT=1 CKPT_VM_CPUS=1 "$here/run-vm.sh" bench "$here/guest/bench"
