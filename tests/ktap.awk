# SPDX-License-Identifier: Apache-2.0 OR MIT
# Reads the KTAP document that the guest prints, writes a line per test for
# people as it comes, and the counts to the file that the variable `counts`
# names: passed, failed, skipped. What a document lacks counts as a failure:
# a plan, a test of the plan, results of a program, the trailer.

function depth_of(line) {
	match(line, /^ */)
	return int(RLENGTH / 2)
}

function report(word, text) {
	printf "%-5s %s\n", word, text
	fflush()
}

function show_diagnostics(    i) {
	for (i = 1; i <= noted; i++) printf "        %s\n", note[i]
	fflush()
}

function fail(text) {
	failed++
	report("FAIL", text)
	show_diagnostics()
	noted = 0
}

# Ends the document at this depth: its plan must be there, and fulfilled.
function end_document(d, name) {
	if (!(d in plan)) fail(name ": no plan (1..N)")
	else if (seen[d] != plan[d]) fail(name ": " plan[d] " tests planned, " seen[d] + 0 " reported")
	delete opened[d]
	delete plan[d]
	delete seen[d]
}

BEGIN { passed = failed = skipped = noted = 0 }

{ sub(/\r$/, ""); d = depth_of($0); line = substr($0, 2 * d + 1) }

line == "# ckpt: end of tests" && d == 0 { trailer = 1; next }

line ~ /^KTAP version / { opened[d] = 1; noted = 0; next }

line ~ /^# Subtest: / { program = substr(line, 12); next }

line ~ /^#/ {
	# The last hundred are kept; all are in the log.
	if (noted == 100) {
		for (i = 1; i < 100; i++) note[i] = note[i + 1]
		noted--
	}
	note[++noted] = line
	next
}

line ~ /^1\.\.[0-9]+/ { plan[d] = substr(line, 4) + 0; seen[d] = 0; next }

line ~ /^Bail out!/ { fail(line); next }

line ~ /^(not )?ok [0-9]+/ {
	good = line ~ /^ok /
	name = line
	sub(/^(not )?ok [0-9]+ *(- *)?/, "", name)
	number = line
	sub(/^(not )?ok /, "", number)
	number += 0
	reason = ""
	skip = match(name, / *# *[Ss][Kk][Ii][Pp] */)
	if (skip) {
		reason = substr(name, RSTART + RLENGTH)
		name = substr(name, 1, RSTART - 1)
	}
	if (d > 0 && program != "") name = program ": " name
	seen[d]++
	if (number != seen[d]) fail(name ": is number " number ", but " seen[d] " was due")

	if ((d + 1) in opened) {
		# The result of a program: its tests were counted one by one.
		before = failed - failed_at[d]
		end_document(d + 1, name)
		if (!good && before == 0 && failed == failed_at[d]) fail(name ": ended badly, with no test of its own failed")
		if (d == 0) program = ""
	} else if (!good) fail(name)
	else if (skip) {
		skipped++
		report("skip", name (reason == "" ? "" : " (" reason ")"))
	} else {
		passed++
		report("ok", name)
	}
	failed_at[d] = failed
	noted = 0
	next
}

END {
	if (!(0 in opened)) fail("the guest printed no KTAP document")
	else {
		for (d in opened) if (d > 0) fail((program == "" ? "a program" : program) ": its results were cut off")
		end_document(0, "the guest")
		if (!trailer) fail("the guest's output ends before its trailer")
	}
	print passed, failed, skipped > counts
	exit failed > 0
}
