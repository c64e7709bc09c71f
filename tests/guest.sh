#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Boots the test VM and runs the tests of tests/guest.d in it, once for each line
# of tests/guest.runs (or for those named as arguments). Prints a line per test
# and, last, the counts. Everything is kept in target/test-logs/NAME.
# CKPT_GUEST_AT_ONCE=N has up to N VMs at the same time; then each result says of which run it is.
# CKPT_RUN_VM names another program in place of scripts/run-vm.sh.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=../scripts/say.sh
. "$top/scripts/say.sh"

run_vm=${CKPT_RUN_VM:-$top/scripts/run-vm.sh}
all_passed=0 all_failed=0 all_skipped=0

# fail TEXT: a failure that no test reported.
fail() {
	((failed += 1))
	printf '%-5s %s\n' FAIL "$1"
}

run() {
	local name=$1 cpus=$2 memory=$3 limit=$4 programs=$5
	shift 5
	local logs=$top/target/test-logs/$name work status=0 passed=0 failed=0 skipped=0
	work=$(mktemp -d)
	say "guest tests, run $name: $cpus processors, $memory MiB"
	set +e
	CKPT_VM_CPUS=${CKPT_VM_CPUS:-$cpus} CKPT_VM_MEMORY=${CKPT_VM_MEMORY:-$memory} \
		CKPT_VM_TIMEOUT=${CKPT_VM_TIMEOUT:-$limit} CKPT_TEST_PROGRAMS=$programs \
		env "$@" "$run_vm" "$name" "$top/scripts/guest/tests" |
		tee "$work/results.ktap" | awk -v counts="$work/counts" -f "$here/ktap.awk"
	status=${PIPESTATUS[0]}
	set -e
	[[ ! -s $work/counts ]] || read -r passed failed skipped <"$work/counts"
	mkdir -p "$logs"
	mv "$work/results.ktap" "$logs/"
	rm -rf "$work"

	case $status in
	0) ;;
	124) fail "$name: the VM was killed after its time limit" ;;
	*) fail "$name: the VM failed with status $status" ;;
	esac
	if [[ ! -s $logs/console.log ]]; then
		fail "$name: the VM left no console log"
	elif ! awk -f "$here/console.awk" "$logs/console.log" >"$logs/complaints.log"; then
		fail "$name: the kernel complained"
		sed 's/^/        /' "$logs/complaints.log" | head -n 60
	fi
	if ((failed > 0)); then
		say "the logs of this run are in $logs"
		[[ ! -s $logs/stderr.log ]] || tail -n 15 "$logs/stderr.log" | sed 's/^/        stderr: /' >&2
	fi
	((all_passed += passed, all_failed += failed, all_skipped += skipped)) || true
}

runs=0 pids=() at_once=${CKPT_GUEST_AT_ONCE:-1}
together=$(mktemp -d)
trap 'rm -rf "$together"' EXIT
while read -r name rest; do
	[[ -n $name && $name != \#* ]] || continue
	(($# == 0)) || [[ " $* " == *" $name "* ]] || continue
	((runs += 1))
	read -ra fields <<<"$rest"
	# The VM must not read our list of runs.
	if ((at_once > 1)); then
		while (($(jobs -rp | wc -l) >= at_once)); do wait -n || true; done
		{
			run "$name" "${fields[@]}" </dev/null
			echo "$all_passed $all_failed $all_skipped" >"$together/$runs.counts"
		} 2>&1 | sed -u -E "s/^(ok|FAIL|skip) .*/&  [$name]/" &
		pids[runs]=$!
	else
		run "$name" "${fields[@]}" </dev/null
	fi
done <"${CKPT_GUEST_RUNS:-$here/guest.runs}"
for number in "${!pids[@]}"; do
	wait "${pids[number]}" || true
	# A run that left no counts was ended by somebody.
	counts=(0 1 0)
	[[ ! -s $together/$number.counts ]] || read -ra counts <"$together/$number.counts"
	((all_passed += counts[0], all_failed += counts[1], all_skipped += counts[2])) || true
done
((runs > 0)) || die "no such run; tests/guest.runs lists them"

printf '%d passed, %d failed, %d skipped\n' "$all_passed" "$all_failed" "$all_skipped"
((all_failed == 0 && all_passed > 0))
