#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Does tests/guest.sh see what goes wrong in a guest? Canned output takes the
# place of the VM here.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")

work=$(mktemp -d)
trap 'rm -rf "$work" "$top"/target/test-logs/parser{,1,2,3}' EXIT
echo 'parser 1 64 10 *' >"$work/runs"
cat >"$work/run-vm" <<END
#!/bin/bash
mkdir -p "$top/target/test-logs/\$1"
cp "$work/console" "$top/target/test-logs/\$1/console.log"
cat "$work/ktap"
exit \$(<"$work/status")
END
chmod +x "$work/run-vm"

good_ktap() {
	cat <<'END'
KTAP version 1
1..2
ok 1 the_module_loads
# Subtest: 10-module
  KTAP version 1
  1..3
  ok 1 create::an_id_is_new
  # a diagnosis
  ok 2 create::a_name_is_kept # SKIP no names here
  ok 3 - delta::is_empty
ok 2 10-module
# ckpt: end of tests
END
}

good_console() {
	cat <<'END'
[    0.000000] Command line: console=ttyS0 oops=panic panic=-1
[    3.055593] ckpt: loading out-of-tree module taints kernel.
[    4.100000] traps: test[123] general protection fault ip:401136 sp:7ffd error:0 in test[401000+1000]
[    5.853441] sysrq: Power Off
END
}

# What the debug kernel says of its checks when all is well.
debug_console() {
	cat <<'END'
[    0.000000] Command line: console=ttyS0 oops=panic panic=-1 page_poison=1
[    0.000000] kasan: KernelAddressSanitizer initialized (generic)
[    0.000000] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
[    0.300000] kmemleak: Kernel memory leak detector initialized (mem pool available: 38000)
[    0.400000] ODEBUG: selftest passed
[    7.100000] Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF
[    9.853441] sysrq: Power Off
END
}

number=0 failures=0

