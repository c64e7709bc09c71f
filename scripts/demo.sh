#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The demonstration: builds everything, boots the test VM and shows what
# examples/lua/demo-guest.sh prints there.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"

main=$top/examples/lua/demo-guest.sh
[[ -f $main ]] || die "no examples/lua/demo-guest.sh to show"
"$here/build.sh" --vm
status=0
CKPT_VM_TEXTS=1 CKPT_VM_MEMORY=${CKPT_VM_MEMORY:-3072} "$here/run-vm.sh" demo "$main" || status=$?

logs=$top/target/test-logs/demo
if [[ -f $logs/console.log ]] && ! awk -f "$top/tests/console.awk" "$logs/console.log" >&2; then
	die "the kernel complained, see $logs/console.log"
fi
if ((status != 0)); then
	[[ ! -s $logs/stderr.log ]] || tail -n 20 "$logs/stderr.log" >&2
	die "the demonstration failed with status $status; the logs are in $logs"
fi
