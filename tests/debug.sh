#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The guest tests on the debug kernel: as they are, and with memory refused to the
# module. Names of runs of tests/guest.debug-runs as arguments run only those.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=../scripts/say.sh
. "$top/scripts/say.sh"

export CKPT_VM_KERNEL=debug
"$top/scripts/host-setup.sh" userland kmod vm test
"$top/scripts/debug-kernel.sh" >/dev/null
"$top/scripts/build.sh" --vm
CKPT_GUEST_RUNS=$here/guest.debug-runs "$here/guest.sh" "$@"
