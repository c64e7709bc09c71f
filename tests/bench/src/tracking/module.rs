// SPDX-License-Identifier: Apache-2.0 OR MIT
//! This project's module.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use anyhow::Context;
use anyhow::Result;
use ckptctl::sys::device::ArenaFd;
use ckptctl::sys::device::Device;
use ckptctl::sys::memory::Mapping;

use super::memory::PAGE;
use super::runs::Mechanism;

/// An arena.
pub struct Module {
    /// Its descriptor.
    pub fd: ArenaFd,
    mapping: Mapping,
    /// The last commit.
    pub epoch: u64,
}

/// Where the library puts arenas.
const BASE: usize = 0x2000_0000_0000;

impl Module {
    /// An arena of so many pages.
    pub fn new(pages: u64) -> Result<Module> {
        let len = pages as usize * PAGE;
        let fd = Device::open()
            .context("opening /dev/ckpt, which the module makes")?
            .create("bench", len as u64, 0)
            .context("making an arena")?;
        let mapping = Mapping::shared(fd.as_fd(), BASE, len).context("mapping the arena")?;
        Ok(Module {
            fd,
            mapping,
            epoch: 0,
        })
    }
}

impl Mechanism for Module {
    fn base(&self) -> NonNull<u8> {
        self.mapping.base()
    }

    fn commit(&mut self, told: &mut dyn FnMut(), found: &mut dyn FnMut(u64, u64)) -> Result<bool> {
        let commit = self.fd.commit()?;
        told();
        self.fd.delta(self.epoch, found)?;
        self.epoch = commit.epoch;
        Ok(true)
    }
}
