// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which keys were written and are not durable yet: what an answer has to wait for.
//!
//! Not part of the state: a program that starts again has everything that it knows from a durable
//! commit.

use std::collections::HashSet;
use std::collections::VecDeque;

/// What an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but what the program began with.
    Nothing,
    /// This epoch.
    Epoch(u64),
    /// What is not committed yet.
    NextCommit,
}

/// Keys that are not durable.
#[derive(Default)]
pub struct Unsaved {
    /// Written since the last commit.
    open: HashSet<Vec<u8>>,
    /// Epochs that are on their way, and the keys written in them.
    on_their_way: VecDeque<(u64, HashSet<Vec<u8>>)>,
}

impl Unsaved {
    /// A key was written or removed.
    pub fn write(&mut self, key: &[u8]) {
        if !self.open.contains(key) {
            self.open.insert(key.to_vec());
        }
    }

    /// Keys written since the last commit.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Commits that are not durable.
    pub fn on_their_way(&self) -> usize {
        self.on_their_way.len()
    }

    /// What was written so far is in this epoch.
    pub fn commit(&mut self, epoch: u64) {
        let open = std::mem::take(&mut self.open);
        self.on_their_way.push_back((epoch, open));
    }

    /// All up to this epoch is durable.
    pub fn save(&mut self, durable: u64) {
        self.on_their_way.retain(|&(epoch, _)| epoch > durable);
    }

    /// What an answer about a key depends on.
    pub fn needs(&self, key: &[u8]) -> Needs {
        if self.open.contains(key) {
            return Needs::NextCommit;
        }
        let mut newest_first = self.on_their_way.iter().rev();
        let last = newest_first.find(|(_, keys)| keys.contains(key));
        last.map_or(Needs::Nothing, |&(epoch, _)| Needs::Epoch(epoch))
    }

    /// What an answer about all keys depends on.
    pub fn needs_all(&self) -> Needs {
        match (self.open.is_empty(), self.on_their_way.back()) {
            (false, _) => Needs::NextCommit,
            (true, Some(&(epoch, _))) => Needs::Epoch(epoch),
            (true, None) => Needs::Nothing,
        }
    }
}
