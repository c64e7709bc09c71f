#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# kmod-symbols.sh MODULE.ko Module.symvers: fails when the module wants a symbol
# that the kernel does not export. Names of Rust symbols hold a hash of the
# compiler and its flags, so this is also what tells a module built in another
# way from one that the kernel will load.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=say.sh
. "$here/say.sh"

module=$1 symvers=$2
[[ -s $symvers ]] || die "no $symvers: cannot check the module's symbols"
wanted=$(nm --undefined-only --format=just-symbols "$module" | sort -u)
[[ -n $wanted ]] || die "$module wants no symbol at all: it cannot be a kernel module"
missing=$(comm -23 <(printf '%s\n' "$wanted") <(cut -f 2 "$symvers" | sort -u))
if [[ -n $missing ]]; then
	# shellcheck disable=SC2086 # one symbol a line
	printf '    %s\n' $missing >&2
	die "the kernel does not export these symbols, so ${module##*/} would not load"
fi
