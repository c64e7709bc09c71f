// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tracker for kernels without the module: ordinary memory, write-protected page by page
//! through userfaultfd, and PAGEMAP_SCAN to learn where the protection was lifted.
//!
//! A commit is one scan, which protects anew what it tells. So a page that is written while a
//! commit scans, or between the scan and the copying of the page, is told by the next commit as
//! well.

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
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
use super::push_run;
use super::stamps::Stamps;
use crate::error::Error;
use crate::sys::memory::Mapping;
use crate::sys::memory::PAGE;
use crate::sys::pagemap;
use crate::sys::span::Span;
use crate::sys::userfault::Userfault;

/// Pages that all snapshots of an arena hold at most. The kernel freezes none, so they are
/// copied while the program waits, and take memory until they are saved.
const COPIED_MAX: u64 = (64 << 20) / PAGE as u64;

/// An arena in ordinary memory, watched by the kernel.
pub(super) struct Pagemap {
    mapping: Mapping,
    pagemap: pagemap::Pagemap,
    adoptions: Adoptions,
    /// The mapping is watched for as long as it lives, and so is what was adopted.
    userfault: Userfault,
    epoch: u64,
    stamps: Stamps,
    /// A scan failed, which may have protected pages without telling them: every page counts
    /// as written until one succeeds.
    unsure: bool,
    /// Pages that snapshots hold.
    copied: Arc<AtomicU64>,
}

fn unsupported(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::NoPagemap { doing, source }
}

impl Pagemap {
    /// Fails with [`Error::NoPagemap`] where the kernel, or who limits this process, has
    /// something against it.
    pub(super) fn new(geometry: &Geometry) -> Result<Pagemap, Error> {
        let userfault = Userfault::new().map_err(unsupported("use userfaultfd"))?;
        let pagemap = pagemap::Pagemap::open().map_err(unsupported("open /proc/self/pagemap"))?;
        let (base, len) = (geometry.base as usize, geometry.len_bytes as usize);
        let mapping =
            Mapping::anonymous(base, len).map_err(|error| super::map_error(geometry, error))?;
        // As with the module: an arena is not for children.
        let span = mapping.span();
        span.keep_from_children()
            .map_err(system("keep the arena from children"))?;
        // Pages are told one by one.
        span.without_huge_pages()
            .map_err(system("keep huge pages out of the arena"))?;
        userfault
            .register(span)
            .map_err(unsupported("watch writes by userfaultfd"))?;
        let mut tracker = Pagemap {
            mapping,
            pagemap,
            adoptions: Adoptions::default(),
            userfault,
            epoch: geometry.epoch,
            stamps: Stamps::default(),
            unsure: false,
            copied: Arc::default(),
        };
        tracker
            .scan(0..1)
            .map_err(unsupported("learn of writes by PAGEMAP_SCAN"))?;
        Ok(tracker)
    }

    /// Stamps what changed in some pages with the epoch that is open, and watches them anew.
    fn scan(&mut self, pages: PageRange) -> io::Result<()> {
        for (pages, start) in self.places(pages) {
            self.scan_place(pages, start)?;
        }
        Ok(())
    }

    /// The same for pages that are one behind the other from `start` on.
    fn scan_place(&mut self, pages: PageRange, start: NonNull<u8>) -> io::Result<()> {
        let page = PAGE as u64;
        // Where page 0 would be. It need not be an address.
        let base = (start.as_ptr() as u64).wrapping_sub(pages.start * page);
        let (stamps, unsure, epoch) = (&mut self.stamps, self.unsure, self.epoch + 1);
        let mut next = pages.start;
        let address = |number: u64| base.wrapping_add(number * page);
        let number = |address: u64| address.wrapping_sub(base) / page;
        let addresses = address(pages.start)..address(pages.end);
        self.pagemap.scan(addresses, |found, written| {
            let found = number(found.start)..number(found.end);
            stamps.vacate(next..found.start, epoch);
            next = found.end;
            if written || unsure {
                stamps.change(found, epoch);
            }
        })?;
        stamps.vacate(next..pages.end, epoch);
        Ok(())
    }

    /// Stamps all that changed. The epoch stays open.
    fn scan_all(&mut self, used: &[PageRange]) -> Result<(), Error> {
        for pages in used {
            if let Err(source) = self.scan(pages.clone()) {
                self.unsure = true;
                return Err(Error::Scan(source));
            }
        }
        self.unsure = false;
        Ok(())
    }

