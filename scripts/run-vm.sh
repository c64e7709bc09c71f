#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# run-vm.sh NAME MAIN: boots the test VM and runs the program MAIN in it. What it
# writes to stdout comes out of ours while it runs; its exit status is ours. Logs
# are in target/test-logs/NAME: console.log (the kernel), stderr.log (of MAIN),
# qemu.log. 124 means the time limit, 125 that the VM ended without a status.
# Variables:
#   CKPT_VM_CPUS       processors, 2
#   CKPT_VM_MEMORY     MiB, 2048
#   CKPT_VM_KERNEL     stock, or debug for the kernel of debug-kernel.sh
#   CKPT_KERNEL_SERIES another series of Debian's kernels than the pinned one
#   CKPT_VM_TIMEOUT    seconds until the VM is killed, 1800; 0 for none
#   CKPT_VM_TEXTS      1: with the texts of the kernel's source
#   CKPT_VM_CRIU       1: with Debian's CRIU
#   CKPT_VM_CONSOLE    1: a person is at the console; nothing is logged
#   CKPT_VM_ICOUNT     1: one instruction is one nanosecond of guest time, exact and
#                      repeatable, for counting instructions; one processor
#   CKPT_KVM           1: let QEMU use KVM. Off by default: on some machines
#                      /dev/kvm opens and the guest then hangs
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"
# shellcheck source=kernel.env
. "$here/kernel.env"

name=$1 main=$2
logs=$top/target/test-logs/$name
limit=${CKPT_VM_TIMEOUT:-1800}
memory=${CKPT_VM_MEMORY:-2048}

"$here/host-setup.sh" vm
image=$("$here/guest-image.sh")
kernel=$image/vmlinuz
[[ $kernel_kind != debug ]] || kernel=$("$here/debug-kernel.sh")/vmlinux
texts=
[[ ${CKPT_VM_TEXTS:-0} != 1 ]] || texts=$("$here/guest-texts.sh")/texts.cpio
criu=
[[ ${CKPT_VM_CRIU:-0} != 1 ]] || criu=$("$here/guest-criu.sh")/criu.cpio

rm -rf "$logs"
mkdir -p "$logs"
work=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$here/guest-payload.sh" "$main" "$work/payload.cpio"
cat "$image/base.cpio" "$work/payload.cpio" ${texts:+"$texts"} ${criu:+"$criu"} >"$work/initrd"

accelerator=tcg
[[ ${CKPT_KVM:-0} != 1 ]] || accelerator=kvm
free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
((free > memory)) || warn "the VM wants $memory MiB of memory and $free MiB are free; CKPT_VM_MEMORY sets another size"

# shellcheck disable=SC2054 # commas are QEMU's
qemu=(
	qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none
	-machine q35 -accel "$accelerator" -cpu max -smp "${CKPT_VM_CPUS:-2}" -m "$memory"
	-kernel "$kernel" -initrd "$work/initrd"
	-device virtio-rng-pci
	-drive "if=none,id=scratch,format=raw,file=$image/scratch.img,snapshot=on,cache=unsafe"
	-device virtio-blk-pci,drive=scratch
)
# An oops ends the VM at once. The limits for stalls are wide: under TCG a busy
# host makes processors look stuck that are only slow.
kernel_line='console=ttyS0 rdinit=/ckpt/init panic=-1 oops=panic watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120'
[[ $kernel_kind != debug ]] || kernel_line+=' page_poison=1 page_owner=on no_hash_pointers'

if [[ ${CKPT_VM_ICOUNT:-0} == 1 ]]; then
	[[ $accelerator == tcg && ${CKPT_VM_CPUS:-2} == 1 ]] || die "CKPT_VM_ICOUNT=1 goes with CKPT_VM_CPUS=1 and without CKPT_KVM"
	# Without these two a copy of any length is one instruction.
	# shellcheck disable=SC2054
	qemu+=(-icount shift=0 -cpu max,-erms,-fsrm)
fi

if [[ ${CKPT_VM_CONSOLE:-0} == 1 ]]; then
	status=0
	# What the kernel does not know of this goes to the guest's environment.
	read -r rows columns < <(stty size 2>/dev/null || echo 24 80)
	kernel_line+=" TERM=${TERM:-vt100} CONSOLE_ROWS=$rows CONSOLE_COLUMNS=$columns"
	"${qemu[@]}" -append "$kernel_line quiet" -serial mon:stdio || status=$?
	stty sane 2>/dev/null || true
	exit "$status"
fi

# QEMU takes the end of its stdin for a port that hung up; this one has no end.
mkfifo "$work/stdin"
status=0
timeout --foreground -k 10 "$limit" "${qemu[@]}" \
	-append "$kernel_line loglevel=7" -serial "file:$logs/console.log" \
	-device virtio-serial-pci \
	-chardev stdio,id=out,signal=off -device virtserialport,chardev=out,name=ckpt.out \
	-chardev "file,id=err,path=$logs/stderr.log" -device virtserialport,chardev=err,name=ckpt.err \
	-chardev "file,id=status,path=$logs/status" -device virtserialport,chardev=status,name=ckpt.status \
	<>"$work/stdin" 2>"$logs/qemu.log" || status=$?
if ((status == 124 || status == 137)); then
	say "the VM was killed after its time limit of $limit s (CKPT_VM_TIMEOUT)"
	exit 124
fi
((status == 0)) || die "qemu ended with status $status, see $logs/qemu.log"
if [[ ! -s $logs/status ]]; then
	say "the VM ended without telling how it went, see $logs/console.log"
	exit 125
fi
exit "$(<"$logs/status")"
