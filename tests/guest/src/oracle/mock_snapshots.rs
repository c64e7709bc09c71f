// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots of the tracker in plain memory: frozen pages, copied aside on the first
//! write, right or with a planted bug.

use super::backend::GatherCall;
use super::backend::Gathered;
use super::backend::SnapshotFacts;
use super::geometry::Geometry;
use super::mock::Bug;
use super::op::Means;
use crate::device::PAGE;

/// Pages held for a consumer.
pub struct MockShot {
    /// As told.
    pub facts: SnapshotFacts,
    held: Vec<bool>,
    copies: Vec<Option<Vec<u8>>>,
}

impl MockShot {
    /// The pages stamped after `since`.
    pub fn new(bug: Bug, stamps: &[u64], since: u64, epoch: u64, reserve: u64) -> Self {
        let least = match bug {
            Bug::SnapshotIgnoresSince => epoch - 1,
            _ => since,
        };
        let mut held: Vec<_> = stamps.iter().map(|stamp| *stamp > least).collect();
        let pages = held.iter().filter(|held| **held).count() as u64;
        if bug == Bug::SnapshotLosesAPage && epoch % 20 == 0 {
            if let Some(last) = held.iter().rposition(|held| *held) {
                held[last] = false;
            }
        }
        let reserve_pages = match (bug, reserve) {
            (Bug::SnapshotReservesLess, _) => pages / 2,
            (_, 0) => pages,
            _ => reserve.min(pages),
        };
        Self {
            facts: SnapshotFacts {
                epoch,
                since,
                pages,
                held_pages: pages,
                copied_pages: 0,
                reserve_pages,
            },
            copies: vec![None; held.len()],
            held,
        }
    }

    /// A page is about to be written. True when it was copied aside.
    pub fn copy_aside(&mut self, bug: Bug, means: Option<Means>, page: usize, now: &[u8]) -> bool {
        let skipped = match bug {
            Bug::SnapshotShowsLater => page % 7 == 0,
            Bug::SnapshotMisses(missed) => means == Some(missed),
            Bug::SnapshotMissesLoops => means.is_none(),
            _ => false,
        };
        if !self.held[page] || self.copies[page].is_some() || skipped {
            return false;
        }
        let mut copy = now.to_vec();
        if bug == Bug::SnapshotTearsCopies {
            copy[PAGE / 2..].fill(0);
        }
        self.copies[page] = Some(copy);
        true
    }

    /// One call.
    pub fn gather(
        &mut self,
        bug: Bug,
        geometry: &Geometry,
        bytes: &[u8],
        call: &GatherCall,
    ) -> Gathered {
        let mut told = Vec::new();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut next = None;
        for dense in 0..self.held.len() {
            let pgoff = geometry.pgoff(dense);
            if !self.held[dense] || pgoff < call.start {
                continue;
            }
            let splits = bug == Bug::GatherSplitsRanges && pgoff % 512 == 0;
            let joins = ranges
                .last()
                .is_some_and(|(first, pages)| first + pages == pgoff && !splits);
            let fits = call.buffer_pages == 0 || told.len() < call.buffer_pages;
            if !fits || (!joins && ranges.len() == call.capacity) {
                next = Some(pgoff + u64::from(bug == Bug::GatherResumesTooFar));
                break;
            }
            if joins {
                ranges.last_mut().unwrap().1 += 1;
            } else {
                ranges.push((pgoff, 1));
            }
            told.push(dense);
        }
        let mut content = Vec::new();
        if call.buffer_pages > 0 {
            let mut order = told.clone();
            if bug == Bug::GatherMixesPages {
                order.reverse();
            }
            for dense in order {
                match &self.copies[dense] {
                    Some(copy) if bug != Bug::GatherIgnoresCopies => content.extend(copy),
                    _ => content.extend(&bytes[dense * PAGE..(dense + 1) * PAGE]),
                }
            }
        }
        if call.thaw && bug != Bug::GatherForgetsToThaw {
            told.iter().for_each(|dense| self.held[*dense] = false);
        }
        if bug == Bug::GatherSaysMore && next.is_none() {
            next = ranges.last().map(|(first, pages)| first + pages);
        }
        if bug == Bug::GatherForgetsMore {
            next = None;
        }
        Gathered {
            pages: told.len() as u64,
            ranges,
            content,
            next,
        }
    }

    /// Takes a range out.
    pub fn thaw(&mut self, bug: Bug, geometry: &Geometry, pgoff: u64, pages: u64) {
        let pages = match bug {
            Bug::ThawsTooMuch => pages.saturating_add(1),
            Bug::ThawsTooLittle => pages - 1,
            _ => pages,
        };
        for dense in 0..self.held.len() {
            let at = geometry.pgoff(dense);
            if at >= pgoff && at - pgoff < pages {
                self.held[dense] = false;
            }
        }
    }

    /// Gives up all copies, as nobody but a bug would do.
    pub fn forget_copies(&mut self) {
        self.copies.fill(None);
    }

    /// What it tells.
    pub fn told(&self, bug: Bug) -> SnapshotFacts {
        let held = self.held.iter().filter(|held| **held).count() as u64;
        let copied = (0..self.held.len())
            .filter(|dense| self.held[*dense] && self.copies[*dense].is_some())
            .count() as u64;
        SnapshotFacts {
            held_pages: match bug {
                Bug::SnapshotMiscounts => self.facts.pages,
                _ => held,
            },
            copied_pages: match bug {
                Bug::SnapshotCountsNoCopies => 0,
                _ => copied,
            },
            ..self.facts
        }
    }
}
