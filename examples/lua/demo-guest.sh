#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The demonstration, in the test VM: a Lua program that knows nothing of files or
# restarts builds an index of real texts, is killed five times, and loses nothing.
# CKPT_DEMO_SEED sets the moments at which it is killed, CKPT_DEMO_TEXTS the number
# of texts of the documentation, CKPT_DEMO_KILLS the number of kills.
set -euo pipefail

seed=${CKPT_DEMO_SEED:-$((RANDOM * 32768 + RANDOM))}
texts=${CKPT_DEMO_TEXTS:-250}
kills=${CKPT_DEMO_KILLS:-5}
script=/ckpt/examples/lua/index.lua
work=$(mktemp -d /scratch/demo.XXXXXX)
RANDOM=$seed

bold() { printf '\n%s\n' "$*"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# All licences and MAINTAINERS; of the kernel's documentation as many texts as wanted,
# evenly spread, so that it is not one corner of the kernel.
{
	find /ckpt/texts -type f \( -path '*LICENSES*' -o -name MAINTAINERS -o -path '*common-licenses*' \) | LC_ALL=C sort
	find /ckpt/texts -type f -name '*.rst' | LC_ALL=C sort | awk -v want="$texts" '
		{ name[NR] = $0 }
		END { for (n = 1; n <= NR; n++) if (int(n * want / NR) != int((n - 1) * want / NR)) print name[n] }
	'
} >"$work/list"
bytes=$(xargs cat <"$work/list" | wc -c)

bold "The program: an inverted index of $(wc -l <"$work/list") texts, $((bytes >> 20)) MiB, in Lua 5.4 (Debian's)."
echo "Its whole Lua state is in an arena of $(uname -r)'s ckpt.ko. It commits every 40 steps."

bold '1. Undisturbed'
begun=$(now_ms)
export CKPT_COMPACT=off # The whole story is told.
ckptctl run --store "$work/quiet" -- ckpt-lua "$script" "$work/list" "$work/quiet.txt" 40
quiet=$(($(now_ms) - begun))
echo "   done in $(seconds $quiet): $(head -n 1 "$work/quiet.txt")"

bold "2. Again, and kill -9 at $kills random moments (seed $seed)"
ckptctl run --store "$work/killed" --restart on-failure -- \
	ckpt-lua "$script" "$work/list" "$work/killed.txt" 40 2>"$work/run.log" &
supervisor=$!
killed=0
while ((killed < kills)); do
	# At least once in each part of the run, so that all kills hit it at work.
	pause=$((quiet * (20 + RANDOM % 60) / 100 / kills))
	sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
	kill -0 "$supervisor" 2>/dev/null || break
	if pkill -9 -P "$supervisor" -x ckpt-lua; then killed=$((killed + 1)); fi
done
status=0
wait "$supervisor" || status=$?
sed 's/^/   /' "$work/run.log"
if ((status != 0 || killed < kills)); then
	echo "FAILED: status $status, killed $killed times"
	exit 1
fi
echo "   finished: $(head -n 1 "$work/killed.txt")"

bold '3. What was saved'
ckptctl log "$work/killed" >"$work/log.txt"
{
	head -n 4 "$work/log.txt"
	echo '       … and each restart:'
	grep ' RESTORE ' "$work/log.txt"
	echo '       … and the end:'
	tail -n 10 "$work/log.txt"
} | sed 's/^/   /'
ckptctl verify "$work/killed" 2>&1 | sed 's/^/   /'

bold '4. The result'
sha256sum "$work/quiet.txt" "$work/killed.txt" | sed "s|$work/||; s/^/   /"
if ! cmp -s "$work/quiet.txt" "$work/killed.txt"; then
	echo 'FAILED: the results differ'
	exit 1
fi
bold "Proved: killed $killed times, and the result is the same to the byte ($(stat -c %s "$work/killed.txt") bytes)."
