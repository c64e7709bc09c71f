#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# failover.sh [SCHEDULES [SEED]]: what tests/failover does, in namespaces of its own, which
# vanish with all that is in them however this ends. Then shows that it finds two faults that are
# put in on purpose. CKPT_TEST_SCHEDULES and CKPT_TEST_SEED are the defaults.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=../scripts/say.sh
. "$top/scripts/say.sh"

schedules=${1:-${CKPT_TEST_SCHEDULES:-24}}
seed=${2:-${CKPT_TEST_SEED:-$RANDOM$RANDOM}}
built=${CARGO_TARGET_DIR:-$top/target}/${CKPT_TEST_PROFILE:-release}
export PATH=$built/examples:$built:$PATH:/usr/sbin:/sbin LD_LIBRARY_PATH=$built

skip() {
	say "skipped: failover, as $*"
	exit 0
}

# A process tree of its own: the kernel kills all of it with its first process.
alone=(unshare --mount --net --pid --fork --kill-child=KILL --mount-proc)
((EUID == 0)) || skip "it makes networks, which needs root"
for tool in unshare ip tc etcd; do
	command -v "$tool" >/dev/null || skip "there is no $tool: scripts/host-setup.sh test"
done
"${alone[@]}" ip link add to-a type veth peer name to-b 2>/dev/null ||
	skip "this machine lets nobody make namespaces with networks"

work=$(mktemp -d)
running=
# shellcheck disable=SC2329 # by the traps
clean() {
	[[ -z $running ]] || kill -KILL "$running" 2>/dev/null || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# within SECONDS ARGUMENTS...: failover in its namespaces, with at most so much time.
within() {
	local status=0
	# shellcheck disable=SC2016 # for the shell in there
	(cd "$work" && exec timeout -k 1 "$1" "${alone[@]}" bash -c '
		mkdir -p /run/netns
		mount -t tmpfs none /run/netns
		failover "$@"
		exit $?' failover "${@:2}") &
	running=$!
	wait "$running" || status=$?
	running=
	return "$status"
}

failed=0
within $((schedules * 60)) "$schedules" "$seed" || failed=$?
if ((failed)); then
	for log in "$work"/*/west.log "$work"/*/east.log; do
		[[ -e $log ]] || continue
		say "the end of ${log##*/}:"
		tail -n 40 "$log" | sed 's/^/    /' >&2
	done
	say "to repeat it: tests/failover.sh 1 SEED, with the last seed above"
	exit "$failed"
fi

for fault in durable early; do
	status=0
	within 600 10 "$seed" "$fault" >"$work/$fault.out" || status=$?
	if ((status != 1)); then
		cat "$work/$fault.out" >&2
		die "the fault $fault was put in on purpose and not found (status $status)"
	fi
	say "the fault $fault, put in on purpose, was found: $(grep -m 1 -E '^key' "$work/$fault.out" || tail -n 3 "$work/$fault.out" | head -n 1)"
	rm -rf "${work:?}"/[0-9]*
done
