// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tracker that needs nothing of the kernel: it keeps a copy of everything and compares.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use super::Adoptions;
use super::Committed;
use super::Frozen;
use super::Geometry;
use super::PageRange;
use super::Snapshot;
use super::Tracker;
use super::Wins;
use super::adoptions;
use super::adoptions::system;
use super::push_page;
use crate::error::Error;
use crate::sys::memory::Mapping;
use crate::sys::memory::PAGE;
use crate::sys::span::Span;

const WORDS: usize = PAGE / size_of::<u64>();

/// Content of a page. It never changes: when the page does, it gets another.
type Content = Arc<[u64; WORDS]>;

/// A page that was not zero in some commit.
struct Kept {
    /// Epoch that last changed it.
    stamp: u64,
    /// What it was in the last commit.
    content: Content,
}

/// An arena in ordinary memory, and what was in it at the last commit.
pub(super) struct Compare {
    mapping: Mapping,
    adoptions: Adoptions,
    epoch: u64,
    kept: BTreeMap<u64, Kept>,
}

impl Compare {
    pub(super) fn new(geometry: &Geometry) -> Result<Compare, Error> {
        let (base, len) = (geometry.base as usize, geometry.len_bytes as usize);
        let mapping =
            Mapping::anonymous(base, len).map_err(|error| super::map_error(geometry, error))?;
        // As with the module: an arena is not for children.
        mapping
            .span()
            .keep_from_children()
            .map_err(system("keep the arena from children"))?;
        Ok(Compare {
            mapping,
            adoptions: Adoptions::default(),
            epoch: geometry.epoch,
            kept: BTreeMap::new(),
        })
    }

    /// What a page is now, if that is not what it was in the last commit.
    fn changed(&self, page: u64, now: NonNull<u64>) -> Option<Content> {
        const ZERO: &[u64; WORDS] = &[0; WORDS];
        let before = self.kept.get(&page).map_or(ZERO, |kept| &kept.content);
        // SAFETY: Within the page, and aligned. Threads of the program may write the page
        // meanwhile, so it is read by volatile loads.
        let word = |at: usize| unsafe { now.add(at).read_volatile() };
        let same = (0..WORDS).all(|at| word(at) == before[at]);
        (!same).then(|| Arc::new(std::array::from_fn(word)))
    }

    fn close(&mut self, used: &[PageRange]) -> Committed {
        let begun = Instant::now();
        self.epoch += 1;
        let places = used.iter().flat_map(|pages| self.places(pages.clone()));
        for (pages, start) in places.collect::<Vec<_>>() {
            for (at, page) in pages.enumerate() {
                // SAFETY: The page lies where the arena's pages are.
                let now = unsafe { start.add(at * PAGE) }.cast();
                if let Some(content) = self.changed(page, now) {
                    let stamp = self.epoch;
                    self.kept.insert(page, Kept { stamp, content });
                }
            }
        }
        Committed {
            epoch: self.epoch,
            pause_ns: begun.elapsed().as_nanos() as u64,
        }
    }

    fn after(&self, since: u64) -> impl Iterator<Item = (u64, &Kept)> {
        let kept = self.kept.iter().map(|(&page, kept)| (page, kept));
        kept.filter(move |(_, kept)| kept.stamp > since)
    }
}

impl Tracker for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn places(&self, pages: PageRange) -> Vec<(PageRange, NonNull<u8>)> {
        self.adoptions.places(&self.mapping, pages)
    }

    fn adoptions(&self) -> &Adoptions {
        &self.adoptions
    }

    /// The memory stays what it is, and is where the pages are. Those of the arena's own addresses
    /// are not used.
    fn adopt(&mut self, pages: PageRange, memory: Span, wins: Wins) -> Result<(), Error> {
        let keep = memory.keep_from_children();
        keep.map_err(system("keep the memory from children"))?;
        if wins == Wins::Pages {
            // SAFETY: Nobody uses either, and what was in the memory is not wanted.
            unsafe { adoptions::bring(&self.mapping, &pages, memory) };
        }
        self.adoptions.add(pages, memory);
        Ok(())
    }

    fn release(&mut self, pages: PageRange) -> Result<(), Error> {
        if let Some(memory) = self.adoptions.find(&pages) {
            let give = memory.give_to_children();
            give.map_err(system("give adopted memory back"))?;
            self.adoptions.remove(&pages);
        }
        Ok(())
    }

    fn reserve(&mut self, _pages: u64) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self, used: &[PageRange]) -> Result<Committed, Error> {
        Ok(self.close(used))
    }

    fn commit_with_snapshot(
        &mut self,
        used: &[PageRange],
        since: u64,
        _whole: bool,
    ) -> Result<Frozen, Error> {
        // In tests it can refuse, as the module can.
        #[cfg(test)]
        if let Err(why) = crate::sys::fake::ask(crate::sys::fake::Call::Snapshot) {
            return Ok(Frozen::Refused(why));
        }
        let committed = self.close(used);
        let pages: Vec<(u64, Content)> = self
            .after(since)
            .map(|(page, kept)| (page, kept.content.clone()))
            .collect();
        let snapshot = Shared { next: 0, pages };
        Ok(Frozen::Made(committed, Box::new(snapshot)))
    }

    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error> {
        let mut ranges = Vec::new();
        for (page, _) in self.after(since) {
            push_page(&mut ranges, page);
        }
        Ok(ranges)
    }
}

/// Pages of a commit, shared with the tracker until it sees them change.
struct Shared {
    pages: Vec<(u64, Content)>,
    /// Those before were handed over.
    next: usize,
}

impl Snapshot for Shared {
    fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    fn gather(&mut self, buffer: &mut [u8], runs: &mut Vec<PageRange>) -> Result<(), Error> {
        runs.clear();
        let places = buffer.chunks_exact_mut(PAGE);
        let pages = &self.pages[self.next..];
        self.next += pages.len().min(places.len());
        for ((page, content), place) in pages.iter().zip(places) {
            for (bytes, word) in place.chunks_exact_mut(size_of::<u64>()).zip(&**content) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
            push_page(runs, *page);
        }
        Ok(())
    }
}
