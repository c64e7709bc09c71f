// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `malloc` and its kin.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::ptr::null_mut;

use nix::libc;

use crate::call::value;
use crate::error::Failure;
use crate::handle::Handle;
use crate::header::ckpt_t;

/// The alignment of what is not told another.
const ALIGN: usize = 16;

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_malloc(ctx: *mut ckpt_t, size: usize) -> *mut c_void {
    value(null_mut(), || allocate(ctx, size, ALIGN))
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_calloc(ctx: *mut ckpt_t, count: usize, size: usize) -> *mut c_void {
    value(null_mut(), || {
        let bytes = count.checked_mul(size).ok_or_else(|| Failure {
            errno: libc::ENOMEM,
            text: format!("{count} times {size} bytes are more than there can be"),
        })?;
        let block = allocate(ctx, bytes, ALIGN)?;
        // SAFETY: The block is new and so long.
        unsafe { block.cast::<u8>().write_bytes(0, bytes) };
        Ok(block)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_aligned_alloc(ctx: *mut ckpt_t, align: usize, size: usize) -> *mut c_void {
    value(null_mut(), || allocate(ctx, size, align))
}

fn allocate(ctx: *mut ckpt_t, size: usize, align: usize) -> Result<*mut c_void, Failure> {
    let context = Handle::from_pointer(ctx).context()?;
    Ok(context.allocate(size, align)?.as_ptr().cast())
}

/// # Safety
///
/// As the header says: `ptr` is NULL or a block that nobody uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_realloc(
    ctx: *mut ckpt_t,
    ptr: *mut c_void,
    size: usize,
) -> *mut c_void {
    value(null_mut(), || {
        let Some(block) = NonNull::new(ptr.cast::<u8>()) else {
            return allocate(ctx, size, ALIGN);
        };
        let context = Handle::from_pointer(ctx).context()?;
        if size == 0 {
            context.free(block)?;
            return Ok(null_mut());
        }
        Ok(context.reallocate(block, size)?.as_ptr().cast())
    })
}

/// # Safety
///
/// As the header says: `ptr` is NULL or a block that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_free(ctx: *mut ckpt_t, ptr: *mut c_void) {
    value((), || {
        let context = Handle::from_pointer(ctx).context()?;
        if let Some(block) = NonNull::new(ptr.cast::<u8>()) {
            context.free(block)?;
        }
        Ok(())
    });
}
