// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An arena for the oracles of threads, watched through a mapping that is only read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::mapping::Mapping;
use crate::oracle::threads::LANES;
use crate::oracle::threads::Lanes;
use crate::oracle::threads::Tracked;
use crate::oracle::views::Frozen;
use crate::oracle::views::Handed;
use crate::oracle::views::Words;
use crate::snapshot::Snapshot;
use crate::snapshot::commit_with_snapshot;
use crate::writer::LANE_BYTES;

/// An arena and what its writers have done.
pub struct Watched {
    /// The arena.
    pub arena: Arena,
    /// For each lane, see [`Tracked::done`].
    pub done: [AtomicU64; LANES],
    map: Mapping,
    exact: bool,
    snapshots: AtomicU64,
}

impl Watched {
    /// A new arena. Without `exact`, the kernel writes to it, too.
    pub fn new(pages: u64, exact: bool) -> Result<Self, Failure> {
        let arena = Device::open()?.create("torture", pages)?;
        let map = Mapping::new(&arena, 0, pages, libc::PROT_READ, libc::MAP_SHARED)?;
        let done = std::array::from_fn(|_| AtomicU64::new(u64::MAX));
        Ok(Self {
            arena,
            map,
            done,
            exact,
            snapshots: AtomicU64::new(0),
        })
    }

    fn word(&self, page: usize, word: usize) -> u64 {
        let source = std::ptr::with_exposed_provenance_mut(self.map.at(page * PAGE + word * 8));
        // SAFETY: aligned, and inside the mapping, which lives as long as self.
        unsafe { AtomicU64::from_ptr(source) }.load(Ordering::Relaxed)
    }

    /// The largest number in a lane.
    pub fn newest(&self, lane: usize) -> u64 {
        (0..self.pages())
            .map(|page| self.lanes(page)[lane])
            .max()
            .unwrap_or(0)
    }
}

impl Tracked for Watched {
    fn pages(&self) -> usize {
        self.arena.len_pages() as usize
    }

    fn lanes(&self, page: usize) -> Lanes {
        std::array::from_fn(|lane| self.word(page, lane * LANE_BYTES / 8))
    }

    fn done(&self, lane: usize) -> u64 {
        self.done[lane].load(Ordering::Acquire)
    }

    fn commit(&self) -> Result<u64, String> {
        let commit = self
            .arena
            .commit()
            .map_err(|errno| format!("COMMIT: {errno}"))?;
        Ok(commit.epoch)
    }

    fn delta(&self, since: u64) -> Result<Vec<usize>, String> {
        let delta = self
            .arena
            .delta(since)
            .map_err(|errno| format!("DELTA: {errno}"))?;
        Ok(delta.pages().iter().map(|page| *page as usize).collect())
    }
}

impl Frozen for Watched {
    type Snapshot = Snapshot;

    fn commit_with_snapshot(&self, since: u64, tight: bool) -> Result<(u64, Snapshot), String> {
        let number = self.snapshots.fetch_add(1, Ordering::Relaxed);
        let reserve = if tight { 1 + number % 4 } else { 0 };
        commit_with_snapshot(&self.arena, since, reserve)
            .map(|(snapshot, commit)| (commit.epoch, snapshot))
            .map_err(|errno| format!("COMMIT with a snapshot: {errno}"))
    }

    fn gather(
        &self,
        snapshot: &Snapshot,
        start: u64,
        most: usize,
        thaw: bool,
    ) -> Result<Handed, String> {
        let flags = if thaw { abi::CKPT_GATHER_THAW } else { 0 };
        let part = snapshot
            .gather(start, most, most, flags)
            .map_err(|errno| format!("GATHER: {errno}"))?;
        let pages = part
            .pages_with_content()
            .map(|(pgoff, content)| (pgoff as usize, words_of(content)))
            .collect();
        Ok((pages, part.next))
    }

    fn words(&self, page: usize) -> Words {
        std::array::from_fn(|word| self.word(page, word))
    }

    fn is_exact(&self) -> bool {
        self.exact
    }
}

fn words_of(content: &[u8]) -> Words {
    std::array::from_fn(|word| {
        u64::from_ne_bytes(std::array::from_fn(|byte| content[word * 8 + byte]))
    })
}
