// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hooks that are C functions.

use std::ffi::c_int;
use std::ffi::c_void;
use std::sync::Arc;

use ckptctl::Context;
use ckptctl::When;

use crate::call::status;
use crate::error::Failure;
use crate::handle::Handle;
use crate::header::CKPT_AFTER_COMMIT;
use crate::header::CKPT_AFTER_RESTORE;
use crate::header::CKPT_AFTER_TAKEOVER;
use crate::header::CKPT_BEFORE_COMMIT;
use crate::header::ckpt_hook_fn;
use crate::header::ckpt_t;

/// A function of the program, and what it wants to be called with.
pub struct CHook {
    function: unsafe extern "C" fn(*mut ckpt_t, u64, *mut c_void) -> c_int,
    user: *mut c_void,
    handle: Handle,
}

// SAFETY: The header says that hooks run on whatever thread commits, and those behind a commit
// in a thread of the library's; the program sees to it that its function and what `user` points
// to bear that.
unsafe impl Send for CHook {}
// SAFETY: As above. Hooks of one kind run one at a time; the header says that those behind a
// commit run while the program goes on.
unsafe impl Sync for CHook {}

impl CHook {
    /// A hook of this context; `None` when there is no function.
    pub fn new(function: ckpt_hook_fn, user: *mut c_void, handle: Handle) -> Option<CHook> {
        Some(CHook {
            function: function?,
            user,
            handle,
        })
    }

    /// Calls the function.
    pub fn run(&self, _context: &Context, epoch: u64) -> c_int {
        // SAFETY: The program registered this function to be called in this way.
        unsafe { (self.function)(self.handle.pointer(), epoch, self.user) }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_hook(
    ctx: *mut ckpt_t,
    when: c_int,
    hook: ckpt_hook_fn,
    user: *mut c_void,
) -> c_int {
    status(|| {
        let handle = Handle::from_pointer(ctx);
        let context = handle.context()?;
        let when = match u32::try_from(when) {
            Ok(CKPT_BEFORE_COMMIT) => When::BeforeCommit,
            Ok(CKPT_AFTER_COMMIT) => When::AfterCommit,
            Ok(CKPT_AFTER_RESTORE) => When::AfterRestore,
            Ok(CKPT_AFTER_TAKEOVER) => {
                return Err(Failure::invalid(
                    "a takeover is over when the context is open: give the hook as ckpt_options.after_takeover, or ask ckpt_takeover_term()",
                ));
            }
            _ => {
                return Err(Failure::invalid(format!(
                    "{when} is not when a hook can run: use CKPT_BEFORE_COMMIT, CKPT_AFTER_COMMIT or CKPT_AFTER_RESTORE"
                )));
            }
        };
        let hook = CHook::new(hook, user, handle)
            .ok_or_else(|| Failure::invalid("the hook is NULL: give a function"))?;
        context.hook(
            when,
            Arc::new(move |context: &Context, epoch| hook.run(context, epoch)),
        )?;
        Ok(())
    })
}
