#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Can a stranger build a program against what `make install` installs?
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
claim a_page_tells_of_the_tool grep -q ckptctl "$root/share/man/man1/ckptctl.1"
# shellcheck disable=SC2016 # for the bash inside
claim bash_can_complete_the_tool bash -c '. "$1" && complete -p ckptctl' bash "$root/share/bash-completion/completions/ckptctl"
claim the_udev_rule_is_there test -f "$root/lib/udev/rules.d/60-ckpt.rules"
exit "$failed"
