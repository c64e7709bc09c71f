// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is tested: something that holds pages and tells which have changed.

use super::op::Means;
use super::op::Op;

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

/// What the arena tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The last commit.
    pub epoch: u64,
    /// Pages that have memory.
    pub resident_pages: u64,
    /// Pages noted since the last commit.
    pub changed_pages: u64,
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
}
