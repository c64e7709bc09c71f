# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# What is made once and kept outside the checkout: cache/KIND-KEY, where KEY is
# a hash of everything that went into it. An entry is made under another name
# and renamed when it is complete, so a half entry is never seen.

# shellcheck source=say.sh
. "${BASH_SOURCE[0]%/*}/say.sh"

cache_dir=${CKPT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ckpt}

# Hash of all arguments that are files by their content, of the others by their text.
cache_key() {
	local item
	for item in "$@"; do
		if [[ -f $item ]]; then cat "$item"; else printf '%s\n' "$item"; fi
	done | sha256sum | cut -c1-16
}

cache_path() { printf '%s/%s-%s\n' "$cache_dir" "$1" "$2"; }

cache_log() { printf '%s/logs/%s.log\n' "$cache_dir" "$1"; }

# cache_need_mib KIND MIB: refuses to begin when the disk is too small for it.
cache_need_mib() {
	local have
	mkdir -p "$cache_dir"
	have=$(df --output=avail -m "$cache_dir" | tail -n 1 | tr -d ' ')
	((have >= $2)) || die "$1 needs $2 MiB in $cache_dir, and there are $have MiB: make room, or set CKPT_CACHE to a folder on another disk"
}

# cache_get KIND KEY COMMAND...: prints the path of the entry. If there is none,
# COMMAND is run with the path of an empty folder to fill as its last argument.
# Two runs at once: the second waits and uses what the first made.
cache_get() {
	local kind=$1 key=$2 entry tmp
	shift 2
	entry=$(cache_path "$kind" "$key")
	if [[ ! -d $entry ]]; then
		mkdir -p "$cache_dir/logs"
		exec 9>"$cache_dir/$kind.lock"
		if ! flock -n 9; then
			say "another run is making the same thing ($kind): waiting for it"
			flock 9
		fi
		if [[ ! -d $entry ]]; then
			cache_sweep_tmp "$kind"
			tmp=$(mktemp -d "$cache_dir/.tmp-$kind-XXXXXX")
			chmod 755 "$tmp"
			# COMMAND inherits the lock: what outlives us keeps it.
			"$@" "$tmp" >&2 || {
				rm -rf --one-file-system "$tmp"
				die "could not make $kind; the cache is as it was, so run this again when the cause is gone"
			}
			mv -T "$tmp" "$entry"
			cache_prune "$kind" "$entry"
		fi
		exec 9>&-
	fi
	touch "$entry"
	printf '%s\n' "$entry"
}

# What an interrupted run left. Called with the lock of KIND held.
cache_sweep_tmp() {
	local left
	for left in "$cache_dir/.tmp-$1-"*; do
		[[ -e $left ]] && rm -rf --one-file-system "$left"
	done
	return 0
}

# cache_prune KIND KEEP: when a new entry was made, the others of its kind go,
# but for the one used last (another branch may want it) and those in use: using
# an entry touches its folder, and no use takes a day.
cache_prune() {
	local old
	find "$cache_dir" -mindepth 1 -maxdepth 1 -type d -name "$1-*" ! -path "$2" -printf '%T@ %p\n' |
		sort -rn | tail -n +2 | cut -d ' ' -f 2- |
		while IFS= read -r old; do
			[[ -n $(find "$old" -maxdepth 0 -mtime +0) ]] || continue
			say "removing $old: no longer used"
			rm -rf --one-file-system "$old"
		done
}
