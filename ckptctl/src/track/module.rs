// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tracker of the kernel module.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use nix::libc;

use super::Adoptions;
use super::Committed;
use super::Frozen;
use super::Geometry;
use super::PageRange;
use super::Snapshot;
use super::SnapshotCosts;
use super::Tracker;
use super::Wins;
use super::adoptions;
use super::adoptions::system;
use super::push_run;
use crate::error::Error;
use crate::sys::abi;
use crate::sys::device::ArenaFd;
use crate::sys::device::Device;
use crate::sys::device::SnapshotFd;
use crate::sys::memory::Mapping;
use crate::sys::memory::PAGE;
use crate::sys::span::Span;

/// The first version of the kernel's ABI that has snapshots.
const SNAPSHOTS_SINCE: u32 = 2;

/// The first that has commits of which nobody is told.
const QUIET_SINCE: u32 = 4;

/// An arena of the module.
pub(super) struct Module {
    arena: ArenaFd,
    mapping: Mapping,
    adoptions: Adoptions,
    abi_version: u32,
}

impl Module {
    pub(super) fn new(geometry: &Geometry) -> Result<Module, Error> {
        let device = Device::open().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::NoDevice,
            _ => Error::DeviceAccess(error),
        })?;
        let version = device.version().map_err(refused("tell its version"))?;
        let arena = device
            .create(&geometry.name, geometry.len_bytes, geometry.epoch)
            .map_err(refused("make an arena"))?;
        Module::on(arena, geometry, version.abi_version)
    }

    /// An arena that another process has made.
    pub(super) fn adopt(fd: OwnedFd, geometry: &Geometry) -> Result<Module, Error> {
        let device = Device::open().map_err(Error::DeviceAccess)?;
        let version = device.version().map_err(refused("tell its version"))?;
        let arena = ArenaFd::inherited(fd).map_err(refused("tell what the arena is"))?;
        Module::on(arena, geometry, version.abi_version)
    }

    fn on(arena: ArenaFd, geometry: &Geometry, abi_version: u32) -> Result<Module, Error> {
        let (base, len) = (geometry.base as usize, geometry.len_bytes as usize);
        let mapping = Mapping::shared(arena.as_fd(), base, len)
            .map_err(|error| super::map_error(geometry, error))?;
        Ok(Module {
            arena,
            mapping,
            adoptions: Adoptions::default(),
            abi_version,
        })
    }
}

fn refused(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Module { doing, source }
}

fn committed(commit: abi::ckpt_commit) -> Committed {
    Committed {
        epoch: commit.epoch,
        pause_ns: commit.duration_ns,
    }
}

impl Tracker for Module {
    fn name(&self) -> &'static str {
        "module"
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// By the arena's own addresses, which are there whatever is done to adopted memory.
    fn places(&self, pages: PageRange) -> Vec<(PageRange, NonNull<u8>)> {
        let at = adoptions::part(&self.mapping, &pages).base();
        vec![(pages, at)]
    }

    fn adoptions(&self) -> &Adoptions {
        &self.adoptions
    }

    /// Maps the pages a second time, where the memory is. Writes by either way are told.
    fn adopt(&mut self, pages: PageRange, memory: Span, wins: Wins) -> Result<(), Error> {
        let here = adoptions::part(&self.mapping, &pages);
        let offset = pages.start as usize * PAGE;
        let view = Mapping::part(self.arena.as_fd(), offset, memory.len_bytes())
            .map_err(system("map a part of the arena"))?;
        if wins == Wins::Memory {
            // SAFETY: The pages are new, and nobody writes to the memory.
            unsafe { adoptions::copy(memory, view.span()) };
        }
        // SAFETY: What is there has been copied, or is not wanted.
        if let Err((view, source)) = unsafe { view.put_over(memory) } {
            if let Ok(lost) = Mapping::anonymous(memory.base().as_ptr() as usize, here.len_bytes())
            {
                // The kernel has taken the memory away before it failed.
                // SAFETY: It is new.
                unsafe { adoptions::copy(view.span(), lost.span()) };
                lost.leave();
            }
            if wins == Wins::Memory {
                // SAFETY: Nobody knows of these pages.
                unsafe { adoptions::clear(view.span()) };
            }
            return Err(system("map the arena in place of the memory")(source));
        }
        // Pages are looked up at one place from now on. Not needed, but tracking is cheaper.
        // SAFETY: Nobody uses them here.
        let _ = unsafe { here.discard() };
        self.adoptions.add(pages, memory);
        Ok(())
    }

