// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Soft-dirty bits: cleared by `clear_refs`, read from the pagemap.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::ptr::NonNull;

use anyhow::Context;
use anyhow::Result;

use super::memory::PAGE;
use super::memory::Private;
use super::pagemap::Pagemap;
use super::runs::Mechanism;

const SOFT_DIRTY: u64 = 1 << 55;

/// Private memory.
pub struct SoftDirty {
    memory: Private,
    pagemap: Pagemap,
    clear: File,
}

impl SoftDirty {
    /// Memory of so many pages.
    pub fn new(pages: u64) -> Result<SoftDirty> {
        let clear = OpenOptions::new()
            .write(true)
            .open("/proc/self/clear_refs")
            .context("opening clear_refs")?;
        Ok(SoftDirty {
            memory: Private::new(pages)?,
            pagemap: Pagemap::open()?,
            clear,
        })
    }
}

impl Mechanism for SoftDirty {
    fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    fn commit(&mut self, told: &mut dyn FnMut(), found: &mut dyn FnMut(u64, u64)) -> Result<bool> {
        let address = self.memory.base().as_ptr() as usize;
        let pages = self.memory.len() / PAGE;
        told();
        self.pagemap.with_bit(address, pages, SOFT_DIRTY, found)?;
        self.clear.write_all(b"4").context("writing clear_refs")?;
        Ok(true)
    }
}
