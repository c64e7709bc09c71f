#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Makes the Rust sides of the headers: of the kernel ABI, include/uapi/ckpt.h, one
# for the module and one for the library, and of libckpt's C API, include/ckpt.h.
# With --check: fails when the checked-in files are not what the headers say.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"
# shellcheck source=in-root.sh
. "$here/in-root.sh"

header=$top/include/uapi/ckpt.h
declare -A sides=([kernel_side]=kmod/abi.rs [library_side]=ckptctl/src/sys/abi.rs [c_api]=ckptctl/ffi/src/header.rs)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$("$here/toolchain-root.sh")

# bindgen cannot evaluate what goes through a macro with arguments, as every
# command number does. So it gets constants under another name as well.
{
	echo '#include "ckpt.h"'
	sed -n 's/^#define \(CKPT_IOC_[A-Z0-9_]*\) _IO.*/static const __u32 VALUE_OF_\1 = \1;/p' "$header"
} >"$work/abi.h"
cp "$header" "$work/ckpt.h"

in_root "$root" --bind "$work:/work" bindgen /work/abi.h \
	--rust-target 1.85 --use-core --generate-cstr --no-doc-comments --no-prepend-enum-name \
	--allowlist-type 'ckpt_.*' --allowlist-var '(VALUE_OF_)?CKPT_.*' \
	--disable-header-comment --formatter none -o /work/raw.rs
in_root "$root" --bind "$work:/work" rustfmt --edition 2021 /work/raw.rs

# The aliases of linux/types.h and C's char say no more than Rust's own types.
sed -E -e '/^pub type __/d; s/VALUE_OF_//; s/\b__u([0-9]+)\b/u\1/g; s/\b__s([0-9]+)\b/i\1/g; s/::core::ffi::c_char/u8/g' \
	-e 's/\b([0-9]+)usize\b/\1/g' "$work/raw.rs" >"$work/abi.body"

# A value of each structure with all bytes zero, without unsafe code. The ABI
# wants what a caller does not use to be zero.
cat >"$work/zero.awk" <<'END'
/^pub struct/ { name = $3; fields = ""; next }
name && /^ *pub [a-z0-9_]+ *:/ {
	field = $2; sub(/:$/, "", field)
	zero = "0"
	if (match($0, /; *[0-9]+/)) zero = "[0" substr($0, RSTART, RLENGTH) "]"
	fields = fields field ": " zero ", "
	next
}
name && /^}/ {
	printf "impl %s {\n    /// All bytes zero.\n    pub const ZERO: Self = Self { %s};\n}\n", name, fields
	name = ""
}
END

# side LICENCE: a whole file on stdout.
side() {
	cat <<-END
		// SPDX-License-Identifier: $1
		//! The kernel ABI, made from \`include/uapi/ckpt.h\` by \`make bindings\`. Do not edit.
		//!
		//! That header is where every structure, field, command and error is documented.
		//! C strings in structures are bytes here.
		#![allow(
		    missing_docs,
		    non_camel_case_types,
		    dead_code,
		    reason = "names and documentation are the header's"
		)]

	END
	cat "$work/abi.body"
	awk -f "$work/zero.awk" "$work/abi.body"
}
side GPL-2.0-only >"$work/kernel_side.rs"
side 'Apache-2.0 OR MIT' >"$work/library_side.rs"

# The C API is userland's alone, so C's own types stay.
cp "$top/include/ckpt.h" "$work/api.h"
in_root "$root" --bind "$work:/work" bindgen /work/api.h \
	--rust-target 1.85 --use-core --generate-cstr --no-doc-comments --no-derive-debug \
	--allowlist-item '(ckpt|CKPT)_.*' \
	--disable-header-comment --formatter none -o /work/raw_api.rs
{
	cat <<-END
		// SPDX-License-Identifier: Apache-2.0 OR MIT
		//! The C API, made from \`include/ckpt.h\` by \`make bindings\`. Do not edit.
		//!
		//! That header is where everything is documented.
		#![allow(
		    missing_docs,
		    non_camel_case_types,
		    dead_code,
		    reason = "names and documentation are the header's"
		)]

	END
	cat "$work/raw_api.rs"
} >"$work/c_api.rs"
in_root "$root" --bind "$work:/work" \
	rustfmt --edition 2024 /work/kernel_side.rs /work/library_side.rs /work/c_api.rs

drift=0
for side in "${!sides[@]}"; do
	made=$work/$side.rs
	kept=$top/${sides[$side]}
	if [[ ${1:-} == --check ]]; then
		diff -u --label "${sides[$side]}" --label "made from the header" "$kept" "$made" >&2 || drift=1
	elif ! cmp -s "$made" "$kept"; then
		mkdir -p "$(dirname "$kept")"
		cat "$made" >"$kept"
		say "wrote ${sides[$side]}"
	fi
done
((drift == 0)) || die "the Rust sides are not what the headers say: run make bindings and commit the result"
