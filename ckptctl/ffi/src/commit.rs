// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Committing, waiting for what was committed, and going back to it.

use std::ffi::c_int;
use std::time::Duration;

use ckptctl::CommitReport;
use ckptctl::Context;
use ckptctl::Error;

use crate::argument;
use crate::call::status;
use crate::handle::Handle;
use crate::header::ckpt_commit_info;
use crate::header::ckpt_commit_stats;
use crate::header::ckpt_t;

/// # Safety
///
/// As the header says: `info` is NULL or a structure with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_commit(ctx: *mut ckpt_t, info: *mut ckpt_commit_info) -> c_int {
    // SAFETY: As this function's contract.
    unsafe { commit(ctx, info, Context::commit) }
}

/// # Safety
///
/// As the header says: `info` is NULL or a structure with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_commit_sync(ctx: *mut ckpt_t, info: *mut ckpt_commit_info) -> c_int {
    // SAFETY: As this function's contract.
    unsafe { commit(ctx, info, Context::commit_sync) }
}

/// # Safety
///
/// `info` is NULL or a structure with its size.
unsafe fn commit(
    ctx: *mut ckpt_t,
    info: *mut ckpt_commit_info,
    commit: impl FnOnce(&Context) -> Result<CommitReport, Error>,
) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        // SAFETY: As this function's contract.
        unsafe { argument::check(info) }?;
        let report = commit(&context)?;
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

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_rollback(ctx: *mut ckpt_t, epoch: u64) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        context.rollback(epoch)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_alive(ctx: *mut ckpt_t) -> c_int {
    status(|| {
        Handle::from_pointer(ctx).context()?.alive()?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_wait(ctx: *mut ckpt_t, epoch: u64, timeout_ms: c_int) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        Ok(context.wait(epoch, timeout)?)
    })
}

/// # Safety
///
/// As the header says: `stats` is NULL or a structure with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_stats(ctx: *mut ckpt_t, stats: *mut ckpt_commit_stats) -> c_int {
    status(|| {
        let context = Handle::from_pointer(ctx).context()?;
        let place = argument::place(stats, "stats")?;
        // SAFETY: As this function's contract.
        unsafe { argument::check(place) }?;
        let stats = context.stats()?;
        let told = ckpt_commit_stats {
            size: size_of::<ckpt_commit_stats>(),
            commits: stats.commits,
            saved: stats.saved,
            given_up: stats.given_up,
            fallbacks: stats.fallbacks,
            in_flight: stats.in_flight,
            queue_waits: stats.queue_waits,
            queue_wait_ns: stats.queue_wait_ns,
            pause_ns: stats.pause_ns,
            pause_ns_max: stats.pause_ns_max,
            pause_ns_last: stats.pause_ns_last,
            durable_ns: stats.durable_ns,
            durable_ns_max: stats.durable_ns_max,
            durable_ns_last: stats.durable_ns_last,
            pages: stats.pages,
            stored_bytes: stats.stored_bytes,
            copied_pages: stats.copied_pages,
            writer_waits: stats.writer_waits,
            unchanged_pages: stats.unchanged_pages,
            shared_pages: stats.shared_pages,
        };
        // SAFETY: As this function's contract.
        unsafe { argument::write(place, told) }
    })
}
