// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What going back to an earlier state takes: it relies on nothing that the arena's own pages
//! say, as they may be what is wrong with the state.

use super::Arena;
use super::HEAD_PAGES;
use crate::error::Error;
use crate::page_ranges::merged;
use crate::store::RegionEntry;
use crate::sys::memory::PAGE;
use crate::track::Committed;

impl Arena {
    /// Makes room for a state with these regions.
    pub(crate) fn reach(&mut self, regions: &[RegionEntry]) -> Result<(), Error> {
        let len = regions.iter().map(|region| region.len_pages).sum::<u64>();
        self.tracker.reserve(HEAD_PAGES + len)?;
        let pages = regions
            .iter()
            .map(|region| region.offset_pages..region.offset_pages + region.len_pages);
        self.reach.extend(pages);
        self.reach = merged(std::mem::take(&mut self.reach));
        Ok(())
    }

    /// Notes what pages the program can write from now on.
    pub(super) fn note_reach(&mut self) {
        let used = self.used();
        self.reach.extend(used);
        self.reach = merged(std::mem::take(&mut self.reach));
    }

    /// Closes an epoch, with all that can have been written since the arena was made.
    pub(crate) fn commit_reach(&mut self) -> Result<Committed, Error> {
        self.tracker.commit(&self.reach)
    }

    /// The same, to learn what has changed: nobody outside is told of this state.
    pub(crate) fn commit_reach_quietly(&mut self) -> Result<Committed, Error> {
        self.tracker.commit_quietly(&self.reach)
    }

    /// Copies pages in, while the program does not use them. Returns how many.
    pub(crate) fn write_pages(&mut self, first: u64, bytes: &[u8]) -> Result<u64, Error> {
        let offset = first as usize * PAGE;
        if offset + bytes.len() > self.tracker.mapping().len_bytes() {
            return Err(Error::Layout(format!(
                "page {first} of the chain is outside of the arena"
            )));
        }
        let count = (bytes.len() / PAGE) as u64;
        let mut rest = bytes;
        for (pages, to) in self.tracker.places(first..first + count) {
            let (bytes, behind) = rest.split_at((pages.end - pages.start) as usize * PAGE);
            rest = behind;
            // SAFETY: The range lies in the arena, and nobody else uses it: the
            // program keeps away from it meanwhile.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        }
        Ok(count)
    }

    /// Makes pages what is given, without touching those that are that already. Returns how
    /// many were not.
    pub(crate) fn put_pages(&mut self, first: u64, bytes: &[u8]) -> Result<u64, Error> {
        let mut now = [0; PAGE];
        let mut count = 0;
        for (page, bytes) in (first..).zip(bytes.chunks_exact(PAGE)) {
            self.check_page(page)?;
            self.read_pages(page, &mut now);
            if now != bytes {
                count += self.write_pages(page, bytes)?;
            }
        }
        Ok(count)
    }

    fn check_page(&self, page: u64) -> Result<(), Error> {
        match page < self.len_bytes() / PAGE as u64 {
            true => Ok(()),
            false => Err(Error::Layout(format!(
                "page {page} of the chain is outside of the arena"
            ))),
        }
    }
}
