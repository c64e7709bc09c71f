// SPDX-License-Identifier: GPL-2.0-only
//! The record of one chunk: which of its pages changed, when, and how they are tracked.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::bits::{Bits, SharedBits, CHUNK_PAGES, CHUNK_SHIFT};
use super::index::{Commit, Harvested, Part, Totals, Walk};
use super::slot::{Heap, NoMemory, Slot, Zeroed};
use super::tracker::{Epoch, Hardware, History, Plan, Tracker};

/// The record of 512 pages, with a payload `P` that belongs to the caller.
///
/// `noted` may be set at any time, from any context; `faults` and `open` by whoever
/// keeps commits away; `frozen` is the caller's, under a lock of its own, but only a
/// commit adds to it. Everything else is written by [`Part::harvest`] alone, which has
/// the index to itself but for notes.
#[repr(C)]
pub struct Chunk<P, H: Heap> {
    /// Pages noted as changed since the last commit.
    noted: SharedBits,
    /// Pages that may be writable without having been noted.
    open: SharedBits,
    /// Pages that must not be written before they were copied aside.
    frozen: SharedBits,
    /// See [`History`].
    seen: SharedBits,
    /// Pages stamped with `newest`.
    last: SharedBits,
    /// Pages that were ever stamped.
    ever: SharedBits,
    /// Pages that were stamped more than once. The first write to a page says nothing about
    /// others: programs fill their memory once.
    twice: SharedBits,
    /// Newest epoch that stamped a page here; zero for none.
    newest: AtomicU64,
    /// Newest stamp of a page that is not in `last`; zero for none.
    before: AtomicU64,
    /// How many were open after the last commit. Zero, too, when others were opened since.
    open_pages: AtomicU64,
    /// Write faults since the last commit, but those on pages written just before.
    faults: AtomicU64,
    /// What all of them cost, on top of the regret.
    spent: AtomicU64,
    /// Not zero if the last commit here froze what changed, so nothing was left open.
    froze: AtomicU64,
    /// See [`History`].
    watched: AtomicU64,
    /// See [`History`].
    window: AtomicU64,
    /// See [`History`].
    due: AtomicU64,
    /// See [`History`].
    idle: AtomicU64,
    /// See [`History`].
    regret: AtomicU64,
    /// Epoch that last stamped each page. Filled with the first page.
    stamps: Slot<[AtomicU64; CHUNK_PAGES], H>,
    /// The caller's.
    payload: Slot<P, H>,
}

// SAFETY: All fields are `Zeroed`, and `repr(C)` leaves no other bytes.
unsafe impl<P: Zeroed, H: Heap> Zeroed for Chunk<P, H> {}

impl<P: Zeroed, H: Heap> Chunk<P, H> {
    /// The caller's payload, if the chunk was ever touched.
    pub fn payload(&self) -> Option<&P> {
        self.payload.get()
    }

