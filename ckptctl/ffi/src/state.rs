// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Asking a context, and the library, what it is.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;

use crate::argument;
use crate::call::status;
use crate::call::value;
use crate::handle::Handle;
use crate::header::ckpt_t;

/// This library's version, with its NUL.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_is_restored(ctx: *mut ckpt_t) -> c_int {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.restored_epoch().is_some().into())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_restored_epoch(ctx: *mut ckpt_t) -> u64 {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.restored_epoch().unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_epoch(ctx: *mut ckpt_t) -> u64 {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.epoch()?.unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_durable(ctx: *mut ckpt_t) -> u64 {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.durable()?.unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_safe(ctx: *mut ckpt_t) -> u64 {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.safe()?.unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_takeover_term(ctx: *mut ckpt_t) -> u64 {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.takeover_term().unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_pending(ctx: *mut ckpt_t) -> c_int {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.pending().into())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_pending_word(ctx: *mut ckpt_t) -> *const u32 {
    value(std::ptr::null(), || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(context.pending_word().as_ptr().cast_const())
    })
}

/// # Safety
///
/// As the header says: `generation` is NULL or writable for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_generation(ctx: *mut ckpt_t, generation: *mut u8) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        let place = argument::place(generation, "generation")?;
        // SAFETY: As this function's contract.
        unsafe {
            place
                .cast::<[u8; 16]>()
                .write_unaligned(context.generation())
        };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_tracker(ctx: *mut ckpt_t) -> *const c_char {
    value(c"".as_ptr(), || {
        let context = Handle::from_pointer(ctx).context()?;
        Ok(match context.tracker() {
            "module" => c"module".as_ptr(),
            "compare" => c"compare".as_ptr(),
            "pagemap" => c"pagemap".as_ptr(),
            other => unreachable!("a tracker {other} that C has not been told of"),
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_version() -> *const c_char {
    CStr::from_bytes_with_nul(VERSION.as_bytes()).map_or(c"".as_ptr(), CStr::as_ptr)
}
