// SPDX-License-Identifier: GPL-2.0-only
//! Clocks as the ABI counts them.

use kernel::bindings;

/// `CLOCK_BOOTTIME` in nanoseconds.
pub(crate) fn boottime_ns() -> u64 {
    // SAFETY: May be called from any context but NMI, and takes a clock that exists.
    (unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT) }) as u64
}
