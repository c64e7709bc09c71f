#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs tests/guest.d/60-kill on the host, without the module. CKPT_TEST_KILLS and
# CKPT_TEST_SEED are handed on.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
built=${CARGO_TARGET_DIR:-$top/target}/release
export PATH=$top/target/examples:$built:$PATH LD_LIBRARY_PATH=$built
export CKPT_TRACKER=compare CKPT_TEST_KILLS=${CKPT_TEST_KILLS:-60}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CKPT_TEST_SCRATCH=$work
{
	"$here/guest.d/60-kill"
	echo '# ckpt: end of tests'
} | awk -v counts="$work/counts" -f "$here/ktap.awk"
