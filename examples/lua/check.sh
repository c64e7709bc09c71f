#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs the Lua example on a few texts, undisturbed and killed, in the current folder. Needs
# ckptctl and ckpt-lua in the PATH.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

# Texts that are on every Debian system, several times over.
mapfile -t licences < <(find /usr/share/common-licenses /ckpt/texts -maxdepth 1 -type f 2>/dev/null | LC_ALL=C sort)
((${#licences[@]} > 0)) || licences=("$here"/*.lua "$here"/*.sh)
for _ in 1 2 3 4 5 6; do printf '%s\n' "${licences[@]}"; done >list

ckptctl run --store quiet -- ckpt-lua "$here/index.lua" list quiet.txt 8
ckptctl run --store killed --restart on-failure -- ckpt-lua "$here/index.lua" list killed.txt 8 &
supervisor=$!

# Kill it three times, each time when it has committed something since the last.
epoch() { ckptctl log killed --json 2>/dev/null | grep -o '"epoch": *[0-9]*' | tail -n 1 | tr -dc 0-9; }
last=0 killed=0
while ((killed < 3)) && kill -0 "$supervisor" 2>/dev/null; do
	at=$(epoch || true)
	if ((${at:-0} > last + 2)) && pkill -9 -P "$supervisor" -x ckpt-lua; then
		last=$at killed=$((killed + 1))
	fi
done
wait "$supervisor"
((killed == 3)) || {
	echo "it was done before it could be killed three times, only $killed" >&2
	exit 1
}
cmp quiet.txt killed.txt
ckptctl verify killed
