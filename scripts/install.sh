#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Installs tool, libraries, headers, ckpt.pc, the udev rule with its group, man
# pages and completions below DESTDIR/PREFIX. LIBDIR, INCLUDEDIR and the like can
# be set on their own.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$here")
# shellcheck source=say.sh
. "$here/say.sh"

prefix=${PREFIX:-/usr/local}
[[ $prefix == /* ]] || die "PREFIX=$prefix is not an absolute path"
bindir=${BINDIR:-$prefix/bin}
libdir=${LIBDIR:-$prefix/lib}
includedir=${INCLUDEDIR:-$prefix/include}
datadir=${DATADIR:-$prefix/share}
udevdir=${UDEVDIR:-$prefix/lib/udev/rules.d}
sysusersdir=${SYSUSERSDIR:-$prefix/lib/sysusers.d}
built=${CARGO_TARGET_DIR:-$top/target}/release
soname=libckpt.so.1
# What the static library needs besides itself, as rustc prints it.
static_libs='-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc'

cd "$top"
# `sudo make install` after `make build`: root need not have a cargo.
if command -v cargo >/dev/null; then
	"$here/build.sh"
fi
for file in ckptctl libckpt.so libckpt.a; do
	[[ -f $built/$file ]] || die "$built/$file is missing: run make build first, as the user who has cargo"
done
objdump -p "$built/libckpt.so" | grep -qE "SONAME +$soname\$" || die "libckpt.so was not built with the name $soname"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# put MODE FROM TO
put() { install -D -m "$1" "$2" "${DESTDIR:-}$3"; }

put 755 "$built/ckptctl" "$bindir/ckptctl"
put 755 "$built/libckpt.so" "$libdir/$soname"
ln -sf "$soname" "${DESTDIR:-}$libdir/libckpt.so"
put 644 "$built/libckpt.a" "$libdir/libckpt.a"
put 644 include/ckpt.h "$includedir/ckpt.h"
put 644 include/uapi/ckpt.h "$includedir/linux/ckpt.h"
put 644 udev/60-ckpt.rules "$udevdir/60-ckpt.rules"
put 644 udev/ckpt.sysusers.conf "$sysusersdir/ckpt.conf"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -e "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@INCLUDEDIR@|$includedir|" \
	-e "s|@VERSION@|$version|; s|@LIBS_PRIVATE@|$static_libs|" ckpt.pc.in >"$work/ckpt.pc"
put 644 "$work/ckpt.pc" "$libdir/pkgconfig/ckpt.pc"

# The tool knows its own pages and completions.
mkdir "$work/man"
"$built/ckptctl" man "$work/man"
for page in "$work/man"/*; do put 644 "$page" "$datadir/man/man${page##*.}/${page##*/}"; done
completion() { # SHELL PATH
	"$built/ckptctl" completions "$1" >"$work/completion"
	put 644 "$work/completion" "$2"
}
completion bash "$datadir/bash-completion/completions/ckptctl"
completion zsh "$datadir/zsh/site-functions/_ckptctl"
completion fish "$datadir/fish/vendor_completions.d/ckptctl.fish"

say "installed below ${DESTDIR:-}$prefix"
[[ -n ${DESTDIR:-} ]] || say "then, as root: systemd-sysusers; udevadm control --reload; ldconfig"