    /// Counts a write fault on a page, after commit `epoch`. Whether the chunk is to be opened
    /// now.
    ///
    /// The first write to a page that no commit has seen counts for nothing.
    pub fn count_fault(&self, page: u64, epoch: u64, tracker: &Tracker) -> bool {
        let page = page as usize % CHUNK_PAGES;
        let stamp = match self.stamps.get() {
            Some(stamps) => stamps[page].load(Ordering::Relaxed),
            None => 0,
        };
        if stamp == 0 {
            return false;
        }
        // A page that was written just before is left open by the next commit anyway, unless
        // that has to freeze it, as the last one had to.
        let lately = stamp + 1 >= epoch
            && self.twice.contains(page)
            && self.froze.load(Ordering::Relaxed) == 0;
        if !lately {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        let cost = tracker.fault_counts(lately);
        let before = self.spent.fetch_add(cost.into(), Ordering::Relaxed) as u32;
        tracker.opens(before, cost)
    }

    /// Pages that were made writable, other than by a fault of their own. The caller
    /// keeps commits away, and notes a page of the chunk before it lets them come.
    pub fn opened(&self, pages: &Bits) {
        self.open.insert(pages);
        self.open_pages.store(0, Ordering::Relaxed);
    }

    /// Whether a page is frozen. The caller keeps commits away if it relies on a no.
    pub fn is_frozen(&self, page: u64) -> bool {
        self.frozen.contains(page as usize % CHUNK_PAGES)
    }

    /// The frozen pages.
    pub fn frozen(&self) -> Bits {
        self.frozen.load()
    }

    /// Thaws pages.
    pub fn thaw(&self, pages: &Bits) {
        self.frozen.remove(pages);
    }

    /// Stamps pages with an epoch.
    fn stamp(&self, pages: &Bits, epoch: u64) {
        let Some(stamps) = self.stamps.get() else {
            return;
        };
        let newest = self.newest.load(Ordering::Relaxed);
        let older = self.last.load();
        // Pages of the previous stamping that are not stamped again now keep
        // `newest`, which is at or above what `before` says of the rest.
        if !older.minus(pages).is_empty() {
            self.before.store(newest, Ordering::Relaxed);
        }
        for page in pages.iter() {
            stamps[page].store(epoch, Ordering::Relaxed);
        }
        self.last.store(pages);
        let ever = self.ever.load();
        self.twice.insert(&pages.and(&ever));
        self.ever.insert(&pages.minus(&ever));
        self.newest.store(epoch, Ordering::Relaxed);
    }

    /// Pages stamped after `since`.
    pub fn stamped_after(&self, since: u64) -> Bits {
        let mut bits = Bits::default();
        if since >= self.newest.load(Ordering::Relaxed) {
            return bits;
        }
        if since >= self.before.load(Ordering::Relaxed) {
            return self.last.load();
        }
        if let Some(stamps) = self.stamps.get() {
            for page in self.ever.load().iter() {
                if stamps[page].load(Ordering::Relaxed) > since {
                    bits.insert(page);
                }
            }
        }
        bits
    }

    /// Those of `pages` that were stamped in one of the two epochs before `epoch`, and not for
    /// the first time.
    fn stamped_lately(&self, pages: &Bits, epoch: u64) -> Bits {
        // A stamp of zero is none.
        let oldest = epoch.saturating_sub(2).max(1);
        let newest = self.newest.load(Ordering::Relaxed);
        if newest < oldest {
            return Bits::default();
        }
        let pages = &pages.and(&self.twice.load());
        let mut lately = self.last.load().and(pages);
        if self.before.load(Ordering::Relaxed) >= oldest {
            if let Some(stamps) = self.stamps.get() {
                for page in pages.minus(&lately).iter() {
                    if stamps[page].load(Ordering::Relaxed) >= oldest {
                        lately.insert(page);
                    }
                }
            }
        }
        lately
    }

    /// Whether the next harvest has nothing to decide, if there are no notes.
    fn is_settled(&self, tracker: &Tracker) -> bool {
        self.spent.load(Ordering::Relaxed) == 0
            && self.regret.load(Ordering::Relaxed) == 0
            && self.open_pages.load(Ordering::Relaxed) != 0
            && tracker.is_settled(&History {
                watched: self.watched.load(Ordering::Relaxed) as u32,
                window: self.window.load(Ordering::Relaxed) as u32,
                due: self.due.load(Ordering::Relaxed) as u32,
                idle: self.idle.load(Ordering::Relaxed) as u32,
                ..History::default()
            })
    }

    /// Those of the pages that were open before this harvest that have been noted since it took
    /// the notes. To be asked when the hardware was.
    ///
    /// The entry of an open page may be taken away, by an unmapping, just before the hardware
    /// is asked. What it was written before that is known by the note alone that the unmapping
    /// makes; and that may have come too late to be taken. The note stays, so the next commit
    /// tells of the page again.
    fn noted_late(&self, open: &Bits) -> Bits {
        match open.is_empty() {
            true => Bits::default(),
            false => self.noted.load().and(open),
        }
    }

    /// As [`Part::harvest`], for a chunk whose open pages stay as they are.
    fn harvest_settled<W: Hardware>(&self, first: u64, commit: &mut Commit<'_, W>) -> Harvested {
        let plan = Plan {
            keep: self.open.load(),
            ..Plan::default()
        };
        let dirty = commit.hardware.harvest(first, &plan);
        let pinned = commit.hardware.pinned(first, &plan.keep.or(&dirty));
        let mut changed = dirty.or(&pinned);
        changed.union(&self.noted_late(&plan.keep));
        if changed.is_empty() {
            self.idle.fetch_add(1, Ordering::Relaxed);
        } else {
            self.idle.store(0, Ordering::Relaxed);
            self.stamp(&changed, commit.epoch);
            self.seen.insert(&changed);
        }
        self.watched.fetch_add(1, Ordering::Relaxed);
        let again = pinned
            .iter()
            .map(|page| u64::from(self.note(page as u64)))
            .sum();
        let open = self.open_pages.load(Ordering::Relaxed);
        Harvested {
            looked: open,
            changed: changed.len() as u64,
            again,
            open,
            open_chunks: 1,
            ..Harvested::default()
        }
    }

    fn history(&self) -> History {
        History {
            open: self.open.load(),
            seen: self.seen.load(),
            watched: self.watched.load(Ordering::Relaxed) as u32,
            window: self.window.load(Ordering::Relaxed) as u32,
            due: self.due.load(Ordering::Relaxed) as u32,
            idle: self.idle.load(Ordering::Relaxed) as u32,
            regret: self.regret.load(Ordering::Relaxed) as u32,
        }
    }

    fn remember(&self, history: &History) {
        self.open.store(&history.open);
        self.seen.store(&history.seen);
        self.watched
            .store(history.watched.into(), Ordering::Relaxed);
        self.window.store(history.window.into(), Ordering::Relaxed);
        self.due.store(history.due.into(), Ordering::Relaxed);
        self.idle.store(history.idle.into(), Ordering::Relaxed);
        self.regret.store(history.regret.into(), Ordering::Relaxed);
        self.spent.store(history.regret.into(), Ordering::Relaxed);
    }

    /// Arms and freezes pages. Only within a commit. Returns pages that turned out to
    /// have been written since they were harvested: they are for the next commit; and how
    /// many pages are not open any more.
    pub fn freeze<W: Hardware>(&self, first: u64, pages: &Bits, hardware: &mut W) -> (Bits, u64) {
        let mut late = Bits::default();
        let open = self.open.load();
        let arm = open.and(pages);
        if !arm.is_empty() {
            let plan = Plan {
                arm,
                ..Plan::default()
            };
            late = hardware.harvest(first, &plan);
            self.open.store(&open.minus(&arm));
            self.open_pages.store(0, Ordering::Relaxed);
        }
        self.frozen.insert(pages);
        (late, arm.len() as u64)
    }
}

impl<P: Zeroed, H: Heap> Part for Chunk<P, H> {
    type Payload = P;
    type Heap = H;
    const SHIFT: u32 = CHUNK_SHIFT;

