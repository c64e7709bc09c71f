#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# guest-payload.sh MAIN OUT.cpio: packs what this checkout built for the guest.
# All of it goes to /ckpt there; MAIN is what the guest runs.
#   ckpt.ko        the module
#   bin/           programs of the workspace and of examples/
#   lib/           libckpt
#   examples/      scripts of the examples
#   tests.d/       tests that `make test` runs in the guest
#   env            CKPT_* variables that tests and demonstrations may read
# CKPT_GUEST_TESTS names another folder in place of tests/guest.d.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"
# shellcheck source=kernel.env
. "$here/kernel.env"

main=$1 out=$2
built=${CARGO_TARGET_DIR:-$top/target}/release
root=$("$here/toolchain-root.sh")
stage=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-payload.XXXXXX")
trap 'rm -rf "$stage"' EXIT
ckpt=$stage/files/ckpt
mkdir -p "$ckpt"/{bin,lib,examples,tests.d}

# copy FROM TO: without debug information, if there is such a file.
copy() {
	if [[ -f $1 ]]; then strip --strip-debug -o "$2" "$1"; fi
}

cp "$main" "$ckpt/main"
cp "$here/guest/init" "$ckpt/init"
cp "$here/guest/ckpt-node-permissions" "$ckpt/bin/"
copy "$top/target/$kmod_folder/ckpt.ko" "$ckpt/ckpt.ko"
copy "$built/ckptctl" "$ckpt/bin/ckptctl"
copy "$built/ckpt-guest-tests" "$ckpt/bin/ckpt-guest-tests"
copy "$built/ckpt-bench" "$ckpt/bin/ckpt-bench"
copy "$built/libckpt.so" "$ckpt/lib/libckpt.so.1"
for program in "$top"/target/examples/* "$built"/examples/*; do
	# cargo keeps each of its own under a second name, with a hash.
	[[ -f $program && -x $program && ! $program =~ -[0-9a-f]{16}$ ]] || continue
	copy "$program" "$ckpt/bin/${program##*/}"
done
if [[ -d $top/examples ]]; then
	(cd "$top/examples" && find . -type f \( -name '*.lua' -o -name '*.sh' \) -exec cp --parents -t "$ckpt/examples" {} +)
fi
tests=${CKPT_GUEST_TESTS:-$top/tests/guest.d}
[[ ! -d $tests ]] || cp -r "$tests/." "$ckpt/tests.d/"
for name in $(compgen -v CKPT_TEST_) $(compgen -v CKPT_DEMO_); do
	printf 'export %s=%q\n' "$name" "${!name}"
done >"$ckpt/env"

mkdir -p "$(dirname "$out")"
# shellcheck disable=SC2016 # for the shell inside
in_root "$root" --bind "$stage:/work" sh -ec '
	cd /work/files
	find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0 >../payload.cpio
'
mv "$stage/payload.cpio" "$out"