    fn release(&mut self, pages: PageRange) -> Result<(), Error> {
        let Some(memory) = self.adoptions.find(&pages) else {
            return Ok(());
        };
        let own = Mapping::anonymous(0, memory.len_bytes())
            .map_err(system("find memory for what was adopted"))?;
        // SAFETY: Nobody knows of the one, and nobody writes to the other.
        unsafe { adoptions::copy(memory, own.span()) };
        // SAFETY: The arena has these pages still, and what was in them has been copied.
        unsafe { own.put_over(memory) }
            .map_err(|(_, source)| system("give adopted memory back")(source))?;
        self.adoptions.remove(&pages);
        Ok(())
    }

    fn reserve(&mut self, pages: u64) -> Result<(), Error> {
        self.arena
            .reserve(pages)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOMEM) => Error::Memlock { pages },
                _ => refused("reserve pages")(error),
            })
    }

    fn commit(&mut self, _used: &[PageRange]) -> Result<Committed, Error> {
        self.arena
            .commit()
            .map(committed)
            .map_err(refused("commit"))
    }

    fn commit_quietly(&mut self, used: &[PageRange]) -> Result<Committed, Error> {
        if self.abi_version < QUIET_SINCE {
            return self.commit(used);
        }
        let commit = self.arena.commit_quietly();
        commit.map(committed).map_err(refused("commit"))
    }

    fn commit_with_snapshot(
        &mut self,
        _used: &[PageRange],
        since: u64,
        whole: bool,
    ) -> Result<Frozen, Error> {
        let refuse = |errno| Ok(Frozen::Refused(io::Error::from_raw_os_error(errno)));
        if self.abi_version < SNAPSHOTS_SINCE {
            return refuse(libc::EOPNOTSUPP);
        }
        let (commit, fd) = match self.arena.commit_with_snapshot(since, 0) {
            Ok(made) => made,
            Err(error) => {
                return match error.raw_os_error() {
                    // Not now, or not by this module.
                    Some(
                        libc::ENOMEM | libc::EBUSY | libc::EMFILE | libc::ENFILE | libc::EINVAL,
                    ) => Ok(Frozen::Refused(error)),
                    _ => Err(refused("commit")(error)),
                };
            }
        };
        let snapshot = ModuleSnapshot {
            fd,
            pages: commit.snapshot_pages,
            next: Some(0),
        };
        if whole && commit.reserve_pages < commit.snapshot_pages {
            return refuse(libc::ENOMEM);
        }
        Ok(Frozen::Made(committed(commit), Box::new(snapshot)))
    }

    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error> {
        let mut ranges = Vec::new();
        self.arena
            .delta(since, |first, pages| {
                push_run(&mut ranges, first..first + pages)
            })
            .map_err(refused("tell what changed"))?;
        Ok(ranges)
    }

    fn arena(&self) -> Option<&ArenaFd> {
        Some(&self.arena)
    }

    fn snapshot_costs(&self) -> Result<SnapshotCosts, Error> {
        let stats = self
            .arena
            .stats()
            .map_err(refused("tell what has happened"))?;
        Ok(SnapshotCosts {
            copied_pages: stats.copied_pages,
            writer_waits: stats.copy_waits,
        })
    }
}

/// Frozen pages.
struct ModuleSnapshot {
    fd: SnapshotFd,
    pages: u64,
    /// Where the next call goes on; `None` when all was handed over.
    next: Option<u64>,
}

impl Snapshot for ModuleSnapshot {
    fn pages(&self) -> u64 {
        self.pages
    }

    fn gather(&mut self, buffer: &mut [u8], runs: &mut Vec<PageRange>) -> Result<(), Error> {
        runs.clear();
        while let (true, Some(start)) = (runs.is_empty(), self.next) {
            self.next = self
                .fd
                .gather(start, buffer, PAGE.trailing_zeros(), |first, pages| {
                    push_run(runs, first..first + pages)
                })
                .map_err(refused("hand over a snapshot"))?;
        }
        Ok(())
    }
}

impl Drop for ModuleSnapshot {
    fn drop(&mut self) {
        if self.next.is_some() {
            // Closing would do, if no child had been forked that still has the descriptor. It
            // can fail for a fatal signal only.
            let _ = self.fd.thaw();
        }
    }
}
