#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Everything: what needs no module on the host, then all in the test VM.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=../scripts/say.sh
. "$top/scripts/say.sh"

cd "$top"
"$top/scripts/host-setup.sh" userland kmod vm test
"$here/parser.sh" || die "the judge of the guest tests is wrong"
cargo test --workspace --locked || die "a test on the host failed, see above"
"$top/scripts/build.sh" --vm
"$here/install.sh" || die "what make install installs cannot be used"
"$here/examples.sh" || die "an example does not do what it shows"
"$here/kill.sh" || die "a program that was killed lost something"
CKPT_TEST_SCHEDULES=${CKPT_TEST_SCHEDULES:-10} "$here/failover.sh" || die "a service of two hosts lost something"
# For the runs of tests/guest.runs on the other series.
CKPT_KERNEL_SERIES=other "$top/scripts/kmod.sh"
"$here/guest.sh"
