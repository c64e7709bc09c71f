#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Kills the server at random moments while clients write and read (tests/kv), in the current
# folder. Needs ckptctl, kv and kv-kills in the PATH, and the network interface lo.
#
# CKPT_TEST_KILLS: how often. CKPT_TEST_SEED: for the moments and the requests.
set -euo pipefail

kills=${CKPT_TEST_KILLS:-40}
kv-kills "$kills" ${CKPT_TEST_SEED:+"$CKPT_TEST_SEED"} 2>words || {
	tail -n 20 words
	exit 1
}
(($(grep -c 'keys, listening' words) > kills)) || {
	echo "too few restarts: $(<words)"
	exit 1
}
ckptctl verify chain

# A server that answers before it is safe is caught: the test is able to fail.
rm -rf chain
status=0
kv-kills 200 1 --answer-early >told 2>words || status=$?
if ((status != 1)); then
	echo "answering early was not noticed, status $status:"
	cat told
	tail -n 5 words
	exit 1
fi
grep -q 'was told' told
echo "answering early is noticed: $(grep -m 1 'was told' told)"
