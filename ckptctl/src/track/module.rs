// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tracker of the kernel module.

use std::io;
use std::os::fd::AsFd;

use nix::libc;

use super::Committed;
use super::Geometry;
use super::PageRange;
use super::Tracker;
use crate::error::Error;
use crate::sys::device::ArenaFd;
use crate::sys::device::Device;
use crate::sys::memory::Mapping;

/// An arena of the module.
pub(super) struct Module {
    arena: ArenaFd,
    mapping: Mapping,
}

impl Module {
    pub(super) fn new(geometry: &Geometry) -> Result<Module, Error> {
        let device = Device::open().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::NoDevice,
            _ => Error::DeviceAccess(error),
        })?;
        let arena = device
            .create(&geometry.name, geometry.len_bytes, geometry.epoch)
            .map_err(refused("make an arena"))?;
        let (base, len) = (geometry.base as usize, geometry.len_bytes as usize);
        let mapping = Mapping::shared(arena.as_fd(), base, len)
            .map_err(|error| super::map_error(geometry, error))?;
        Ok(Module { arena, mapping })
    }
}

fn refused(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Module { doing, source }
}

impl Tracker for Module {
    fn name(&self) -> &'static str {
        "module"
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
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
        let commit = self.arena.commit().map_err(refused("commit"))?;
        Ok(Committed {
            epoch: commit.epoch,
            pause_ns: commit.duration_ns,
        })
    }

    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error> {
        let mut ranges: Vec<PageRange> = Vec::new();
        self.arena
            .delta(since, |first, pages| match ranges.last_mut() {
                Some(last) if last.end == first => last.end += pages,
                _ => ranges.push(first..first + pages),
            })
            .map_err(refused("tell what changed"))?;
        Ok(ranges)
    }
}
