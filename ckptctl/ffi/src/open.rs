// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opening and closing.

use std::ffi::OsStr;
use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;

use ckptctl::Compacting;
use ckptctl::Context;
use ckptctl::Options;
use ckptctl::Restore;
use ckptctl::Saving;
use ckptctl::WaitFor;
use ckptctl::When;
use ckptctl::store::Compression;

use crate::argument;
use crate::call::status;
use crate::error::Failure;
use crate::handle::Handle;
use crate::header::CKPT_FRESH;
use crate::header::CKPT_NO_CODE_POINTERS;
use crate::header::CKPT_NO_SHARING;
use crate::header::CKPT_SYNC;
use crate::header::ckpt_options;
use crate::header::ckpt_t;
use crate::hook::CHook;

/// # Safety
///
/// As the header says: `options` is NULL or a structure with its size and C strings or NULL
/// in it, `ctx` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_open(options: *const ckpt_options, ctx: *mut *mut ckpt_t) -> c_int {
    status(|| {
        let place = argument::place(ctx, "ctx")?;
        // SAFETY: As this function's contract.
        unsafe { place.write(std::ptr::null_mut()) };
        let handle = Handle::new();
        let options = match options.is_null() {
            true => Options::new(),
            // SAFETY: As this function's contract.
            false => unsafe { read(options, handle) }?,
        };
        // Hooks that run inside find the context by its handle, so it may be open before it
        // comes back. When it does not come back, nobody keeps it.
        let opening = Opening(handle);
        let context = Context::open(options)?;
        handle.open(context);
        std::mem::forget(opening);
        // SAFETY: As this function's contract.
        unsafe { place.write(handle.pointer()) };
        Ok(())
    })
}

/// A handle that is closed unless it is forgotten.
struct Opening(Handle);

impl Drop for Opening {
    fn drop(&mut self) {
        // It is open only if a hook ran.
        let _ = self.0.close();
    }
}

/// # Safety
///
/// As [`ckpt_open`], and `options` is not NULL.
unsafe fn read(options: *const ckpt_options, handle: Handle) -> Result<Options, Failure> {
    // SAFETY: As this function's contract.
    let given = unsafe { argument::read(options) }?;
    let known = CKPT_NO_CODE_POINTERS | CKPT_FRESH | CKPT_SYNC | CKPT_NO_SHARING;
    if given.flags & !known != 0 {
        return Err(Failure::invalid(format!(
            "unknown flags {:#x}: use CKPT_NO_CODE_POINTERS, CKPT_FRESH, CKPT_SYNC and CKPT_NO_SHARING, begin with CKPT_OPTIONS_INIT",
            given.flags & !known
        )));
    }
    if given.flags & CKPT_FRESH != 0 && given.restore_epoch != 0 {
        return Err(Failure::invalid(
            "CKPT_FRESH restores nothing, so restore_epoch must be 0",
        ));
    }
    let mut options = Options::new();
    // SAFETY: As this function's contract.
    if let Some(dir) = unsafe { argument::bytes(given.dir) } {
        options = options.dir(OsStr::from_bytes(dir));
    }
    if !given.name.is_null() {
        // SAFETY: As this function's contract.
        options = options.name(unsafe { argument::name(given.name) }?);
    }
    if given.arena_bytes != 0 {
        options = options.arena_bytes(given.arena_bytes);
    }
    if given.base != 0 {
        options = options.base(given.base);
    }
    if given.restore_epoch != 0 {
        options = options.restore(Restore::Epoch(given.restore_epoch));
    }
    if given.flags & CKPT_FRESH != 0 {
        options = options.restore(Restore::Nothing);
    }
    if given.flags & CKPT_NO_CODE_POINTERS != 0 {
        options = options.no_code_pointers();
    }
    if given.flags & CKPT_SYNC != 0 {
        options = options.saving(Saving::Synchronous);
    }
    if given.flags & CKPT_NO_SHARING != 0 {
        options = options.no_sharing();
    }
    if given.pack_threads != 0 {
        options = options.pack_threads(given.pack_threads as usize);
    }
    // SAFETY: As this function's contract.
    if let Some(compress) = unsafe { argument::bytes(given.compress) } {
        let compress = String::from_utf8_lossy(compress);
        let compression: Compression = compress.parse().map_err(|expected| {
            Failure::invalid(format!("there is no compression {compress:?}: {expected}"))
        })?;
        options = options.compression(compression);
    }
    // SAFETY: As this function's contract.
    if let Some(compact) = unsafe { argument::bytes(given.compact) } {
        let compact = String::from_utf8_lossy(compact);
        let compacting: Compacting = compact.parse().map_err(|expected| {
            Failure::invalid(format!(
                "a chain is not compacted by {compact:?}: {expected}"
            ))
        })?;
        options = options.compacting(compacting);
    }
    // SAFETY: As this function's contract.
    if let Some(wait_for) = unsafe { argument::bytes(given.wait_for) } {
        let wait_for = String::from_utf8_lossy(wait_for);
        let wait_for: WaitFor = wait_for.parse().map_err(|expected| {
            Failure::invalid(format!("{wait_for:?} cannot be waited for: {expected}"))
        })?;
        options = options.wait_for(wait_for);
    }
    let hooks = [
        (
            When::AfterRestore,
            given.after_restore,
            given.after_restore_user,
        ),
        (
            When::AfterTakeover,
            given.after_takeover,
            given.after_takeover_user,
        ),
    ];
    for (when, function, user) in hooks {
        if let Some(hook) = CHook::new(function, user, handle) {
            options = options.hook(when, move |context, epoch| {
                handle.open(context.clone());
                hook.run(context, epoch)
            });
        }
    }
    Ok(options)
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_close(ctx: *mut ckpt_t) -> c_int {
    status(|| Handle::from_pointer(ctx).close())
}
