#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# A shell in the test VM, with the module loaded and the tool in the PATH.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=say.sh
. "$here/say.sh"

[[ -t 0 ]] || die "make vm is for a person at a terminal; scripts/run-vm.sh runs a program in the VM"
"$here/build.sh" --vm
say "booting; exit ends the VM, so does ctrl-a x"
CKPT_VM_CONSOLE=1 "$here/run-vm.sh" vm "$here/guest/shell"
