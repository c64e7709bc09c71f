#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Formatting, lints, generated files and licences, of everything. Goes on after a
# failure, so that one run tells all of them.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"

"$here/host-setup.sh" userland kmod check
cd "$top"
failed=()

check() { # NAME COMMAND...
	local name=$1 status=0
	shift
	"$@" || status=$?
	if ((status == 0)); then
		echo "ok    $name"
	else
		echo "FAIL  $name"
		failed+=("$name")
	fi
}

shell_scripts() {
	local script
	mapfile -t script < <(git ls-files --cached --others --exclude-standard |
		while IFS= read -r file; do
			[[ -f $file ]] || continue
			if [[ $file == *.sh ]] || head -n 1 "$file" | grep -qaE '^#!.*/(env )?(ba)?sh\b'; then echo "$file"; fi
		done)
	shellcheck "${script[@]}"
}

headers() {
	local language
	for language in 'gcc -x c -std=c11' 'gcc -x c++ -std=c++11'; do
		[[ $language != *c++* ]] || command -v g++ >/dev/null || continue
		# shellcheck disable=SC2086 # a command and its arguments
		$language -Wall -Wextra -Werror -pedantic -fsyntax-only include/ckpt.h include/uapi/ckpt.h || return 1
	done
}

check 'rustfmt of library and tool' cargo fmt --all --check
check 'clippy of library and tool' cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
check 'the oldest Rust' "$here/oldest-rust.sh"
check "rustfmt of the module" "$here/kmod.sh" --fmt
check "clippy of the module" "$here/kmod.sh" --clippy
check 'bindings are what the header says' "$here/bindings.sh" --check
check 'headers compile alone' headers
check 'shellcheck' shell_scripts
check 'licences' "$here/licences.sh"

((${#failed[@]} == 0)) || die "failed: $(printf '%s; ' "${failed[@]}")"
