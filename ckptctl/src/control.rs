// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commits that somebody outside asks for, and telling him how far they have come.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::sys::consumers::Level;
use crate::sys::control::ControlPage;
use crate::sys::device::ArenaFd;
use crate::sys::file;

/// Name of the file in the chain's directory in which a program without the module is asked.
pub const FILE_NAME: &str = "CONTROL";

/// What nobody asks at.
static NOBODY: AtomicU32 = AtomicU32::new(0);

/// Where a context is asked.
pub(crate) enum Control {
    /// By the module.
    Module(ControlPage, ArenaFd),
    /// In a file of the chain's directory.
    File(ControlPage),
    /// Nowhere.
    None,
}

impl Control {
    /// The place for a context whose chain is in `dir`.
    pub(crate) fn open(arena: Option<&ArenaFd>, dir: &Path) -> Control {
        let path = dir.join(FILE_NAME);
        if let Some(arena) = arena {
            // Whoever looks there would ask in vain.
            let _ = file::unlink(&path);
            // A module that is too old has no such page.
            let page = ControlPage::of_arena(arena);
            let again = arena.try_clone();
            return match (page, again) {
                (Ok(page), Ok(again)) => Control::Module(page, again),
                _ => Control::None,
            };
        }
        match ControlPage::in_new_file(&path, std::process::id()) {
            Ok(page) => Control::File(page),
            Err(error) => {
                eprintln!(
                    "ckpt: {}: {error}; `ckptctl commit` cannot ask this program",
                    path.display()
                );
                Control::None
            }
        }
    }

    /// The word that is not zero while a commit is asked for.
    pub(crate) fn pending(&self) -> &AtomicU32 {
        match self {
            Control::Module(page, _) | Control::File(page) => page.pending(),
            Control::None => &NOBODY,
        }
    }

    /// Whether a commit is asked for.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending().load(Ordering::Relaxed) != 0
    }

    /// An epoch was closed.
    pub(crate) fn closed(&self, epoch: u64) {
        // The module knows.
        if let Control::File(page) = self {
            page.closed(epoch);
        }
    }

    /// Everything up to an epoch is durable.
    pub(crate) fn saved(&self, epoch: u64) {
        match self {
            Control::Module(_, arena) => {
                // An older module has nobody who would wait for it.
                let _: io::Result<()> = arena.acknowledge(epoch, Level::Durable);
            }
            Control::File(page) => page.saved(epoch),
            Control::None => {}
        }
    }
}

/// Where a thread learns what is on another host.
pub(crate) enum Elsewhere {
    /// From the module.
    Module(ArenaFd),
    /// From the file of the chain's directory.
    File(ControlPage),
}

impl Elsewhere {
    /// The place for a context whose chain is in `dir`; `None` when nobody can tell it.
    pub(crate) fn open(arena: Option<&ArenaFd>, dir: &Path) -> io::Result<Option<Elsewhere>> {
        match arena {
            Some(arena) => Ok(Some(Elsewhere::Module(arena.try_clone()?))),
            None => Ok(ControlPage::in_file(&dir.join(FILE_NAME))?.map(Elsewhere::File)),
        }
    }

    /// Waits until an epoch above this one is on another host, for so long at most; the newest
    /// that is.
    pub(crate) fn wait(&self, above: u64, timeout: Duration) -> io::Result<u64> {
        match self {
            Elsewhere::Module(arena) => {
                let waited = arena.wait(above + 1, Level::Replicated, timeout)?;
                Ok(waited.unwrap_or(above))
            }
            Elsewhere::File(page) => {
                let seen = page.seen();
                let newest = page.replicated();
                if newest > above {
                    return Ok(newest);
                }
                page.wait_for_change(seen, timeout);
                Ok(page.replicated().max(above))
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Control::File(page) = self {
            page.leave(std::process::id());
        }
    }
}
