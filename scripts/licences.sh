#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Does every file of the project say its licence near its top, and is it the one
# for its place? The text of each licence is in LICENSES/.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

wrong=0
while IFS= read -r file; do
	[[ -f $file ]] || continue
	case $file in
	# What cannot hold a comment, or is another program's.
	LICENSES/* | Cargo.lock | *.json | *.png | *.svg | *.bin | *.chain | *.proptest-regressions | *.trycmd | */fixtures/* | */corpus/*) continue ;;
	kmod/*) want='GPL-2.0-only' ;;
	include/uapi/*) want='GPL-2.0-only WITH Linux-syscall-note' ;;
	*) want='Apache-2.0 OR MIT' ;;
	esac
	if ! head -n 3 "$file" | grep -qE "SPDX-License-Identifier: $want( \*/| -->)?$"; then
		echo "$file: no line 'SPDX-License-Identifier: $want' at its top" >&2
		wrong=1
	fi
done < <(git ls-files --cached --others --exclude-standard)
exit "$wrong"
