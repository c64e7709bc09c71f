// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tracker in plain memory, right or with one planted bug.

use super::backend::Backend;
use super::backend::Committed;
use super::backend::DeltaPart;
use super::backend::Facts;
use super::backend::GatherCall;
use super::backend::Gathered;
use super::backend::SnapshotFacts;
use super::backend::SnapshotMade;
use super::geometry::Geometry;
use super::mock_snapshots::MockShot;
use super::op::Advice;
use super::op::Closing;
use super::op::Means;
use super::op::Op;
use super::op::Place;
use super::op::Sweep;
use super::op::Write;
use crate::device::PAGE;

/// What is wrong with a mock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// Now and then a commit forgets one changed page.
    ForgetsAPage,
    /// What was written through a mapping is forgotten when it is unmapped.
    ForgetsOnUnmap,
    /// The same for MADV_DONTNEED.
    ForgetsOnDontNeed,
    /// The same for making pages read-only.
    ForgetsOnProtect,
    /// After a move a mapping's writes are not seen.
    ForgetsAfterMove,
    /// Writes by these means are not seen.
    ForgetsMeans(Means),
    /// The second page of a write that crosses a page boundary is not seen.
    ForgetsTheSecondPage,
    /// A page written in two epochs in a row is stamped only by the first.
    ForgetsTheSecondEpoch,
    /// A delta clears what it told, for all.
    ClearsForOthers,
    /// A cursor far behind gets only what the last few epochs changed.
    ForgetsOldEpochs,
    /// Going on starts one page too far.
    ResumesTooFar,
    /// The first page of a chunk of 512 is not told after the last of another.
    LosesChunkStart,
    /// Ranges end at chunk boundaries though the next page is told as well.
    SplitsRanges,
    /// A page that was only read is told.
    ReportsReads,
    /// A store that crosses a page boundary loses its second part.
    TearsStores,
    /// A page loses its content when it is unmapped.
    LosesContent,
    /// The count of a commit is one too high.
    Miscounts,
    /// An idle commit gives the old epoch again.
    RepeatsEpochs,
    /// More is told although all was.
    SaysMore,
    /// Writes of a loop are not seen in a page written in the epoch before.
    ForgetsLoops,
    /// What is moved elsewhere in part is forgotten.
    ForgetsOnSplit,
    /// Some pages are not copied aside.
    SnapshotShowsLater,
    /// Pages are not copied aside for writes by these means.
    SnapshotMisses(Means),
    /// The same for loops.
    SnapshotMissesLoops,
    /// Pages are copied aside for one snapshot only.
    SnapshotCopiesOnce,
    /// Half of a page is copied aside.
    SnapshotTearsCopies,
    /// Closing a snapshot takes copies from others.
    ClosingThawsOthers,
    /// Now and then a page is missing.
    SnapshotLosesAPage,
    /// Only what the last commit stamped is there.
    SnapshotIgnoresSince,
    /// Fewer copies may be made than were asked for, without a reason.
    SnapshotReservesLess,
    /// Thawed pages are counted as held.
    SnapshotMiscounts,
    /// Copies are not counted.
    SnapshotCountsNoCopies,
    /// The pages of a call come in the wrong order.
    GatherMixesPages,
    /// What is handed over is the page as it is now.
    GatherIgnoresCopies,
    /// What is handed over stays in the snapshot.
    GatherForgetsToThaw,
    /// Going on starts one page too far.
    GatherResumesTooFar,
    /// More is told although all was.
    GatherSaysMore,
    /// More is not told.
    GatherForgetsMore,
    /// Ranges end at chunk boundaries though the next page is told as well.
    GatherSplitsRanges,
    /// One page more than asked for.
    ThawsTooMuch,
    /// One page less than asked for.
    ThawsTooLittle,
}

pub struct Mock {
    geometry: Geometry,
    bug: Bug,
    bytes: Vec<u8>,
    stamps: Vec<u64>,
    changed: Vec<bool>,
    // What a right tracker would have noted: counts come from here, so that a
    // planted bug shows in a delta alone.
    truth: Vec<bool>,
    resident: Vec<bool>,
    slots: Vec<Option<(usize, usize)>>,
    shots: Vec<Option<MockShot>>,
    moved: Vec<bool>,
    epoch: u64,
    commits: u64,
    cleared_to: u64,
}

impl Mock {
    pub fn new(geometry: Geometry, bug: Bug) -> Self {
        let pages = geometry.dense_pages();
        Self {
            geometry,
            bug,
            bytes: vec![0; pages * PAGE],
            stamps: vec![0; pages],
            changed: vec![false; pages],
            truth: vec![false; pages],
            resident: vec![false; pages],
            slots: vec![None; 16],
            shots: (0..8).map(|_| None).collect(),
            moved: vec![false; 16],
            epoch: 0,
            commits: 0,
            cleared_to: 0,
        }
    }

