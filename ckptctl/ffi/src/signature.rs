// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions of this library have the signatures that the header gives them.
//!
//! The compiler compares each with the declaration that was made from the header. That none
//! is missing is for `tests/exports.rs` to find, which looks into the library itself.

use crate::commit;
use crate::error;
use crate::header;
use crate::heap;
use crate::hook;
use crate::open;
use crate::outputs;
use crate::region;
use crate::safe_point;
use crate::state;

/// Both are of the same type, or this does not compile.
#[allow(
    dead_code,
    reason = "used in constants, which the oldest Rust does not count"
)]
const fn same<T: Copy>(_here: T, _header: T) {}

macro_rules! functions {
    ($($name:ident in $module:ident($($argument:ty),*);)*) => {
        const _: () = {
            $(same(
                $module::$name as unsafe extern "C" fn($($argument),*) -> _,
                header::$name as unsafe extern "C" fn($($argument),*) -> _,
            );)*
        };

        /// Their names.
        #[cfg(test)]
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

functions! {
    ckpt_open in open(_, _);
    ckpt_close in open(_);
    ckpt_region in region(_, _, _, _, _, _);
    ckpt_region_grow in region(_, _, _);
    ckpt_region_len in region(_, _);
    ckpt_adopt in region(_, _, _, _, _);
    ckpt_malloc in heap(_, _);
    ckpt_calloc in heap(_, _, _);
    ckpt_realloc in heap(_, _, _);
    ckpt_aligned_alloc in heap(_, _, _);
    ckpt_free in heap(_, _);
    ckpt_set_root in region(_, _);
    ckpt_root in region(_);
    ckpt_commit in commit(_, _);
    ckpt_commit_sync in commit(_, _);
    ckpt_wait in commit(_, _, _);
    ckpt_enter in safe_point(_);
    ckpt_leave in safe_point(_);
    ckpt_rollback in commit(_, _);
    ckpt_alive in commit(_);
    ckpt_output_open in outputs(_, _, _);
    ckpt_output_hold in outputs(_, _, _);
    ckpt_output_next in outputs(_, _, _);
    ckpt_output_fd in outputs(_);
    ckpt_output_close in outputs(_);
    ckpt_stats in commit(_, _);
    ckpt_is_restored in state(_);
    ckpt_restored_epoch in state(_);
    ckpt_epoch in state(_);
    ckpt_durable in state(_);
    ckpt_safe in state(_);
    ckpt_takeover_term in state(_);
    ckpt_pending in state(_);
    ckpt_pending_word in state(_);
    ckpt_generation in state(_, _);
    ckpt_hook in hook(_, _, _, _);
    ckpt_tracker in state(_);
    ckpt_error in error();
    ckpt_errmsg in error(_);
    ckpt_strerror in error(_);
    ckpt_version in state();
}

#[cfg(test)]
mod tests {
    use super::NAMES;

    #[test]
    fn every_function_of_the_header_is_compared() {
        let declared: Vec<&str> = include_str!("header.rs")
            .split("pub fn ")
            .skip(1)
            .filter_map(|rest| rest.split('(').next())
            .collect();
        assert_eq!(declared, NAMES);
    }
}
