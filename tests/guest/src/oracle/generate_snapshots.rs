// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chooses what is done with snapshots.

use super::backend::GatherCall;
use super::model::Model;
use super::op::Closing;
use super::op::Op;
use super::shot::Shot;
use crate::rng::Rng;

/// Chooses for one moment.
pub struct SnapshotChoice<'a> {
    rng: &'a mut Rng,
    model: &'a Model,
}

impl<'a> SnapshotChoice<'a> {
    /// With what is known at that moment.
    pub fn new(rng: &'a mut Rng, model: &'a Model) -> Self {
        Self { rng, model }
    }

    /// A commit whose snapshot gets that number.
    pub fn commit(self, shot: usize) -> Op {
        let epoch = self.model.epoch();
        let since = match self.rng.below(8) {
            0 => 0,
            1 => self.rng.below(epoch as usize + 1) as u64,
            2 | 3 => epoch.saturating_sub(self.rng.below(6) as u64),
            _ => epoch,
        };
        let reserve = match self.rng.below(4) {
            0 => self.rng.between(1, 20) as u64,
            1 => self.rng.between(1, self.model.geometry().dense_pages()) as u64,
            _ => 0,
        };
        Op::CommitWithSnapshot {
            shot,
            since,
            reserve,
        }
    }

    /// Something that is done with a snapshot.
    pub fn of(mut self, index: usize, shot: &Shot) -> Op {
        match self.rng.below(24) {
            0 => Op::CloseSnapshot {
                shot: index,
                how: match self.rng.below(6) {
                    0 => Closing::Kill,
                    1 => Closing::CloseBoth,
                    _ => Closing::Close,
                },
            },
            1..=2 => {
                let pgoff = self.page(shot);
                let pages = match self.rng.below(8) {
                    0 => u64::MAX,
                    1 => self.model.geometry().len_pages,
                    _ => self.rng.between(1, 40) as u64,
                };
                Op::Thaw {
                    shot: index,
                    pgoff,
                    pages,
                }
            }
            3..=4 => Op::SnapshotInfo { shot: index },
            _ => {
                let start = match self.rng.below(3) {
                    0 => self.page(shot),
                    _ => 0,
                };
                let buffer_pages = match self.rng.below(6) {
                    0 => 0,
                    1 => 1,
                    _ => *self.rng.pick(&[2, 3, 16, 64, 300]),
                };
                Op::Gather {
                    shot: index,
                    call: GatherCall {
                        start,
                        capacity: *self.rng.pick(&[1, 1, 2, 5, 64, 600]),
                        buffer_pages,
                        thaw: buffer_pages > 0 && self.rng.chance(1, 2),
                    },
                }
            }
        }
    }

    // Often where runs of held pages begin and end.
    fn page(&mut self, shot: &Shot) -> u64 {
        let edges = shot.edges();
        let dense = match self.rng.chance(1, 2) && !edges.is_empty() {
            true => *self.rng.pick(&edges),
            false => self.rng.below(self.model.geometry().dense_pages()),
        };
        self.model.geometry().pgoff(dense)
    }
}
