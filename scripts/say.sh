# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Words for the person who waits. All of it goes to stderr.

say() { printf '%s\n' "$*" >&2; }

warn() { printf 'WARNING: %s\n' "$*" >&2; }

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# step TITLE LOG COMMAND...: runs COMMAND with all its output in LOG and shows
# that it is alive: a counter on a terminal, else a line every 30 seconds.
# When it fails, the end of LOG is shown ($step_tail lines, 25 unless set).
step() {
	local title=$1 log=$2 pid began status=0 shown=0 now
	shift 2
	mkdir -p "$(dirname "$log")"
	began=$SECONDS
	# A process group of its own, so that an interrupt ends all of it.
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	# shellcheck disable=SC2064 # with the pid of now
	trap "kill -TERM -- -$pid 2>/dev/null; trap - INT TERM; kill -INT \$BASHPID" INT TERM
	[[ -t 2 ]] || say "$title ..."
	while kill -0 "$pid" 2>/dev/null; do
		now=$((SECONDS - began))
		if [[ -t 2 ]]; then
			printf '\r\033[K%s ... %d s' "$title" "$now" >&2
		elif ((now >= shown + 30)); then
			shown=$now
			say "$title ... still at it after $now s"
		fi
		# Returns at once when the command ends, so a short step stays short.
		timeout 1 tail --pid="$pid" -s 0.1 -f /dev/null || true
	done
	wait "$pid" || status=$?
	trap - INT TERM
	[[ -t 2 ]] && printf '\r\033[K' >&2
	if ((status == 0)); then
		say "$title: done in $((SECONDS - began)) s"
		return 0
	fi
	say "$title: FAILED (status $status). The end of $log:"
	tail -n "${step_tail:-25}" "$log" | sed 's/^/    /' >&2
	return "$status"
}
