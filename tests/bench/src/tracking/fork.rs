// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A forked child as a snapshot: copy-on-write keeps the memory of the commit for it. It does
//! not tell which pages changed, so whoever saves has to save everything.

use std::ptr::NonNull;

use anyhow::Context;
use anyhow::Result;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use nix::unistd::fork;

use super::memory::Private;
use super::runs::Mechanism;

/// Private memory, and the child that has the last commit.
pub struct Fork {
    memory: Private,
    child: Option<Pid>,
}

impl Fork {
    /// Memory of so many pages.
    pub fn new(pages: u64) -> Result<Fork> {
        Ok(Fork {
            memory: Private::new(pages)?,
            child: None,
        })
    }

    fn end(&mut self) -> Result<()> {
        if let Some(child) = self.child.take() {
            kill(child, Signal::SIGKILL).context("kill")?;
            waitpid(child, None).context("waitpid")?;
        }
        Ok(())
    }
}

impl Mechanism for Fork {
    fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    fn commit(
        &mut self,
        _told: &mut dyn FnMut(),
        _found: &mut dyn FnMut(u64, u64),
    ) -> Result<bool> {
        self.end()?;
        // SAFETY: The child only waits to be killed.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Child => loop {
                nix::unistd::pause();
            },
            ForkResult::Parent { child } => self.child = Some(child),
        }
        Ok(false)
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
