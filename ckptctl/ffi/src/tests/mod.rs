// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What C programs are promised, tried through the functions they call.

mod adopting;
mod fork;
mod hooks;
mod outputs;
mod refusals;
mod rollback;
mod safe_points;
mod saving;
mod spares;
mod state;

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_int;
use std::ffi::c_void;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::ptr::null;
use std::ptr::null_mut;
use std::ptr::without_provenance_mut;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use nix::libc;

use crate::commit::*;
use crate::error::*;
use crate::header::CKPT_AFTER_COMMIT;
use crate::header::CKPT_AFTER_RESTORE;
use crate::header::CKPT_AFTER_TAKEOVER;
use crate::header::CKPT_BEFORE_COMMIT;
use crate::header::CKPT_FRESH;
use crate::header::CKPT_IN_FLIGHT_MAX;
use crate::header::CKPT_SYNC;
use crate::header::CKPT_VERSION_MAJOR;
use crate::header::CKPT_VERSION_MINOR;
use crate::header::CKPT_VERSION_PATCH;
use crate::header::ckpt_commit_info;
use crate::header::ckpt_commit_stats;
use crate::header::ckpt_hook_fn;
use crate::header::ckpt_options;
use crate::header::ckpt_outputs_t;
use crate::header::ckpt_t;
use crate::heap::*;
use crate::hook::*;
use crate::open::*;
use crate::outputs::*;
use crate::region::*;
use crate::safe_point::*;
use crate::signature;
use crate::state::*;

/// As CKPT_OPTIONS_INIT has them.
fn defaults() -> ckpt_options {
    ckpt_options {
        size: size_of::<ckpt_options>(),
        dir: null(),
        name: null(),
        arena_bytes: 0,
        base: 0,
        restore_epoch: 0,
        flags: 0,
        pack_threads: 0,
        after_restore: None,
        after_restore_user: null_mut(),
        compress: null(),
        compact: null(),
        after_takeover: None,
        after_takeover_user: null_mut(),
        wait_for: null(),
    }
}

/// A chain in a folder of its own, and an address for its arena that no other test uses.
struct Place {
    dir: tempfile::TempDir,
    c_dir: CString,
    base: u64,
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = tempfile::tempdir().unwrap();
        let chain: &Path = &dir.path().join("chain");
        Place {
            c_dir: CString::new(chain.as_os_str().as_bytes()).unwrap(),
            dir,
            base: (1 << 44) + (NEXT.fetch_add(1, Ordering::Relaxed) << 32),
        }
    }

    fn options(&self) -> ckpt_options {
        ckpt_options {
            dir: self.c_dir.as_ptr(),
            name: c"test".as_ptr(),
            arena_bytes: 1 << 30,
            base: self.base,
            ..defaults()
        }
    }

    fn open(&self) -> *mut ckpt_t {
        open_with(&self.options()).expect("a context")
    }
}

fn open_with(options: &ckpt_options) -> Result<*mut ckpt_t, c_int> {
    let mut ctx = without_provenance_mut(1);
    // SAFETY: Both are ours.
    match unsafe { ckpt_open(options, &raw mut ctx) } {
        0 => Ok(ctx),
        errno => {
            assert!(ctx.is_null(), "what could not be opened is NULL");
            Err(errno)
        }
    }
}

fn message() -> String {
    // SAFETY: The text is a C string.
    let text = unsafe { CStr::from_ptr(ckpt_errmsg(null_mut())) };
    text.to_string_lossy().into_owned()
}

fn region(ctx: *mut ckpt_t, name: &CStr, len: usize) -> *mut u64 {
    let mut addr = null_mut();
    // SAFETY: The name is a C string, the address ours.
    let status = unsafe { ckpt_region(ctx, name.as_ptr(), 1, len, 0, &raw mut addr) };
    assert_eq!(status, 0, "{}", message());
    addr.cast()
}

fn commit(ctx: *mut ckpt_t) -> c_int {
    // SAFETY: Null is allowed.
    unsafe { ckpt_commit(ctx, null_mut()) }
}

/// A structure to be filled in.
fn stats_to_fill() -> ckpt_commit_stats {
    // SAFETY: Numbers, for which zeros are a value.
    let mut stats: ckpt_commit_stats = unsafe { std::mem::zeroed() };
    stats.size = size_of::<ckpt_commit_stats>();
    stats
}

fn stats(ctx: *mut ckpt_t) -> ckpt_commit_stats {
    let mut stats = stats_to_fill();
    // SAFETY: The structure is ours and says its size.
    let status = unsafe { ckpt_stats(ctx, &raw mut stats) };
    assert_eq!(status, 0, "{}", message());
    stats
}

/// True in a process that runs this test and nothing else, which is made for it: a child of a
/// process with threads could find the locks of the C library and of Rust's taken.
fn alone(test: &str) -> bool {
    alone_with(test, &[])
}

/// As [`alone`], with variables in its environment.
fn alone_with(test: &str, variables: &[(&str, &str)]) -> bool {
    const ALONE: &str = "CKPT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this)
        .args([test, "--exact", "--test-threads=1", "--nocapture"])
        .env(ALONE, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}
