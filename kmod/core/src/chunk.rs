// SPDX-License-Identifier: GPL-2.0-only
//! The record of one chunk: which of its pages changed, and when.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::bits::{Bits, CHUNK_PAGES, CHUNK_SHIFT, WORDS};
use super::index::{Harvested, Part, Walk};
use super::slot::{Heap, NoMemory, Slot, Zeroed};
use super::tracker::{Hardware, Tracker};

/// The record of 512 pages, with a payload `P` that belongs to the caller.
///
/// `noted` may be set at any time, from any context. Everything else is written
/// by [`Part::harvest`] alone, which has the index to itself but for notes.
#[repr(C)]
pub struct Chunk<P, H: Heap> {
    /// Pages noted as changed since the last commit.
    noted: [AtomicU64; WORDS],
    /// Pages stamped with `newest`.
    last: [AtomicU64; WORDS],
    /// Newest epoch that stamped a page here; zero for none.
    newest: AtomicU64,
    /// Newest stamp of a page that is not in `last`; zero for none.
    before: AtomicU64,
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

    fn load(words: &[AtomicU64; WORDS]) -> Bits {
        Bits(core::array::from_fn(|n| words[n].load(Ordering::Relaxed)))
    }

    /// Stamps pages with an epoch.
    fn stamp(&self, pages: &Bits, epoch: u64) {
        let Some(stamps) = self.stamps.get() else {
            return;
        };
        let newest = self.newest.load(Ordering::Relaxed);
        let older = Self::load(&self.last);
        // Pages of the previous stamping that are not stamped again now keep
        // `newest`, which is at or above what `before` says of the rest.
        let left_behind = (0..WORDS).any(|n| older.0[n] & !pages.0[n] != 0);
        if left_behind {
            self.before.store(newest, Ordering::Relaxed);
        }
        for page in pages.iter() {
            stamps[page].store(epoch, Ordering::Relaxed);
        }
        for (word, &bits) in self.last.iter().zip(&pages.0) {
            word.store(bits, Ordering::Relaxed);
        }
        self.newest.store(epoch, Ordering::Relaxed);
    }

    /// Pages stamped after `since`.
    fn changed_since(&self, since: u64) -> Bits {
        let mut bits = Bits::default();
        if since >= self.newest.load(Ordering::Relaxed) {
            return bits;
        }
        if since >= self.before.load(Ordering::Relaxed) {
            return Self::load(&self.last);
        }
        if let Some(stamps) = self.stamps.get() {
            for (page, stamp) in stamps.iter().enumerate() {
                if stamp.load(Ordering::Relaxed) > since {
                    bits.insert(page);
                }
            }
        }
        bits
    }
}

impl<P: Zeroed, H: Heap> Part for Chunk<P, H> {
    type Payload = P;
    type Heap = H;
    const SHIFT: u32 = CHUNK_SHIFT;

    fn find(&self, _page: u64) -> Option<&Chunk<P, H>> {
        Some(self)
    }

    fn find_or_make(&self, _page: u64, held: &AtomicU64) -> Result<&Chunk<P, H>, NoMemory> {
        let (_, made_stamps) = self.stamps.get_or_fill()?;
        let (_, made_payload) = self.payload.get_or_fill()?;
        let bytes = usize::from(made_stamps) * size_of::<[AtomicU64; CHUNK_PAGES]>()
            + usize::from(made_payload) * size_of::<P>();
        if bytes != 0 {
            held.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(self)
    }

    fn note(&self, page: u64) -> bool {
        let page = page as usize % CHUNK_PAGES;
        let bit = 1u64 << (page % 64);
        // Always a read-modify-write, even when the bit is set already: the
        // caller's loads of the marks above must come after it. See `index`.
        self.noted[page / 64].fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    fn harvest<W: Hardware>(
        &self,
        first: u64,
        epoch: u64,
        tracker: &Tracker,
        hardware: &mut W,
    ) -> Harvested {
        let noted = Bits(core::array::from_fn(|n| {
            self.noted[n].swap(0, Ordering::SeqCst)
        }));
        let outcome = tracker.harvest(first, &noted, hardware);
        if !outcome.changed.is_empty() {
            self.stamp(&outcome.changed, epoch);
        }
        let mut again = 0;
        for page in outcome.again.iter() {
            again += u64::from(self.note(page as u64));
        }
        Harvested {
            taken: noted.len() as u64,
            changed: outcome.changed.len() as u64,
            again,
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
        for (start, len) in self.changed_since(walk.since).runs() {
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

    fn each_payload<F: FnMut(&P)>(&self, visit: &mut F) {
        if let Some(payload) = self.payload.get() {
            visit(payload);
        }
    }
}
