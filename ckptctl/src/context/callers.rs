// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may call: not a child of the process, and not a hook that would wait for itself.

use std::sync::Mutex;
use std::thread;
use std::thread::ThreadId;

use super::lock;
use crate::error::Error;
use crate::sys::process;

/// What a context knows of those who call it. Its lock may be taken under any other.
pub(crate) struct Callers {
    /// Threads that are in a hook.
    in_hooks: Mutex<Vec<ThreadId>>,
    /// The process that opened the context.
    owner: u32,
    /// [`process::forks`] then.
    forks: u32,
}

impl Callers {
    /// Of a context that this process opens.
    pub(super) fn new() -> Callers {
        Callers {
            in_hooks: Mutex::default(),
            owner: std::process::id(),
            forks: process::forks(),
        }
    }

    /// Runs hooks, with the thread marked so that it cannot wait for itself.
    pub(super) fn in_hooks<T>(&self, run: impl FnOnce() -> T) -> T {
        struct Unmark<'a>(&'a Mutex<Vec<ThreadId>>);
        impl Drop for Unmark<'_> {
            fn drop(&mut self) {
                let mut threads = lock(self.0);
                let this = thread::current().id();
                if let Some(at) = threads.iter().rposition(|&thread| thread == this) {
                    threads.remove(at);
                }
            }
        }
        lock(&self.in_hooks).push(thread::current().id());
        let _unmark = Unmark(&self.in_hooks);
        run()
    }

    /// True in a hook that this thread runs.
    pub(crate) fn in_hook(&self) -> bool {
        lock(&self.in_hooks).contains(&thread::current().id())
    }

    /// Refuses in a child of the process that opened the context.
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        match process::forks() == self.forks {
            true => Ok(()),
            false => Err(Error::Forked { owner: self.owner }),
        }
    }

    /// Refuses there and in hooks.
    pub(crate) fn refuse_in_hooks(&self, what: &'static str) -> Result<(), Error> {
        self.check_process()?;
        match self.in_hook() {
            true => Err(Error::FromHook(what)),
            false => Ok(()),
        }
    }
}
