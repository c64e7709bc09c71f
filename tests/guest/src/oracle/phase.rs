// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Phases of writing: what makes chunks of an arena hot, and cold again.
//!
//! A tracker may learn from what was written before. So a run has phases of some
//! commits each, in which the same pages are written again and again, or others
//! every time, or none.

use super::geometry::Geometry;
use super::model::Slot;
use super::op::Sweep;
use crate::rng::Rng;

/// What is written besides single operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing: only single operations.
    Quiet,
    /// All pages of a run.
    Dense,
    /// Pages of a run that lie apart, always the same.
    Sparse,
    /// Pages of a run that lie apart, others each time.
    Scattered,
    /// A run that goes on a bit further with every commit.
    Moving,
    /// Hardly anything happens between commits.
    Idle,
}

/// The phase that a run is in.
pub struct Phase {
    kind: Kind,
    /// Dense pages.
    first: usize,
    pages: usize,
    stride: usize,
    commits_left: usize,
}

impl Phase {
    /// The first phase of a run.
    pub fn new() -> Self {
        Self {
            kind: Kind::Quiet,
            first: 0,
            pages: 1,
            stride: 1,
            commits_left: 0,
        }
    }

    /// Whether little is written now.
    pub fn is_idle(&self) -> bool {
        self.kind == Kind::Idle
    }

    /// A commit was made; perhaps something else begins.
    pub fn committed(&mut self, rng: &mut Rng, geometry: &Geometry) {
        if self.kind == Kind::Moving {
            self.first += rng.below(self.pages.div_ceil(4) + 1);
        }
        if self.commits_left > 0 {
            self.commits_left -= 1;
            return;
        }
        let kinds = [
            Kind::Quiet,
            Kind::Dense,
            Kind::Dense,
            Kind::Sparse,
            Kind::Scattered,
            Kind::Moving,
            Kind::Idle,
        ];
        self.kind = *rng.pick(&kinds);
        self.commits_left = rng.between(3, 16);
        // Often what was hot before stays in question: it cools down, or gets hot again.
        if rng.chance(1, 3) {
            return;
        }
        let window = rng.pick(geometry.windows());
        let first = rng.below(window.pages);
        // From a few pages to all of a chunk, and over its end.
        let most = *rng.pick(&[8, 40, 200, 600]);
        self.pages = rng.between(1, most.min(window.pages - first));
        self.first = window.dense + first;
        self.stride = rng.between(2, 40);
    }

    /// Stores of this phase through a mapping, if it writes there now.
    pub fn sweep(&self, rng: &mut Rng, index: usize, slot: &Slot) -> Option<Sweep> {
        let stride = match self.kind {
            Kind::Quiet | Kind::Idle => return None,
            Kind::Dense | Kind::Moving => 1,
            Kind::Sparse => self.stride,
            Kind::Scattered => rng.between(1, 50),
        };
        let end = slot.dense + slot.writable.len();
        let mut from = self.first.max(slot.dense);
        if self.kind == Kind::Scattered {
            from += rng.below(stride);
        }
        let to = (self.first + self.pages).min(end);
        let count = (from..to)
            .step_by(stride)
            .take_while(|dense| slot.writable[dense - slot.dense])
            .count();
        (count > 0).then(|| Sweep {
            slot: index,
            page: from - slot.dense,
            stride,
            count,
            // The fewer pages, the more stores in each.
            words: rng.between(1, (2048 / count).clamp(1, 100)),
            seed: rng.next(),
        })
    }
}
