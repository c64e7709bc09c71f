// SPDX-License-Identifier: GPL-2.0-only
//! What an arena counts.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use crate::tracking::index::Harvested;

/// A number that only grows, told for people and never used to decide anything.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its value now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of an arena, as `struct ckpt_stats` documents them.
#[derive(Default)]
pub(crate) struct Stats {
    /// See `struct ckpt_stats`, as for all that follow.
    pub(crate) read_faults: Counter,
    pub(crate) write_faults: Counter,
    pub(crate) late_notes: Counter,
    pub(crate) commits: Counter,
    pub(crate) committed_pages: Counter,
    pub(crate) rearmed_spans: Counter,
    pub(crate) rearmed_pages: Counter,
    pub(crate) deltas: Counter,
    pub(crate) chunk_openings: Counter,
    pub(crate) kept_pages: Counter,
    pub(crate) closed_pages: Counter,
    pub(crate) direct_harvests: Counter,
    pub(crate) harvested_ptes: Counter,
    pub(crate) flushes: Counter,
    pub(crate) snapshots_made: Counter,
    pub(crate) snapshots_closed: Counter,
    pub(crate) frozen_pages: Counter,
    pub(crate) copied_pages: Counter,
    pub(crate) copy_waits: Counter,
    pub(crate) commit_ns: Counter,
    commit_ns_max: AtomicU64,
    commit_ns_last: AtomicU64,
}

impl Stats {
    /// Counts a commit that held writers up for `ns`.
    pub(crate) fn commit(&self, harvested: &Harvested, ns: u64) {
        self.commits.add(1);
        self.committed_pages.add(harvested.changed);
        self.kept_pages.add(harvested.kept);
        self.closed_pages.add(harvested.closed);
        self.harvested_ptes.add(harvested.looked);
        self.commit_ns.add(ns);
        self.commit_ns_max.fetch_max(ns, Ordering::Relaxed);
        self.commit_ns_last.store(ns, Ordering::Relaxed);
    }

    /// Counts a snapshot of so many pages.
    pub(crate) fn snapshot(&self, pages: u64) {
        self.snapshots_made.add(1);
        self.frozen_pages.add(pages);
    }

    /// Longest commit.
    pub(crate) fn commit_ns_max(&self) -> u64 {
        self.commit_ns_max.load(Ordering::Relaxed)
    }

    /// Last commit.
    pub(crate) fn commit_ns_last(&self) -> u64 {
        self.commit_ns_last.load(Ordering::Relaxed)
    }
}
