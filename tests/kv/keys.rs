// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was promised of each key.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// Keys that a writer changes at any time.
const IN_USE: usize = 40;
/// Keys of each writer, with those that come in place of others.
const KEYS: usize = 400;
/// So many broken promises are told.
const TOLD: u64 = 10;

/// A key. Only one client changes it, one change after the other.
///
/// What can be read at any moment is a change between `promised`, as it was before the request
/// was sent, and `sent`, as it is when the answer has come.
#[derive(Default)]
pub struct Key {
    /// The last change that was sent to the server.
    sent: AtomicU64,
    /// The last change of which a client knows: it was acknowledged, or somebody has read it.
    promised: AtomicU64,
    /// It is not changed any more, only read.
    retired: AtomicBool,
}

/// All keys.
pub struct Keys {
    keys: Vec<Key>,
    acknowledged: AtomicU64,
    reads: AtomicU64,
    broken: AtomicU64,
}

/// True for changes that remove the key. There is no key at the beginning either.
pub fn removes(change: u64) -> bool {
    change % 7 == 0
}

impl Keys {
    /// Of so many writers.
    pub fn new(writers: usize) -> Keys {
        Keys {
            keys: (0..writers * KEYS).map(|_| Key::default()).collect(),
            acknowledged: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// One of the keys that a writer changes.
    pub fn of(&self, writer: usize, number: u64) -> usize {
        let own = writer * KEYS..(writer + 1) * KEYS;
        let mut in_use = own.filter(|&key| !self.keys[key].retired.load(SeqCst));
        let number = number as usize % IN_USE;
        in_use.nth(number).expect("more keys than are ever retired")
    }

    /// A change of this key is on its way and may arrive at any time, so there are no more.
    pub fn retire(&self, key: usize) {
        self.keys[key].retired.store(true, SeqCst);
    }

    /// The next change of a key, which is about to be sent.
    pub fn change(&self, key: usize) -> u64 {
        self.keys[key].sent.fetch_add(1, SeqCst) + 1
    }

    /// The server has told that it did this change.
    pub fn acknowledge(&self, key: usize, change: u64) {
        self.keys[key].promised.fetch_max(change, SeqCst);
        self.acknowledged.fetch_add(1, SeqCst);
    }

    /// What may not be taken back any more; to be looked at before a request is sent.
    pub fn promised(&self, key: usize) -> u64 {
        self.keys[key].promised.load(SeqCst)
    }

    /// The server has told which change is the last of a key, `None` for one that removed it,
    /// when `promised` was true before it was asked.
    pub fn read(&self, key: usize, promised: u64, change: Option<u64>) {
        let sent = self.keys[key].sent.load(SeqCst);
        // Which removal it was cannot be seen: the first that it may have been.
        let seen = change.unwrap_or_else(|| promised.next_multiple_of(7));
        self.reads.fetch_add(1, SeqCst);
        let right = change.is_none_or(|change| !removes(change));
        if seen < promised || seen > sent || !right {
            self.break_promise(&format!(
                "key {key}: change {promised} was told, {sent} the last that was sent, and it is {change:?} now"
            ));
            return;
        }
        self.keys[key].promised.fetch_max(seen, SeqCst);
    }

    /// Something was not as it was promised to be.
    pub fn break_promise(&self, what: &str) {
        if self.broken.fetch_add(1, SeqCst) < TOLD {
            println!("{what}");
        }
    }

    /// Broken promises.
    pub fn broken(&self) -> u64 {
        self.broken.load(SeqCst)
    }

    /// Changes that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(SeqCst)
    }

    /// Reads that were answered.
    pub fn reads(&self) -> u64 {
        self.reads.load(SeqCst)
    }
}
