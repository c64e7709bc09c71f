#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Lets heat spread undisturbed, and with crashes and another number of threads, in the current
# folder: the results are the same, bit for bit. Needs ckptctl and heat in the PATH.
set -euo pipefail

fail() {
	echo "$1" >&2
	exit 1
}

ckptctl run --store quiet -- heat -n 128 -s 3000 -k 150 -t 1 quiet.pgm >quiet.txt 2>words || fail "$(<words)"
[[ $(<quiet.txt) == '3000 steps, checksum '* ]] || fail "$(<quiet.txt)"

# 20 commits, a crash behind every third: six crashes, and two commits for the last life.
ckptctl run --store crashing --restart on-failure --backoff 10ms..20ms -- \
	heat -n 128 -s 3000 -k 150 -t 3 -c 3 crashing.pgm >crashing.txt 2>words || fail "$(<words)"
cmp quiet.txt crashing.txt
cmp quiet.pgm crashing.pgm
(($(grep -c 'heat: going on behind step' words) == 6)) || fail "$(<words)"

# Killed from outside at random moments, with a third number of threads.
ckptctl run --store killed --restart on-failure --max-restarts 100 --backoff 1ms..2ms -- \
	heat -n 128 -s 3000 -k 10 -t 4 killed.pgm >killed.txt 2>words &
supervisor=$!
children=/proc/$supervisor/task/$supervisor/children
for ((kills = 0; kills < 8; kills++)); do
	sleep "0.0$((RANDOM % 90 + 10))"
	# It may be done, or be on its way up.
	pid=$(cat "$children" 2>/dev/null) || true
	[[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true
done
wait $supervisor || fail "$(<words)"
grep -q 'killed by signal 9' words || fail "it was done before it could be killed: $(<words)"
cmp quiet.txt killed.txt
cmp quiet.pgm killed.pgm

# It has spread: the picture is not what it was at the beginning.
ckptctl run --store short -- heat -n 128 -s 1 short.pgm >short.txt
if cmp -s quiet.pgm short.pgm; then fail 'nothing has changed in 3000 steps'; fi

for chain in quiet crashing killed; do ckptctl verify $chain >report || fail "$(<report)"; done
