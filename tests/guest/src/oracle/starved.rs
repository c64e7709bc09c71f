// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backend that is refused memory now and then, and tries again.
//!
//! The model knows nothing of that. So what failed for want of memory must have left all
//! as it was, or at least so that doing it again does what doing it once would have done:
//! an epoch that was closed although the call failed, a page lost, a page told twice are
//! findings like any other.

use super::backend::Backend;
use super::backend::Committed;
use super::backend::DeltaPart;
use super::backend::Facts;
use super::backend::GatherCall;
use super::backend::Gathered;
use super::backend::SnapshotFacts;
use super::backend::SnapshotMade;
use super::op::Closing;
use super::op::Means;
use super::op::Op;
use crate::starvation::Hungry;

// One in a hundred at the worst has to come through.
const ATTEMPTS: usize = 10_000;

/// Any backend, with every operation made while memory is refused.
pub struct Starved<B> {
    inner: B,
    hungry: Hungry,
    refusals: u64,
}

impl<B: Backend> Starved<B> {
    /// `hungry` is the thread that will use this.
    pub fn new(inner: B, hungry: Hungry) -> Self {
        Self {
            inner,
            hungry,
            refusals: 0,
        }
    }

    /// How often an operation failed for want of memory and was tried again.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// The backend, with all the memory it wants.
    pub fn into_inner(self) -> B {
        self.inner
    }

    fn insist<T>(&mut self, call: impl Fn(&mut B) -> Result<T, String>) -> Result<T, String> {
        for _ in 0..ATTEMPTS {
            let Self { inner, hungry, .. } = self;
            match hungry.during(|| call(inner)) {
                Err(message) if is_want_of_memory(&message) => self.refusals += 1,
                result => return result,
            }
        }
        Err(format!("refused {ATTEMPTS} times in a row"))
    }
}

/// By the words of the backend. The kernel says EFAULT when it cannot touch a page of the
/// arena itself, and EIO when it could not for another process; a copy that gets some way says
/// how far.
pub fn is_want_of_memory(message: &str) -> bool {
    const WORDS: &[&str] = &[
        "ENOMEM",
        "Cannot allocate memory",
        "EFAULT",
        "Bad address",
        "EIO",
        "Input/output error",
        "bytes read into the arena",
        "bytes written",
    ];
    WORDS.iter().any(|words| message.contains(words))
}

impl<B: Backend> Backend for Starved<B> {
    fn supports(&self, means: Means) -> bool {
        // What a read that fails has taken out of a pipe is gone.
        means != Means::ReadPipe && self.inner.supports(means)
    }

    fn act(&mut self, op: &Op) -> Result<(), String> {
        self.insist(|inner| inner.act(op))
    }

    fn load(&mut self, slot: usize, offset: usize, len: usize) -> Result<Vec<u8>, String> {
        self.insist(|inner| inner.load(slot, offset, len))
    }

    fn pread(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        self.insist(|inner| inner.pread(offset, len))
    }

    fn commit(&mut self) -> Result<Committed, String> {
        self.insist(|inner| inner.commit())
    }

    fn delta(&mut self, since: u64, start: u64, capacity: usize) -> Result<DeltaPart, String> {
        self.insist(|inner| inner.delta(since, start, capacity))
    }

    fn facts(&mut self) -> Result<Facts, String> {
        self.insist(|inner| inner.facts())
    }

    fn makes_snapshots(&self) -> bool {
        self.inner.makes_snapshots()
    }

    fn commit_with_snapshot(
        &mut self,
        shot: usize,
        since: u64,
        reserve: u64,
    ) -> Result<SnapshotMade, String> {
        // With all the memory it wants: for want of it, the epoch may be closed or not, which is
        // more than the model can follow. The copies that writers make come later.
        self.inner.commit_with_snapshot(shot, since, reserve)
    }

    fn gather(&mut self, shot: usize, call: &GatherCall) -> Result<Gathered, String> {
        self.insist(|inner| inner.gather(shot, call))
    }

    fn thaw(&mut self, shot: usize, pgoff: u64, pages: u64) -> Result<(), String> {
        self.insist(|inner| inner.thaw(shot, pgoff, pages))
    }

    fn snapshot_facts(&mut self, shot: usize) -> Result<SnapshotFacts, String> {
        self.insist(|inner| inner.snapshot_facts(shot))
    }

    fn close_snapshot(&mut self, shot: usize, how: Closing) -> Result<(), String> {
        self.insist(|inner| inner.close_snapshot(shot, how))
    }
}
