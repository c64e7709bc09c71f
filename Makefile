# SPDX-License-Identifier: Apache-2.0 OR MIT
# The one entry. The work is done by scripts/ and tests/.
PREFIX ?= /usr/local
DESTDIR ?=
export PREFIX DESTDIR KDIR

.PHONY: help demo demo-spare test test-debug soak check build kmod vm bench bindings install clean

help:
	@echo 'ckpt: memory that remembers what changed'
	@echo
	@echo '  make demo       a real program is killed five times in a test VM and loses nothing'
	@echo '  make demo-spare a host dies and its spare goes on: on this machine, without the module'
	@echo '  make test       every claim, on the host and in the test VM'
	@echo '  make test-debug the guest tests on a kernel that checks itself: memory, locks, leaks'
	@echo '  make soak       random operations, calls and kills in millions; hours'
	@echo '  make check      formatting, lints, generated files, licences'
	@echo '  make build      library and tool: target/release'
	@echo '  make kmod       the module for the pinned Debian kernel: target/kmod/ckpt.ko'
	@echo '                  KDIR=DIR builds it for a prepared kernel tree of your own'
	@echo '  make vm         a shell in the test VM, with module and tool'
	@echo '  make bench      measure, and print a table'
	@echo '  make bindings   make the Rust sides of the kernel ABI from include/uapi/ckpt.h'
	@echo '  make install    tool, libraries, headers, udev rule; PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo '  make clean      remove target/; the cache stays in $${CKPT_CACHE:-~/.cache/ckpt}'

demo:
	@scripts/demo.sh
demo-spare:
	@scripts/demo-spare.sh
test:
	@tests/all.sh
test-debug:
	@tests/debug.sh
soak:
	@tests/soak.sh
check:
	@scripts/check.sh
build:
	@scripts/build.sh
kmod:
	@scripts/kmod.sh
vm:
	@scripts/vm.sh
bench:
	@scripts/bench.sh
bindings:
	@scripts/bindings.sh
install:
	@scripts/install.sh
clean:
	rm -rf target