    fn close(&mut self, begun: Instant) -> Committed {
        self.epoch += 1;
        Committed {
            epoch: self.epoch,
            pause_ns: begun.elapsed().as_nanos() as u64,
        }
    }

    fn copy(&self, ranges: Vec<PageRange>, count: u64) -> Copied {
        let mut bytes = Vec::with_capacity(count as usize * PAGE);
        let places = ranges.iter().flat_map(|run| self.places(run.clone()));
        for (pages, start) in places {
            let len = (pages.end - pages.start) as usize * PAGE;
            // SAFETY: The arena's pages are there.
            let span = unsafe { Span::new(start, len) };
            span.append_to(&mut bytes, 0, len);
        }
        Copied {
            bytes,
            runs: ranges.into(),
            count,
            next: 0,
            copied: Arc::clone(&self.copied),
        }
    }
}

impl Tracker for Pagemap {
    fn name(&self) -> &'static str {
        "pagemap"
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
        // Larger pages that are there already become small ones when they are written.
        memory
            .without_huge_pages()
            .map_err(system("keep huge pages out of the memory"))?;
        memory
            .keep_from_children()
            .map_err(system("keep the memory from children"))?;
        if let Err(source) = self.userfault.register(memory) {
            // It was not kept from them before.
            let _ = memory.give_to_children();
            return Err(system("watch the memory by userfaultfd")(source));
        }
        if wins == Wins::Pages {
            // SAFETY: Nobody uses either, and what was in the memory is not wanted.
            unsafe { adoptions::bring(&self.mapping, &pages, memory) };
        }
        self.adoptions.add(pages, memory);
        Ok(())
    }

    fn release(&mut self, pages: PageRange) -> Result<(), Error> {
        if let Some(memory) = self.adoptions.find(&pages) {
            self.userfault
                .unregister(memory)
                .and_then(|()| memory.give_to_children())
                .map_err(system("give adopted memory back"))?;
            self.adoptions.remove(&pages);
        }
        Ok(())
    }

    fn reserve(&mut self, _pages: u64) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self, used: &[PageRange]) -> Result<Committed, Error> {
        let begun = Instant::now();
        self.scan_all(used)?;
        Ok(self.close(begun))
    }

    fn commit_with_snapshot(
        &mut self,
        used: &[PageRange],
        since: u64,
        _whole: bool,
    ) -> Result<Frozen, Error> {
        // In tests it can refuse for other reasons, as the module can.
        #[cfg(test)]
        if let Err(why) = crate::sys::fake::ask(crate::sys::fake::Call::Snapshot) {
            return Ok(Frozen::Refused(why));
        }
        let begun = Instant::now();
        self.scan_all(used)?;
        let ranges = self.stamps.after(since);
        let count = ranges.iter().map(|run| run.end - run.start).sum();
        let held = self.copied.load(Ordering::Acquire);
        if held + count > COPIED_MAX {
            return Ok(Frozen::Refused(io::Error::other(format!(
                "{count} pages changed, and the tracker pagemap copies {COPIED_MAX} at most"
            ))));
        }
        self.copied.fetch_add(count, Ordering::Relaxed);
        let snapshot = self.copy(ranges, count);
        Ok(Frozen::Made(self.close(begun), Box::new(snapshot)))
    }

    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error> {
        Ok(self.stamps.after(since))
    }
}

/// Pages as they were in a commit.
struct Copied {
    bytes: Vec<u8>,
    /// The pages that were not handed over.
    runs: VecDeque<PageRange>,
    /// The content of the first of these.
    next: usize,
    count: u64,
    /// What all snapshots of the arena hold.
    copied: Arc<AtomicU64>,
}

impl Snapshot for Copied {
    fn pages(&self) -> u64 {
        self.count
    }

