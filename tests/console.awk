# SPDX-License-Identifier: Apache-2.0 OR MIT
# Looks through the log of a guest's console for complaints of the kernel. Prints
# each with the lines that follow it, and exits with 1 when there was one.
function complaint(line) {
	# A program that the kernel reports as killed by a signal is no complaint, and a
	# check that says it is there is none.
	if (line ~ /traps: |ommand line: |ODEBUG: selftest passed/) return 0
	return line ~ /BUG:|WARNING:|Oops|[Kk]ernel panic|INFO: task|general protection|RIP: 0010/ \
		|| line ~ /kernel BUG|unable to handle|detected stalls?|soft lockup|hard LOCKUP|KASAN|UBSAN/ \
		|| line ~ /list_(add|del) corruption|refcount_t:|Bad page|Bad rss-counter|non-zero pgtables_bytes/ \
		|| line ~ /scheduling while atomic|sleeping function called|possible.*deadlock|stack-protector/ \
		|| line ~ /suspicious RCU|possible circular|possible recursive|inconsistent lock state|non-static key/ \
		|| line ~ /BUG [A-Za-z0-9_:-]+ \(|pagealloc: |ODEBUG: |rust_kernel: panicked/ \
		|| line ~ /kmemleak: .*(suspected memory leak|Cannot|disabled|exceeded)/ \
		|| line ~ /turning off the locking correctness validator/
}
complaint($0) { found = 1; left = 25 }
left > 0 { print; left-- }
END { exit found }
