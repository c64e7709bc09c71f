#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# What CI does in thousands, in millions: the runs of tests/guest.soak-runs, on the pinned kernel
# and on the debug kernel. Every run has a new seed and prints it; CKPT_TEST_SEED=N repeats one.
# Names of runs as arguments run only those.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=../scripts/say.sh
. "$top/scripts/say.sh"

"$top/scripts/host-setup.sh" userland kmod vm test
"$top/scripts/build.sh" --vm
# For the run on it.
"$top/scripts/debug-kernel.sh" >/dev/null
CKPT_VM_KERNEL=debug "$top/scripts/kmod.sh"
(($# > 0)) || "$here/failover.sh" "${CKPT_TEST_SCHEDULES:-1000}" || die "a service of two hosts lost something"
CKPT_GUEST_RUNS=$here/guest.soak-runs "$here/guest.sh" "$@"