    fn find(&self, _page: u64) -> Option<&Chunk<P, H>> {
        Some(self)
    }

    fn find_or_make(&self, _page: u64, totals: &Totals) -> Result<&Chunk<P, H>, NoMemory> {
        let (_, made_stamps) = self.stamps.get_or_fill()?;
        let (_, made_payload) = self.payload.get_or_fill()?;
        if made_stamps {
            totals.hold(size_of::<[AtomicU64; CHUNK_PAGES]>());
        }
        if made_payload {
            totals.chunk();
            totals.hold(size_of::<P>());
        }
        Ok(self)
    }

    fn note(&self, page: u64) -> bool {
        let page = page as usize % CHUNK_PAGES;
        let bit = 1u64 << (page % 64);
        // Always a read-modify-write, even when the bit is set already: the
        // caller's loads of the marks above must come after it. See `index`.
        self.noted.0[page / 64].fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    fn harvest<W: Hardware>(&self, first: u64, commit: &mut Commit<'_, W>) -> Harvested {
        let noted = Bits(core::array::from_fn(|n| {
            // A word without notes needs no swap: a note that comes now finds the
            // marks above taken, sets them again, and is for the next commit.
            match self.noted.0[n].load(Ordering::SeqCst) {
                0 => 0,
                _ => self.noted.0[n].swap(0, Ordering::SeqCst),
            }
        }));
        if noted.is_empty() && !commit.freeze && self.is_settled(commit.tracker) {
            return self.harvest_settled(first, commit);
        }
        let mut history = self.history();
        let was_open = history.open;
        let looked = noted.or(&history.open).len() as u64;
        let epoch = Epoch {
            noted,
            again: self.stamped_lately(&noted, commit.epoch),
            ever: self.ever.load(),
            faults: self.faults.load(Ordering::Relaxed) as u32,
            spent: self.spent.load(Ordering::Relaxed) as u32,
            freeze: commit.freeze,
        };
        let mut outcome = commit
            .tracker
            .harvest(first, &epoch, &mut history, commit.hardware);
        outcome.changed.union(&self.noted_late(&was_open));
        self.faults.store(0, Ordering::Relaxed);
        self.froze.store(commit.freeze.into(), Ordering::Relaxed);
        self.remember(&history);
        if !outcome.changed.is_empty() {
            self.stamp(&outcome.changed, commit.epoch);
        }
        let mut again = 0;
        for page in outcome.again.iter() {
            again += u64::from(self.note(page as u64));
        }
        let open = history.open.len() as u64;
        self.open_pages.store(open, Ordering::Relaxed);
        Harvested {
            looked,
            taken: noted.len() as u64,
            changed: outcome.changed.len() as u64,
            again,
            open,
            kept: outcome.kept.into(),
            closed: outcome.closed.into(),
            open_chunks: u64::from(open != 0),
        }
    }

    fn changed_since<F>(&self, first: u64, from: u64, walk: &mut Walk<F>) -> ControlFlow<u64>
    where
        F: FnMut(u64, u64) -> ControlFlow<u64>,
    {
        if walk.budget == 0 {
            return ControlFlow::Break(first.max(from));
        }
        walk.budget -= 1;
        for (start, len) in self.stamped_after(walk.since).runs() {
            let start = first + start as u64;
            let end = start + len as u64;
            if end <= from {
                continue;
            }
            let start = start.max(from);
            (walk.found)(start, end - start)?;
        }
        ControlFlow::Continue(())
    }

    fn each_changed<E, F>(&self, first: u64, since: u64, visit: &mut F) -> Result<(), E>
    where
        F: FnMut(u64, &Chunk<P, H>, Bits) -> Result<(), E>,
    {
        visit(first, self, self.stamped_after(since))
    }

    fn each_payload<F: FnMut(&P)>(&self, visit: &mut F) {
        if let Some(payload) = self.payload.get() {
            visit(payload);
        }
    }
}
