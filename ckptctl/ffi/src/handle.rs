// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Handles: which `ckpt_t *` are open.
//!
//! A handle is a number that looks like a pointer. None is given twice, so one that was closed
//! is told from all that are open, for ever.

use std::ptr::without_provenance_mut;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use ckptctl::Context;
use nix::libc;

use crate::error::Failure;
use crate::header::ckpt_t;
use crate::registry::Found;
use crate::registry::Registry;

/// The low bits of every handle, at which it can be known in a debugger. Odd, so that it is
/// the address of nothing that C would point to.
const MARK: usize = 0xC5;
const SHIFT: u32 = 8;

static OPEN: Registry<Context> = Registry::new();

/// A number that no other context has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(usize);

impl Handle {
    /// The next number.
    pub fn new() -> Handle {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Handle((NEXT.fetch_add(1, Ordering::Relaxed) << SHIFT) | MARK)
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
        if OPEN.find(self.0).is_none() {
            OPEN.insert(self.0, context);
        }
    }

    /// The context, which stays open as long as the result lives.
    pub fn context(self) -> Result<Found<'static, Context>, Failure> {
        let context = OPEN.find(self.0).ok_or_else(|| self.not_open())?;
        context.check_process()?;
        Ok(context)
    }

    fn not_open(self) -> Failure {
        Failure::invalid(match self.0 {
            0 => "the context is NULL: open one with ckpt_open()".to_owned(),
            _ => format!(
                "{:#x} is not an open context: it was closed, or did not come from ckpt_open()",
                self.0
            ),
        })
    }

    /// Closes the context when no other thread is in a call with it any more and what it
    /// committed is durable, or cannot be.
    pub fn close(self) -> Result<(), Failure> {
        let context = self.context()?;
        if context.in_hook() {
            return Err(Failure {
                errno: libc::EDEADLK,
                text: "ckpt_close() was called from a hook, which it would wait for itself: call it behind the commit"
                    .into(),
            });
        }
        // While it can still be found: hooks of commits on their way use it. What cannot be
        // saved is told below. Waiting for an epoch could mean for spares, which may never come.
        let _ = context.clone().close();
        drop(context);
        // If another thread was faster, it is not open any more.
        let context = OPEN.remove(self.0).ok_or_else(|| self.not_open())?;
        Ok(context.close()?)
    }
}
