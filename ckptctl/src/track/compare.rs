// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tracker that needs nothing of the kernel: it keeps a copy of everything and compares.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::time::Instant;

use super::Committed;
use super::Geometry;
use super::PageRange;
use super::Tracker;
use crate::error::Error;
use crate::sys::memory::Mapping;
use crate::sys::memory::PAGE;

/// An arena in ordinary memory, and a copy of it as of the last commit.
pub(super) struct Compare {
    mapping: Mapping,
    copy: Mapping,
    epoch: u64,
    /// Epoch that last changed a page, of those that ever changed.
    stamps: BTreeMap<u64, u64>,
}

impl Compare {
    pub(super) fn new(geometry: &Geometry) -> Result<Compare, Error> {
        let (base, len) = (geometry.base as usize, geometry.len_bytes as usize);
        let map = |base| {
            let mapping =
                Mapping::anonymous(base, len).map_err(|error| super::map_error(geometry, error))?;
            // As with the module: an arena is not for children.
            match mapping.keep_from_children() {
                Ok(()) => Ok(mapping),
                Err(source) => Err(Error::System {
                    doing: "keep the arena from children",
                    source,
                }),
            }
        };
        Ok(Compare {
            mapping: map(base)?,
            copy: map(0)?,
            epoch: geometry.epoch,
            stamps: BTreeMap::new(),
        })
    }

    /// Makes the copy of a page what the page is now. False if it was so already.
    fn take(&mut self, page: u64) -> bool {
        let offset = page as usize * PAGE;
        debug_assert!(offset < self.mapping.len_bytes());
        let words = PAGE / size_of::<u64>();
        // SAFETY: The page lies in both mappings.
        let (from, to): (NonNull<u64>, NonNull<u64>) = unsafe {
            (
                self.mapping.base().add(offset).cast(),
                self.copy.base().add(offset).cast(),
            )
        };
        let mut changed = false;
        for word in 0..words {
            // SAFETY: Within the page, and aligned. Threads of the program may write the page
            // meanwhile, so it is read by volatile loads; the copy is ours alone.
            unsafe {
                let now = from.add(word).read_volatile();
                if to.add(word).read() != now {
                    to.add(word).write(now);
                    changed = true;
                }
            }
        }
        changed
    }
}

impl Tracker for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn reserve(&mut self, _pages: u64) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self, used: &[PageRange]) -> Result<Committed, Error> {
        let begun = Instant::now();
        self.epoch += 1;
        for page in used.iter().cloned().flatten() {
            if self.take(page) {
                self.stamps.insert(page, self.epoch);
            }
        }
        Ok(Committed {
            epoch: self.epoch,
            pause_ns: begun.elapsed().as_nanos() as u64,
        })
    }

    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error> {
        let mut ranges: Vec<PageRange> = Vec::new();
        let changed = self.stamps.iter().filter(|(_, epoch)| **epoch > since);
        for (&page, _) in changed {
            match ranges.last_mut() {
                Some(last) if last.end == page => last.end += 1,
                _ => ranges.push(page..page + 1),
            }
        }
        Ok(ranges)
    }
}
