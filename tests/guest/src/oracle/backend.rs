// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is tested: something that holds pages and tells which have changed.

use super::op::Closing;
use super::op::Means;
use super::op::Op;
pub use crate::snapshot::Gathered;

/// What a commit tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The epoch closed.
    pub epoch: u64,
    /// Pages stamped.
    pub changed_pages: u64,
}

/// What one delta call tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaPart {
    /// The last commit when the call began.
    pub epoch: u64,
    /// First page and pages of each run.
    pub ranges: Vec<(u64, u64)>,
    /// The sum of the pages, as told.
    pub pages: u64,
    /// Where to go on, when there is more.
    pub next: Option<u64>,
}

/// What a commit with a snapshot tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMade {
    /// As of a plain commit.
    pub committed: Committed,
    /// Pages in the snapshot.
    pub pages: u64,
    /// How many of them may be copied aside.
    pub reserve_pages: u64,
}

/// What a snapshot tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// The commit that it shows.
    pub epoch: u64,
    /// The cursor that it was made for.
    pub since: u64,
    /// Pages that it was made with.
    pub pages: u64,
    /// Pages that it still has.
    pub held_pages: u64,
    /// Those of them that have been copied aside.
    pub copied_pages: u64,
    /// How many may be.
    pub reserve_pages: u64,
}

/// One GATHER call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherCall {
    /// First page of interest.
    pub start: u64,
    /// Ranges that fit.
    pub capacity: usize,
    /// Pages that fit; none when only the ranges are wanted.
    pub buffer_pages: usize,
    /// Whether what is handed over is thawed.
    pub thaw: bool,
}

/// What the arena tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The last commit.
    pub epoch: u64,
    /// Pages that have memory.
    pub resident_pages: u64,
    /// Pages noted since the last commit.
    pub changed_pages: u64,
    /// Whether that counts all of them. Where pages stay writable, writes to these are found by
    /// the next commit only.
    pub counts_all: bool,
}

/// An arena under test. Errors are words for people; any error is a finding.
pub trait Backend {
    /// Whether bytes can be written by these means here.
    fn supports(&self, means: Means) -> bool;
    /// Carries out an operation that gives nothing back.
    fn act(&mut self, op: &Op) -> Result<(), String>;
    /// Bytes read through a mapping of this process.
    fn load(&mut self, slot: usize, offset: usize, len: usize) -> Result<Vec<u8>, String>;
    /// Bytes read through the descriptor, from a byte offset of the arena.
    fn pread(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, String>;
    /// Closes the epoch.
    fn commit(&mut self) -> Result<Committed, String>;
    /// One delta call.
    fn delta(&mut self, since: u64, start: u64, capacity: usize) -> Result<DeltaPart, String>;
    /// The arena's facts.
    fn facts(&mut self) -> Result<Facts, String>;
    /// Whether it makes snapshots.
    fn makes_snapshots(&self) -> bool;
    /// Closes the epoch with a snapshot, which gets the number `shot`.
    fn commit_with_snapshot(
        &mut self,
        shot: usize,
        since: u64,
        reserve: u64,
    ) -> Result<SnapshotMade, String>;
    /// One gather call on a snapshot.
    fn gather(&mut self, shot: usize, call: &GatherCall) -> Result<Gathered, String>;
    /// Takes a range out of a snapshot.
    fn thaw(&mut self, shot: usize, pgoff: u64, pages: u64) -> Result<(), String>;
    /// A snapshot's facts.
    fn snapshot_facts(&mut self, shot: usize) -> Result<SnapshotFacts, String>;
    /// Gives a snapshot up.
    fn close_snapshot(&mut self, shot: usize, how: Closing) -> Result<(), String>;
}
