#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs examples/*/check.sh, each in an empty folder, with the tool and the built
# examples in the PATH. This way on the host, without the module; the guest runs
# the same with it (tests/guest.d/50-examples).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
built=${CARGO_TARGET_DIR:-$top/target}/release
export PATH=$top/target/examples:$built/examples:$built:$PATH LD_LIBRARY_PATH=$built CKPT_TRACKER=compare

failed=0
for example in "$top"/examples/*/check.sh; do
	[[ -x $example ]] || continue
	name=$(basename "$(dirname "$example")")
	work=$(mktemp -d)
	if (cd "$work" && timeout 300 "$example") >"$work.log" 2>&1; then
		echo "ok    examples: $name"
	else
		failed=1
		echo "FAIL  examples: $name"
		sed 's/^/        /' "$work.log"
	fi
	rm -rf "$work" "$work.log"
done
exit "$failed"
