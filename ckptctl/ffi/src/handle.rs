// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Handles: which `ckpt_t *` are open.
//!
//! A handle is a number that looks like a pointer. None is given twice, so one that was closed
//! is told from all that are open, for ever.

use std::collections::HashMap;
use std::ptr::without_provenance_mut;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ckptctl::Context;
use nix::libc;

use crate::error::Failure;
use crate::header::ckpt_t;

/// The low bits of every handle, at which it can be known in a debugger. Odd, so that it is
/// the address of nothing that C would point to.
const MARK: usize = 0xC5;
const SHIFT: u32 = 8;

type Open = HashMap<usize, Arc<Context>>;

static OPEN: LazyLock<RwLock<Open>> = LazyLock::new(RwLock::default);

/// A number that no other context has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(usize);

impl Handle {
    /// The next number.
    pub fn new() -> Handle {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Handle(NEXT.fetch_add(1, Ordering::Relaxed) << SHIFT | MARK)
    }

    /// What a program gave.
    pub fn from_pointer(pointer: *mut ckpt_t) -> Handle {
        Handle(pointer.addr())
    }

    /// What a program is given.
    pub fn pointer(self) -> *mut ckpt_t {
        without_provenance_mut(self.0)
    }

    /// From now on the handle is good. It may be so already, for the same context.
    pub fn open(self, context: Context) {
        let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
        open.entry(self.0).or_insert_with(|| Arc::new(context));
    }

    /// The context, as long as the result lives.
    pub fn context(self) -> Result<Arc<Context>, Failure> {
        let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&self.0).cloned().ok_or_else(|| {
            Failure::invalid(match self.0 {
                0 => "the context is NULL: open one with ckpt_open()".to_owned(),
                _ => format!(
                    "{:#x} is not an open context: it was closed, or did not come from ckpt_open()",
                    self.0
                ),
            })
        })
    }

    /// Closes the context when no other thread is in a call with it any more.
    pub fn close(self) -> Result<(), Failure> {
        if self.context()?.in_hook() {
            return Err(Failure {
                errno: libc::EDEADLK,
                text: "ckpt_close() was called from a hook, which it would wait for itself: call it behind the commit"
                    .into(),
            });
        }
        let removed = {
            let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
            open.remove(&self.0)
        };
        // Another thread was faster.
        let Some(mut context) = removed else {
            return self.context().map(drop);
        };
        loop {
            match Arc::try_unwrap(context) {
                Ok(_last) => return Ok(()),
                Err(shared) => context = shared,
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}