    fn write(&mut self, write: &Write) {
        let (dense, moved) = match write.place {
            Place::Slot(slot) => (self.slots[slot].unwrap().0, self.moved[slot]),
            Place::Helper(window) => (self.geometry.windows()[window].dense, false),
        };
        let start = dense * PAGE + write.offset;
        let mut end = start + write.data.len();
        let first = start / PAGE;
        (first..=(end - 1) / PAGE).for_each(|page| self.copy_aside(Some(write.means), page));
        if self.bug == Bug::TearsStores && write.means == Means::Store {
            end = end.min((first + 1) * PAGE);
        }
        self.bytes[start..end].copy_from_slice(&write.data[..end - start]);
        for page in first..=(end - 1) / PAGE {
            self.resident[page] = true;
            let seen = match self.bug {
                Bug::ForgetsAfterMove => !moved,
                Bug::ForgetsMeans(means) => write.means != means,
                Bug::ForgetsTheSecondPage => page == first,
                Bug::ForgetsTheSecondEpoch => self.stamps[page] != self.epoch || self.epoch == 0,
                _ => true,
            };
            self.changed[page] |= seen;
            self.truth[page] = true;
        }
    }

    fn sweep(&mut self, sweep: &Sweep) {
        let (first, moved) = (self.slots[sweep.slot].unwrap().0, self.moved[sweep.slot]);
        for (offset, value) in sweep.stores() {
            let at = first * PAGE + offset;
            let page = at / PAGE;
            self.copy_aside(None, page);
            self.bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            self.resident[page] = true;
            self.truth[page] = true;
            self.changed[page] |= match self.bug {
                Bug::ForgetsLoops => self.stamps[page] != self.epoch || self.epoch == 0,
                Bug::ForgetsAfterMove => !moved,
                _ => true,
            };
        }
    }

    fn copy_aside(&mut self, means: Option<Means>, page: usize) {
        let now = &self.bytes[page * PAGE..(page + 1) * PAGE];
        for shot in self.shots.iter_mut().flatten() {
            let copied = shot.copy_aside(self.bug, means, page, now);
            if copied && self.bug == Bug::SnapshotCopiesOnce {
                break;
            }
        }
    }

    fn forget(&mut self, slot: usize, page: usize, pages: usize) {
        let first = self.slots[slot].unwrap().0 + page;
        self.changed[first..first + pages].fill(false);
    }

    fn told(&self, since: u64) -> Vec<u64> {
        let least = match self.bug {
            Bug::ForgetsOldEpochs => since.max(self.epoch.saturating_sub(6)),
            Bug::ClearsForOthers => since.max(self.cleared_to),
            _ => since,
        };
        let mut pages = Vec::new();
        for dense in 0..self.stamps.len() {
            let pgoff = self.geometry.pgoff(dense);
            let lost = self.bug == Bug::LosesChunkStart
                && pgoff % 512 == 0
                && pages.last() == Some(&pgoff.wrapping_sub(1));
            if self.stamps[dense] > least && !lost {
                pages.push(pgoff);
            }
        }
        pages
    }
}

impl Backend for Mock {
    fn supports(&self, _: Means) -> bool {
        true
    }

