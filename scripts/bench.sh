#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Measures, prints tables, and writes target/bench/*.json and tracking.svg.
#   bench.sh                    all of it
#   bench.sh PART...            tracking, pause, durable, store; the other files stay as they are
#   bench.sh try ARGUMENT...    `ckpt-bench tracking ARGUMENT...` in the test VM, kept apart in
#                               target/bench/try
# Tracking and pause are measured in the test VM, on one processor that counts instructions;
# durable and store on this machine and its disk; store takes 8 GiB of memory and 4 GiB of disk.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"

cd "$top"
bench=${CARGO_TARGET_DIR:-target}/release/ckpt-bench
folder=$top/target/bench

# in_vm NAME MEMORY COMMANDS: runs shell commands in the VM. Lines that begin with a @ are
# results, the others for people.
in_vm() {
	local name=$1 memory=$2 main=$folder/main-$1
	printf '#!/bin/bash\nset -e\n%s\n' "$3" >"$main"
	chmod +x "$main"
	CKPT_VM_ICOUNT=1 CKPT_VM_CPUS=1 CKPT_VM_MEMORY=$memory "$here/run-vm.sh" "bench-$name" "$main" |
		tee -a "$results" | grep -v '^@'
}

# json FILE: an array of the results of that file.
json() {
	grep "^@$1 " "$results" | sed "s/^@$1 //" |
		awk 'BEGIN { printf "[" } { printf "%s\n%s", (NR > 1 ? "," : ""), $0 } END { print "\n]" }' >"$folder/$1.json"
	say "wrote ${folder#"$top"/}/$1.json"
}

# with_policy NUMBER LABEL: the workloads that change, with the module loaded anew.
with_policy() {
	echo "rmmod ckpt; insmod /ckpt/ckpt.ko policy=$1; ckpt-node-permissions"
	echo "ckpt-bench tracking --settle 1 --mechanisms module --label module-$2 --workloads fresh,moving,mix"
}

tracking() {
	say "tracking: all mechanisms at 256 MiB"
	in_vm tracking 2048 "ckpt-bench tracking
$(with_policy 1 armed)
$(with_policy 2 open)"
	say "tracking: an arena of 4 GiB"
	in_vm size 6144 "ckpt-bench tracking --mechanisms module --workloads size --pages 1048576"
	json tracking
	"$bench" chart "$folder" "$folder/tracking.svg"
	say "wrote ${folder#"$top"/}/tracking.svg"
	"$bench" check "$folder" || missed=1
}

pause() {
	say "pause: an incremental checkpoint of a program of 256 MiB"
	CKPT_VM_CRIU=1 in_vm pause 3072 "exec ckpt-bench pause"
	json pause
}

durable() {
	say "durable: small commits on this machine's disk"
	"$bench" durable --folder "$folder/tmp" | tee -a "$results" | grep -v '^@'
	json durable
}

store() {
	say "store: a full save and a restore of 2 GiB on this machine and its disk"
	"$bench" store --folder "$folder/tmp" | tee -a "$results" | grep -v '^@'
	json store
	"$bench" check "$folder" || missed=1
}

"$here/host-setup.sh" userland
step "the benchmark program" target/logs/bench-build.log cargo build --release --locked --package ckpt-bench
mkdir -p "$folder"
results=$(mktemp "${TMPDIR:-/tmp}/ckpt-bench.XXXXXX")
trap 'rm -f "$results"' EXIT
missed=0

if [[ ${1:-} == try ]]; then
	shift
	"$here/kmod.sh"
	in_vm try "${CKPT_VM_MEMORY:-2048}" "exec ckpt-bench tracking ${*@Q}"
	folder=$folder/try
	mkdir -p "$folder"
	json tracking
	exit
fi

(($# > 0)) || set -- tracking pause durable store
for part in "$@"; do
	case $part in
	tracking | pause)
		"$here/kmod.sh"
		"$part"
		;;
	durable | store) "$part" ;;
	*) die "no part $part: tracking, pause, durable, store" ;;
	esac
done
((missed == 0)) || die "a figure is not what it has to be, see above"
