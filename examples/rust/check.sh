#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Counts the same text undisturbed and with a crash every third commit, in the current folder.
# Needs ckptctl and tally in the PATH.
set -euo pipefail

for i in {1..2050}; do echo "Line $i of a text that counts"; done >text
ckptctl run --store quiet -- tally text >quiet.txt
[[ $(head -n 1 quiet.txt) == '2050 lines' && $(grep '^t ' quiet.txt) == 't 10250' ]]

ckptctl run --store crashing --restart on-failure --backoff 10ms..20ms -- tally text 3 >crashing.txt 2>words
cmp quiet.txt crashing.txt
# 20 commits are six crashes, and two commits for the last life.
[[ $(grep -c 'going on from epoch' words) == 6 ]] || {
	cat words >&2
	exit 1
}
ckptctl verify crashing