# claim NAME STATUS LAST-LINE [PATTERN]: what guest.sh must make of what is canned.
claim() {
	local name=$1 want_status=$2 want_last=$3 pattern=${4:-} status=0 out last
	((number += 1))
	out=$(CKPT_RUN_VM=$work/run-vm CKPT_GUEST_RUNS=$work/runs "$here/guest.sh" 2>&1) || status=$?
	last=${out##*$'\n'}
	if [[ $status == "$want_status" && $last == "$want_last" && $out =~ $pattern ]]; then
		echo "ok    parser: $name"
	else
		((failures += 1))
		echo "FAIL  parser: $name: status $status, want $want_status; last line '$last', want '$want_last'; pattern '$pattern'"
		printf '        %s\n' "${out//$'\n'/$'\n'        }"
	fi
	canned
}

# complains NAME LINE: a console of the debug kernel with that line in it fails.
complains() {
	{
		debug_console
		echo "[   10.000000] $2"
	} >"$work/console"
	claim "$1" 1 '3 passed, 1 failed, 1 skipped' 'the kernel complained'
}

# Back to a guest in which all went well.
canned() {
	good_ktap >"$work/ktap"
	good_console >"$work/console"
	echo 0 >"$work/status"
}

# change SED-SCRIPT FILE
change() { sed -i -e "$1" "$work/$2"; }

canned
claim a_good_run_passes 0 '3 passed, 0 failed, 1 skipped'

debug_console >"$work/console"
claim checks_that_say_they_are_there_are_no_complaint 0 '3 passed, 0 failed, 1 skipped'

complains a_use_after_free_fails 'BUG: KASAN: slab-use-after-free in ckpt_x+0x1/0x2 [ckpt]'
complains a_lock_order_that_may_deadlock_fails 'WARNING: possible circular locking dependency detected'
complains a_lock_taken_twice_fails 'WARNING: possible recursive locking detected'
complains a_lock_without_a_key_fails 'INFO: trying to register non-static key.'
complains a_lock_validator_that_gave_up_fails 'turning off the locking correctness validator.'
complains rcu_used_wrongly_fails 'WARNING: suspicious RCU usage'
complains sleeping_in_atomic_context_fails 'BUG: sleeping function called from invalid context at mm/slub.c:1'
complains a_leak_that_kmemleak_reports_fails 'kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)'
complains a_leak_detector_that_gave_up_fails 'kmemleak: Kernel memory leak detector disabled'
complains an_object_freed_while_in_use_fails 'ODEBUG: free active (active state 0) object: ffff888 object type: timer_list'
complains a_damaged_slab_object_fails 'BUG kmalloc-64 (Tainted: G           O       ): Right Redzone overwritten'
complains a_freed_page_written_to_fails 'pagealloc: memory corruption'
complains a_damaged_list_fails 'list_del corruption. prev->next should be ffff888, but was 0'
complains a_panic_of_rust_fails 'rust_kernel: panicked at kmod/arena.rs:1:1: attempt to subtract with overflow'

change 's/^  ok 3 - /  not ok 3 - /; s/^ok 2/not ok 2/' ktap
claim a_failed_test_is_named_and_counted_once 1 '2 passed, 1 failed, 1 skipped' 'FAIL +10-module: delta::is_empty'

change 's/^  # a diagnosis/  # seed 42/; s/^  ok 2 .*/  not ok 2 create::a_name_is_kept/; s/^ok 2/not ok 2/' ktap
claim the_diagnosis_of_a_failed_test_is_shown 1 '3 passed, 1 failed, 0 skipped' '# seed 42'

change '/^1\.\./d' ktap
claim a_missing_plan_fails 1 '3 passed, 1 failed, 1 skipped' 'no plan'

change '/^  1\.\./d' ktap
claim a_missing_plan_of_a_program_fails 1 '3 passed, 1 failed, 1 skipped' '10-module: no plan'

change '/end of tests/d' ktap
claim a_missing_trailer_fails 1 '3 passed, 1 failed, 1 skipped' 'before its trailer'

change '/^  ok 3/d' ktap
claim a_planned_test_without_result_fails 1 '2 passed, 1 failed, 1 skipped' '3 tests planned, 2 reported'

change '/^  ok 2/d' ktap
claim a_result_out_of_order_fails 1 '3 passed, 2 failed, 0 skipped' 'is number 3, but 2 was due'

change 's/^ok 2/not ok 2/' ktap
claim a_program_that_ends_badly_after_good_tests_fails 1 '3 passed, 1 failed, 1 skipped' 'ended badly'

change '/^  ok 2/,99d' ktap
claim output_cut_off_in_a_program_fails 1 '2 passed, 3 failed, 0 skipped' 'cut off'

: >"$work/ktap"
claim no_output_at_all_fails 1 '0 passed, 1 failed, 0 skipped' 'no KTAP document'

change '3i [    4.000000] WARNING: CPU: 0 PID: 123 at mm/memory.c:1 x+0x1/0x2' console
claim a_warning_on_the_console_fails_and_is_shown 1 '3 passed, 1 failed, 1 skipped' 'mm/memory.c:1'

change '3i [    4.000000] INFO: task ckpt-guest-tests:99 blocked for more than 120 seconds.' console
claim a_hung_task_fails 1 '3 passed, 1 failed, 1 skipped' 'blocked for more'

change '3i [    4.000000] BUG: unable to handle page fault for address: ffff888000000000' console
claim a_fault_in_the_kernel_fails 1 '3 passed, 1 failed, 1 skipped' 'unable to handle'

: >"$work/console"
claim a_missing_console_log_fails 1 '3 passed, 1 failed, 1 skipped' 'no console log'

echo 124 >"$work/status"
claim a_guest_that_ran_into_its_time_limit_fails 1 '3 passed, 1 failed, 1 skipped' 'time limit'

echo 125 >"$work/status"
claim a_guest_that_told_no_status_fails 1 '3 passed, 1 failed, 1 skipped' 'status 125'

change 's/^KTAP/Bail out! no memory/' ktap
claim a_bail_out_fails 1 '3 passed, 2 failed, 1 skipped' 'Bail out'

# Several VMs at the same time. The directories of logs are theirs, so one name each.
printf 'parser%d 1 64 10 *\n' 1 2 3 >"$work/runs"
export CKPT_GUEST_AT_ONCE=2
claim runs_at_the_same_time_are_counted_together 0 '9 passed, 0 failed, 3 skipped' 'an_id_is_new +\[parser3\]'

change 's/ok 3 - delta/not ok 3 - delta/' ktap
claim a_failure_in_each_of_them_is_counted 1 '6 passed, 3 failed, 3 skipped' 'FAIL +10-module: delta::is_empty +\[parser2\]'
unset CKPT_GUEST_AT_ONCE

printf '%d passed, %d failed, 0 skipped\n' $((number - failures)) "$failures"
((failures == 0))
