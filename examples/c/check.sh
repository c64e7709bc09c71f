#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Runs the small C examples in the current folder. Needs ckptctl, counter and journal in the
# PATH. The large one, invariants, is for tests/guest.d/60-kill.
set -euo pipefail

fail() {
	echo "$1" >&2
	exit 1
}

# counter: killed once it has said something, it goes on from there or from one commit later.
mkfifo said
ckptctl run --store counter -- stdbuf -oL counter >said &
program=$!
exec {said}<said
read -r last words <&"$said"
[[ $words == 'is safe' ]] || fail "counter said: $last $words"
kill -9 $program
while read -r number words; do last=$number; done <&"$said"
wait $program 2>/dev/null || true
((last < 999000)) || fail "counter was done before it could be killed"
read -r first words < <(ckptctl run --store counter -- stdbuf -oL counter)
((first == last + 1000 || first == last + 2000)) || fail "counter said $last, then $first"

# journal: what it acknowledged is there, in order, after any number of starts.
for ((start = 0; start < 5; start++)); do
	for ((line = 0; line < 30; line++)); do
		printf 'start %d line %d %*d\n' "$start" "$line" 1000 "$line"
	done >lines
	ckptctl run --store journal -- journal <lines >acknowledged
	cat lines >>expected
	(($(wc -l <acknowledged) == 30)) || fail "journal acknowledged: $(<acknowledged)"
done
[[ $(tail -n 1 acknowledged) == '150 (epoch 154)' ]] || fail "journal: $(tail -n 1 acknowledged)"
# Its state has no pointers to code, so this needs no stable layout.
CKPT_STORE=journal journal --print | cmp - expected

# A chain of one program is no other's; both are named.
if ckptctl run --store counter -- journal --print >report 2>words; then fail "journal restored counter's state"; fi
grep -q '/counter .*/journal ' words || fail "refused without naming both: $(<words)"

for chain in counter journal; do ckptctl verify $chain >report || fail "$(<report)"; done
