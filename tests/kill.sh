#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs tests/guest.d/60-kill on the host, with each tracker that needs no module, or with that in
# CKPT_TRACKER. CKPT_TEST_KILLS and CKPT_TEST_SEED are handed on.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
built=${CARGO_TARGET_DIR:-$top/target}/release
export PATH=$top/target/examples:$built:$PATH LD_LIBRARY_PATH=$built
export CKPT_TEST_KILLS=${CKPT_TEST_KILLS:-60}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CKPT_TEST_SCRATCH=$work
for tracker in ${CKPT_TRACKER:-pagemap compare}; do
	export CKPT_TRACKER=$tracker
	if ! ckptctl doctor >"$work/doctor"; then
		echo "skipped: kills with the tracker $tracker, which this machine does not have:" >&2
		grep -A 1 -E "^missing +($tracker|tracker) " "$work/doctor" >&2 || true
		continue
	fi
	{
		"$here/guest.d/60-kill"
		echo '# ckpt: end of tests'
	} | awk -v counts="$work/counts" -f "$here/ktap.awk"
done