    fn act(&mut self, op: &Op) -> Result<(), String> {
        match *op {
            Op::Write(ref write) => self.write(write),
            Op::Sweep(ref sweep) => self.sweep(sweep),
            Op::Shrink { slot, pages } => {
                let (_, had) = self.slots[slot].unwrap();
                if self.bug == Bug::ForgetsOnUnmap {
                    self.forget(slot, pages, had - pages);
                }
                self.slots[slot].as_mut().unwrap().1 = pages;
            }
            Op::Split { slot, page, to } => {
                let (dense, had) = self.slots[slot].unwrap();
                if self.bug == Bug::ForgetsOnSplit {
                    self.forget(slot, page, had - page);
                }
                self.slots[slot] = Some((dense, page));
                self.slots[to] = Some((dense + page, had - page));
                self.moved[to] = false;
            }
            Op::Map { slot, dense, pages } => {
                self.slots[slot] = Some((dense, pages));
                self.moved[slot] = false;
            }
            Op::Unmap { slot } => {
                let (dense, pages) = self.slots[slot].unwrap();
                if self.bug == Bug::ForgetsOnUnmap {
                    self.forget(slot, 0, pages);
                }
                if self.bug == Bug::LosesContent {
                    self.bytes[dense * PAGE..(dense + pages) * PAGE].fill(0);
                }
                self.slots[slot] = None;
            }
            Op::Move { slot } => self.moved[slot] = true,
            Op::Protect {
                slot,
                page,
                pages,
                writable: false,
            } if self.bug == Bug::ForgetsOnProtect => self.forget(slot, page, pages),
            Op::Advise {
                slot,
                page,
                pages,
                advice,
            } => {
                let first = self.slots[slot].unwrap().0 + page;
                if advice != Advice::DontNeed {
                    self.resident[first..first + pages].fill(true);
                }
                if advice == Advice::PopulateWrite {
                    (first..first + pages).for_each(|page| self.copy_aside(None, page));
                }
                if self.bug == Bug::ForgetsOnDontNeed && advice == Advice::DontNeed {
                    self.forget(slot, page, pages);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn load(&mut self, slot: usize, offset: usize, len: usize) -> Result<Vec<u8>, String> {
        let start = self.slots[slot].unwrap().0 * PAGE + offset;
        let pages = start / PAGE..=(start + len - 1) / PAGE;
        self.resident[pages.clone()].fill(true);
        if self.bug == Bug::ReportsReads {
            self.changed[pages].fill(true);
        }
        Ok(self.bytes[start..start + len].to_vec())
    }

    fn pread(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let dense = self.geometry.dense(offset / PAGE as u64).unwrap();
        let start = dense * PAGE + offset as usize % PAGE;
        Ok(self.bytes[start..start + len].to_vec())
    }

    fn commit(&mut self) -> Result<Committed, String> {
        self.commits += 1;
        let mut changed: Vec<_> = (0..self.changed.len())
            .filter(|page| self.changed[*page])
            .collect();
        let idle = changed.is_empty();
        let mut counted = count(&self.truth);
        if self.bug == Bug::ForgetsAPage && self.commits % 20 == 0 {
            changed.pop();
        }
        if self.bug == Bug::Miscounts {
            counted += 1;
        }
        if !(idle && self.bug == Bug::RepeatsEpochs) {
            self.epoch += 1;
        }
        for page in changed {
            self.stamps[page] = self.epoch;
        }
        self.changed.fill(false);
        self.truth.fill(false);
        Ok(Committed {
            epoch: self.epoch,
            changed_pages: counted,
        })
    }

    fn delta(&mut self, since: u64, start: u64, capacity: usize) -> Result<DeltaPart, String> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut next = None;
        for pgoff in self.told(since).into_iter().filter(|pgoff| *pgoff >= start) {
            let splits = self.bug == Bug::SplitsRanges && pgoff % 512 == 0;
            let joins = |(first, pages): &(u64, u64)| first + pages == pgoff && !splits;
            if ranges.last().is_some_and(joins) {
                ranges.last_mut().unwrap().1 += 1;
            } else if ranges.len() < capacity {
                ranges.push((pgoff, 1));
            } else {
                next = Some(pgoff + u64::from(self.bug == Bug::ResumesTooFar));
                break;
            }
        }
        if self.bug == Bug::SaysMore && next.is_none() && !ranges.is_empty() {
            next = ranges.last().map(|(first, pages)| first + pages);
        }
        if next.is_none() {
            self.cleared_to = self.epoch;
        }
        Ok(DeltaPart {
            epoch: self.epoch,
            pages: ranges.iter().map(|(_, pages)| pages).sum(),
            ranges,
            next,
        })
    }

    fn facts(&mut self) -> Result<Facts, String> {
        Ok(Facts {
            epoch: self.epoch,
            resident_pages: count(&self.resident),
            changed_pages: count(&self.truth),
            counts_all: true,
        })
    }

    fn makes_snapshots(&self) -> bool {
        true
    }

    fn commit_with_snapshot(
        &mut self,
        shot: usize,
        since: u64,
        reserve: u64,
    ) -> Result<SnapshotMade, String> {
        if since > self.epoch {
            return Err("ERANGE".to_owned());
        }
        let committed = self.commit()?;
        let made = MockShot::new(self.bug, &self.stamps, since, self.epoch, reserve);
        let facts = made.facts;
        self.shots[shot] = Some(made);
        Ok(SnapshotMade {
            committed,
            pages: facts.pages,
            reserve_pages: facts.reserve_pages,
        })
    }

    fn gather(&mut self, shot: usize, call: &GatherCall) -> Result<Gathered, String> {
        let shot = self.shots[shot].as_mut().unwrap();
        Ok(shot.gather(self.bug, &self.geometry, &self.bytes, call))
    }

    fn thaw(&mut self, shot: usize, pgoff: u64, pages: u64) -> Result<(), String> {
        let shot = self.shots[shot].as_mut().unwrap();
        shot.thaw(self.bug, &self.geometry, pgoff, pages);
        Ok(())
    }

    fn snapshot_facts(&mut self, shot: usize) -> Result<SnapshotFacts, String> {
        Ok(self.shots[shot].as_ref().unwrap().told(self.bug))
    }

    fn close_snapshot(&mut self, shot: usize, _: Closing) -> Result<(), String> {
        self.shots[shot] = None;
        if self.bug == Bug::ClosingThawsOthers {
            let others = self.shots.iter_mut().flatten();
            others.for_each(MockShot::forget_copies);
        }
        Ok(())
    }
}

fn count(flags: &[bool]) -> u64 {
    flags.iter().filter(|flag| **flag).count() as u64
}
