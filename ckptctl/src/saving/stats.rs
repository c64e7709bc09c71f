// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What commits have cost.

/// What the commits of a context did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Epochs closed.
    pub commits: u64,
    /// Of these, durable with a record of their own.
    pub saved: u64,
    /// Of these, given up because they could not be saved; a later one has what they had.
    pub given_up: u64,
    /// Commits that were saved synchronously because there could be no snapshot.
    pub fallbacks: u64,
    /// Commits that are on their way now.
    pub in_flight: u64,
    /// Commits that had to wait because too many were on their way.
    pub queue_waits: u64,
    /// How long they waited, all together.
    pub queue_wait_ns: u64,
    /// For how long commits held up writers, all together.
    pub pause_ns: u64,
    /// The longest of these pauses.
    pub pause_ns_max: u64,
    /// The last of them.
    pub pause_ns_last: u64,
    /// From the closing of an epoch until it was durable, all together.
    pub durable_ns: u64,
    /// The longest of these times.
    pub durable_ns_max: u64,
    /// The last of them.
    pub durable_ns_last: u64,
    /// Pages saved, zero pages among them, and those that needed not be stored.
    pub pages: u64,
    /// Bytes the chain grew by.
    pub stored_bytes: u64,
    /// Pages that the module copied aside because they were written before they were saved.
    pub copied_pages: u64,
    /// Times that a writer had to wait until its page was saved.
    pub writer_waits: u64,
    /// Pages that were written, but had their content already, and so were left out.
    pub unchanged_pages: u64,
    /// Pages that are like others, which are stored.
    pub shared_pages: u64,
}
