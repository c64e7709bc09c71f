// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Regions and the root pointer.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::ptr::null_mut;

use ckptctl::Adopted;
use ckptctl::RegionSpec;

use crate::argument;
use crate::call::number;
use crate::call::status;
use crate::call::value;
use crate::error::Failure;
use crate::handle::Handle;
use crate::header::ckpt_t;

/// # Safety
///
/// As the header says: `name` is NULL or a C string, `addr` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_region(
    ctx: *mut ckpt_t,
    name: *const c_char,
    kind: u32,
    len: usize,
    reserve: usize,
    addr: *mut *mut c_void,
) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        let place = argument::place(addr, "addr")?;
        let region = context.region(&RegionSpec {
            // SAFETY: As this function's contract.
            name: unsafe { argument::name(name) }?,
            kind,
            len_bytes: len as u64,
            reserve_bytes: reserve as u64,
        })?;
        // SAFETY: As this function's contract.
        unsafe { place.write(region.as_ptr().cast()) };
        Ok(())
    })
}

/// # Safety
///
/// As the header says: `name` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_region_grow(
    ctx: *mut ckpt_t,
    name: *const c_char,
    len: usize,
) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        // SAFETY: As this function's contract.
        context.grow_region(unsafe { argument::name(name) }?, len as u64)?;
        Ok(())
    })
}

/// # Safety
///
/// As the header says: `name` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_region_len(ctx: *mut ckpt_t, name: *const c_char) -> usize {
    value(0, || {
        let context = Handle::from_pointer(ctx).context()?;
        // SAFETY: As this function's contract.
        let len = context.region_len(unsafe { argument::name(name) }?)?;
        Ok(len.unwrap_or(0) as usize)
    })
}

/// # Safety
///
/// As the header says: `name` is NULL or a C string, and the memory is as described there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_adopt(
    ctx: *mut ckpt_t,
    name: *const c_char,
    kind: u32,
    addr: *mut c_void,
    len: usize,
) -> c_int {
    number(|| {
        let context = Handle::from_pointer(ctx).context()?;
        // SAFETY: As this function's contract.
        let name = unsafe { argument::name(name) }?;
        let addr = NonNull::new(addr.cast::<u8>())
            .ok_or_else(|| Failure::invalid("addr is NULL: point it at the memory to adopt"))?;
        let memory = NonNull::slice_from_raw_parts(addr, len);
        // SAFETY: As this function's contract.
        Ok(match unsafe { context.adopt(name, kind, memory) }? {
            Adopted::New => 0,
            Adopted::Found => 1,
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_set_root(ctx: *mut ckpt_t, root: *mut c_void) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        context.set_root(NonNull::new(root.cast()))?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_root(ctx: *mut ckpt_t) -> *mut c_void {
    value(null_mut(), || {
        let context = Handle::from_pointer(ctx).context()?;
        let root = context.root()?;
        Ok(root.map_or(null_mut(), |root| root.as_ptr().cast()))
    })
}