    fn gather(&mut self, buffer: &mut [u8], runs: &mut Vec<PageRange>) -> Result<(), Error> {
        runs.clear();
        let mut room = buffer.len() / PAGE;
        while let (1.., Some(run)) = (room, self.runs.front_mut()) {
            let len = room.min((run.end - run.start) as usize);
            let part = run.start..run.start + len as u64;
            run.start = part.end;
            if run.is_empty() {
                self.runs.pop_front();
            }
            room -= len;
            push_run(runs, part);
        }
        let len = runs.iter().map(|run| run.end - run.start).sum::<u64>() as usize * PAGE;
        buffer[..len].copy_from_slice(&self.bytes[self.next..self.next + len]);
        self.next += len;
        Ok(())
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.copied.fetch_sub(self.count, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use nix::libc;
    use nix::sys::mman;
    use nix::sys::mman::MapFlags;
    use nix::sys::mman::ProtFlags;

    use super::*;
    use crate::sys::fake;
    use crate::sys::fake::Call;

    fn tracker(base: u64, pages: u64) -> Option<Pagemap> {
        let geometry = Geometry {
            name: "test".into(),
            base,
            len_bytes: pages * PAGE as u64,
            epoch: 0,
        };
        match Pagemap::new(&geometry) {
            Ok(tracker) => Some(tracker),
            Err(error) => {
                use std::io::Write;
                let _ = writeln!(io::stderr(), "skipped: {error}");
                None
            }
        }
    }

    fn write(tracker: &Pagemap, page: usize) {
        assert!(page * PAGE < tracker.mapping.len_bytes());
        // SAFETY: Within the mapping, which is the test's.
        unsafe { tracker.mapping.base().add(page * PAGE).write_volatile(1) };
    }

    #[test]
    fn a_scan_that_fails_half_way_takes_nothing_from_the_next_commit() {
        let Some(mut tracker) = tracker(0, 64) else {
            return;
        };
        write(&tracker, 3);
        write(&tracker, 4);
        assert_eq!(tracker.commit(&[0..64]).unwrap().epoch, 1);
        write(&tracker, 3);
        // Somebody maps other memory into the arena, which is not watched.
        let at = tracker.mapping.base().as_ptr() as usize + 32 * PAGE;
        // SAFETY: Replaces a part of the mapping that has nothing in it.
        unsafe {
            mman::mmap_anonymous(
                NonZeroUsize::new(at),
                NonZeroUsize::new(PAGE).unwrap(),
                ProtFlags::PROT_READ,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED,
            )
        }
        .unwrap();
        let error = tracker.commit(&[0..64]).unwrap_err();
        assert_eq!(error.errno(), libc::EPERM, "{error}");
        assert!(error.to_string().contains("leave the arena mapped"));
        assert_eq!(tracker.commit(&[0..32]).unwrap().epoch, 2);
        let delta = tracker.delta(1).unwrap();
        assert!(delta.iter().any(|run| run.contains(&3)), "{delta:?}");
        write(&tracker, 4);
        tracker.commit(&[0..32]).unwrap();
        assert_eq!(tracker.delta(2).unwrap(), [4..5], "it is sure again");
    }

    #[test]
    fn what_the_kernel_refuses_is_told_with_what_it_takes() {
        if tracker(0, 1).is_none() {
            return;
        }
        for (call, errno, doing) in [
            (Call::Userfault, libc::ENOSYS, "use userfaultfd"),
            (Call::OpenPagemap, libc::EACCES, "open /proc/self/pagemap"),
        ] {
            let failing = fake::fail(call, errno);
            let Err(error) = super::super::try_pagemap() else {
                panic!("{call:?} does not matter");
            };
            drop(failing);
            assert_eq!(error.errno(), libc::EOPNOTSUPP);
            let said = error.to_string();
            assert!(said.contains(doing) && said.contains("Linux 6.7"), "{said}");
        }
        super::super::try_pagemap().unwrap();
    }

    #[test]
    fn snapshots_together_hold_no_more_than_they_may() {
        let pages = COPIED_MAX + 1;
        let Some(mut tracker) = tracker(0, pages) else {
            return;
        };
        let used = [0..pages];
        for page in 0..COPIED_MAX as usize / 2 {
            write(&tracker, page);
        }
        let mut freeze = |since| match tracker.commit_with_snapshot(&used, since, false) {
            Ok(Frozen::Made(_, snapshot)) => Ok(snapshot),
            Ok(Frozen::Refused(why)) => Err(why),
            Err(error) => panic!("{error}"),
        };
        let first = freeze(0).unwrap();
        let second = freeze(0).unwrap();
        assert_eq!(first.pages() + second.pages(), COPIED_MAX);
        let last = freeze(2).unwrap();
        assert_eq!(last.pages(), 0);
        let why = freeze(0).err().expect("too much");
        assert!(why.to_string().contains("copies 16384 at most"), "{why}");
        drop(first);
        freeze(0).unwrap();
    }
}
