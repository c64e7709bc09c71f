#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# A demonstration on this machine, without the module and without root: a key-value server on one
# "host" is killed while clients write, and its spare on another goes on. The hosts are processes
# with directories of their own, which reach each other over the loopback, by TLS.
# CKPT_BIN: where ckptctl and examples/kv are, instead of building them.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"

bin=${CKPT_BIN:-}
if [[ -z $bin ]]; then
	bin=${CARGO_TARGET_DIR:-$top/target}/release
	step "building" "$top/target/test-logs/demo-spare-build.log" \
		cargo build --manifest-path "$top/Cargo.toml" --release --locked -p ckptctl --bins --example kv
fi
tool=$bin/ckptctl
kv=$bin/examples/kv
[[ -x $tool && -x $kv ]] || die "no $tool and $kv: leave CKPT_BIN out, and they are built"

work=$(mktemp -d)
supervisors=()
clean_up() {
	# What of it still runs: the supervisors, each of which ends its program.
	for pid in "${supervisors[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf "$work"
}
trap clean_up EXIT
unset CKPT_STORE CKPT_TAKEOVER CKPT_WAIT_FOR

began=$(date +%s%N)
# tell TEXT: a line of the story, with the seconds since it began.
tell() {
	local ms=$((($(date +%s%N) - began) / 1000000))
	printf '%3d.%03d s  %s\n' $((ms / 1000)) $((ms % 1000)) "$*"
}
# more TEXT: what belongs to the line before.
more() { printf '           %s\n' "$*"; }

# until_said FILE PATTERN: waits for a line, and prints it.
until_said() {
	local tries
	for ((tries = 0; tries < 2000; tries++)); do
		if grep -m1 -e "$2" "$1" 2>/dev/null; then return; fi
		sleep 0.01
	done
	cat "$1" >&2
	die "nobody said \"$2\" within 20 s"
}

# ask ADDRESS REQUEST: the server's answer to one request.
ask() {
	local answer
	exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || return 1
	printf '%s\n' "$2" >&3
	IFS= read -r -t 10 answer <&3 || return 1
	exec 3>&-
	printf '%s\n' "$answer"
}

# A client: writes one key after the other and notes each that the server has confirmed.
client() {
	local n answer
	exec 3<>"/dev/tcp/${1%:*}/${1##*:}"
	for ((n = 1; ; n++)); do
		printf 'SET key%d value%d\n' "$n" "$n" >&3 2>/dev/null || return 0
		IFS= read -r answer <&3 || return 0
		[[ $answer == OK ]] || return 0
		printf '%d\n' "$n" >>"$2"
	done
}

# A port that is free now; the servers say so if somebody is faster.
free_port() {
	local port
	for port in $(shuf -i 20000-29999 -n 50); do
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			printf '%s\n' "$port"
			return
		fi
	done
	die "no free port on this machine"
}

cat <<'END'
Two hosts, west and east. A key-value server runs on west and keeps its data in memory that
ckpt watches. Each of its commits goes to the disk of west and to east, the spare. The server
confirms a write to its client when both disks have it. Then west dies.

END

"$tool" pki init "$work/pki" >/dev/null 2>&1
for host in west east; do
	mkdir "$work/$host"
	"$tool" pki issue "$work/pki" "$host" --service kv --address 127.0.0.1 --out "$work/$host/pki" >/dev/null 2>&1
done
tell "west and east have certificates: what goes between them is encrypted, and strangers stay out"

west=127.0.0.1:$(free_port)
east=127.0.0.1:$(free_port)
"$tool" spare --listen 127.0.0.1:0 --store "$work/east/chain" --pki "$work/east/pki" --service kv \
	-- "$kv" --listen "$east" 2>"$work/east/words" &
supervisors+=($!)
line=$(until_said "$work/east/words" 'spare of kv on')
link=${line#*spare of kv on }
link=${link%%,*}
tell "east waits as the spare"
more "ckptctl spare --listen $link --store chain --pki pki --service kv -- kv"

"$tool" run --store "$work/west/chain" --replicate-to "$link" --pki "$work/west/pki" --service kv \
	--wait-for replicated -- "$kv" --listen "$west" 2>"$work/west/words" &
primary=$!
supervisors+=("$primary")
until_said "$work/west/words" 'listening on' >/dev/null
tell "west runs the server"
more "ckptctl run --store chain --replicate-to $link --wait-for replicated --pki pki --service kv -- kv"
until_said "$work/west/words" 'replicating to' >/dev/null

: >"$work/confirmed"
clients=()
client "$west" "$work/confirmed" 2>/dev/null &
clients+=($!)
sleep 2
info=$(ask "$west" INFO)
server=$(awk '{ print $3 }' <<<"$info")
tell "a client has written $(wc -l <"$work/confirmed") keys, one after the other, and goes on writing"

died=$(date +%s%N)
# The shell tells of its dead children when it is not asked for them at once.
{
	kill -KILL "$primary" "$server"
	wait "$primary" || true
} 2>/dev/null
tell "west is dead: its supervisor and its server were killed (kill -9) in the middle of a write"
wait "${clients[@]}" 2>/dev/null || true
confirmed=$(wc -l <"$work/confirmed")
more "the client has $confirmed confirmations, and no answer to key$((confirmed + 1))"
until_said "$work/east/words" 'west.*\(gone\|closed\)' >/dev/null
tell "east has noticed. It cannot know whether west is dead or only out of reach, so it asks a person"

"$tool" promote "$work/east/chain" >"$work/promoted" 2>&1 || die "$(cat "$work/promoted")"
more "ckptctl promote chain"
until_said "$work/east/words" 'listening on' >/dev/null
back=$((($(date +%s%N) - died) / 1000000))
words=$(sed -n 's/^ckptctl: \(taking over.*\)/\1/p' "$work/east/words")
tell "east runs the server now, $back ms after the death of west: $words"

exec 3<>"/dev/tcp/${east%:*}/${east##*:}"
missing=0
while read -r n; do
	printf 'GET key%d\n' "$n" >&3
	IFS= read -r -t 10 answer <&3
	[[ $answer == "VALUE value$n" ]] || missing=$((missing + 1))
done <"$work/confirmed"
exec 3>&-
((confirmed > 0)) || die "the client had no write confirmed at all: that shows nothing"
((missing == 0)) || die "of $confirmed confirmed writes $missing are missing on east"
tell "the client asks east for all $confirmed keys that west had confirmed: every one is there"
answer=$(ask "$east" 'SET fruit apple')
[[ $answer == OK ]] || die "east does not take a write: $answer"
tell "and writes another, which east confirms"
kill "${supervisors[0]}"
wait "${supervisors[0]}" 2>/dev/null || true

# The old primary's chain becomes the spare's.
status=0
"$tool" spare --listen 127.0.0.1:0 --store "$work/east/chain" --pki "$work/east/pki" --service kv \
	-- "$kv" --listen "$east" 2>"$work/east/again" &
supervisors=($!)
line=$(until_said "$work/east/again" 'spare of kv on')
link=${line#*spare of kv on }
link=${link%%,*}
"$tool" replicate "$work/west/chain" --to "$link" --pki "$work/west/pki" --service kv --once \
	>"$work/fenced" 2>&1 || status=$?
((status == 5)) || die "the old primary was not fenced: $(cat "$work/fenced")"
tell "west is repaired and believes that it is still the primary. East refuses it:"
more "$(sed 's/^ckptctl: //; s/^error: //' "$work/fenced" | tail -n 1)"
