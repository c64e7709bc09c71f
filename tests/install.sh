#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Can a stranger build a program against what `make install` installs?
# shellcheck disable=SC2317 # some functions are called by way of claim only
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DESTDIR=$work/root PREFIX=/opt/ckpt "$top/scripts/install.sh"
root=$work/root/opt/ckpt
export PKG_CONFIG_PATH=$root/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work/root

cat >"$work/program.c" <<'END'
#include <ckpt.h>
#include <linux/ckpt.h>
#include <stdio.h>
int main(void) { return CKPT_ABI_VERSION >= 2 && puts(ckpt_version()) >= 0 ? 0 : 1; }
END
cd "$work"
failed=0

claim() { # NAME COMMAND...
	local name=$1
	shift
	if "$@" >"$work/log" 2>&1; then
		echo "ok    install: $name"
	else
		failed=1
		echo "FAIL  install: $name"
		sed 's/^/        /' "$work/log"
	fi
}

read -ra flags < <(pkg-config --cflags --libs ckpt)
read -ra static_flags < <(pkg-config --static --cflags --libs ckpt | sed 's/-lckpt/-l:libckpt.a/')
claim a_program_links_with_the_shared_library gcc -Wall -Werror -o shared program.c -Wl,--no-as-needed "${flags[@]}"
claim it_runs env LD_LIBRARY_PATH="$root/lib" ./shared
claim it_asks_for_the_versioned_name grep -q libckpt.so.1 <(objdump -p shared)
claim a_program_links_with_the_static_library gcc -Wall -Werror -o static program.c "${static_flags[@]}"
claim it_runs_alone ./static
claim the_tool_runs "$root/bin/ckptctl" --version
claim nothing_names_the_build_tree test -z "$(grep -rlI "$top" "$work/root" || true)"
# Verbs that the help names, one a line.
verbs=$("$root/bin/ckptctl" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -v '^help$')

each_verb_has_a_page() {
	local verb
	for verb in $verbs; do
		grep "^\.SY \"ckptctl $verb\"" "$root/share/man/man1/ckptctl-$verb.1" || return 1
	done
}
# A page has no date of its own.
pages_are_clean() {
	local complaints
	complaints=$(mandoc -T lint -W warning "$root"/share/man/man*/* | grep -v 'missing date' || true)
	echo "$complaints"
	[[ -z $complaints ]]
}
each_shell_completes_each_verb() { # SHELL
	local verb
	for verb in $verbs; do
		"complete_in_$1" "$verb" | grep "^$verb\b" || { echo "$1 does not complete $verb"; return 1; }
	done
}
complete_in_bash() {
	# shellcheck disable=SC2016 # for the bash inside
	bash -c '. "$1" && complete -p ckptctl >/dev/null || exit
		COMP_WORDS=(ckptctl "$2") COMP_CWORD=1 COMPREPLY=()
		_ckptctl ckptctl "$2" ckptctl && printf "%s\n" "${COMPREPLY[@]}"' \
		bash "$root/share/bash-completion/completions/ckptctl" "$1"
}
complete_in_zsh() {
	# What zsh would offer is caught on its way to the line editor, which there is none of here.
	# shellcheck disable=SC2016 # for the zsh inside
	zsh -fc 'fpath=("$1" $fpath); autoload -Uz compinit && compinit -D -u
		[[ $_comps[ckptctl] == _ckptctl ]] && autoload -Uz +X _ckptctl || exit
		_arguments() { :; }; _describe() { print -l -- $commands; }
		words=(ckptctl) CURRENT=1; _ckptctl; _ckptctl_commands' zsh "$root/share/zsh/site-functions"
}
complete_in_fish() {
	# shellcheck disable=SC2016 # for the fish inside
	fish --no-config -c 'source $argv[1]; complete -C "ckptctl $argv[2]"' \
		"$root/share/fish/vendor_completions.d/ckptctl.fish" "$1"
}
claim each_verb_has_a_page each_verb_has_a_page
claim the_tool_and_the_library_have_one test -s "$root/share/man/man1/ckptctl.1" -a -s "$root/share/man/man3/libckpt.3"
claim pages_are_clean pages_are_clean
for shell in bash zsh fish; do
	claim "${shell}_completes_each_verb" each_shell_completes_each_verb "$shell"
done
claim the_udev_rule_is_there test -f "$root/lib/udev/rules.d/60-ckpt.rules"
exit "$failed"
