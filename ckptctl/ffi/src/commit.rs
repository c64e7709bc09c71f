// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Committing.

use std::ffi::c_int;

use crate::argument;
use crate::call::status;
use crate::handle::Handle;
use crate::header::ckpt_commit_info;
use crate::header::ckpt_t;

/// # Safety
///
/// As the header says: `info` is NULL or a structure with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_commit(ctx: *mut ckpt_t, info: *mut ckpt_commit_info) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        // SAFETY: As this function's contract.
        unsafe { argument::check(info) }?;
        let report = context.commit()?;
        if !info.is_null() {
            let told = ckpt_commit_info {
                size: size_of::<ckpt_commit_info>(),
                epoch: report.epoch,
                pages: report.pages,
                stored_bytes: report.stored_bytes,
                pause_ns: report.pause_ns,
                total_ns: report.total_ns,
            };
            // SAFETY: As this function's contract.
            unsafe { argument::write(info, told) }?;
        }
        Ok(())
    })
}
