// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chooses operations that are possible now, from the seed alone.

use super::cursor::Cursor;
use super::generate_snapshots::SnapshotChoice;
use super::model::Model;
use super::model::Slot;
use super::op::Advice;
use super::op::Means;
use super::op::Op;
use super::op::Place;
use super::op::Watch;
use super::op::Write;
use super::phase::Phase;
use super::shot::Shot;
use crate::device::PAGE;
use crate::rng::Rng;

/// What the choice depends on besides model and cursors.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Operations from one commit to the next, on average.
    pub commit_every: usize,
    /// Means that this machine can do.
    pub means: Vec<Means>,
    /// The file that some means read.
    pub source: Vec<u8>,
    /// Whether commits with snapshots are made.
    pub snapshots: bool,
}

/// Chooses operations.
pub struct Generator {
    rng: Rng,
    habits: Habits,
    phase: Phase,
    recent: Vec<usize>,
    committed_just_now: bool,
}

impl Generator {
    /// The generator of a seed.
    pub fn new(seed: u64, habits: Habits) -> Self {
        Self {
            rng: Rng::new(seed),
            habits,
            phase: Phase::new(),
            recent: Vec::new(),
            committed_just_now: false,
        }
    }

    /// The next operation.
    pub fn next(&mut self, model: &Model, cursors: &[Cursor], shots: &[Option<Shot>]) -> Op {
        if std::mem::take(&mut self.committed_just_now) && self.rng.chance(1, 2) {
            // The usual consumer: it follows every commit.
            return self.delta_of(cursors, 0);
        }
        let commit_every = match self.phase.is_idle() {
            true => 4,
            false => self.habits.commit_every,
        };
        if self.rng.chance(1, commit_every) {
            self.committed_just_now = true;
            self.phase.committed(&mut self.rng, model.geometry());
            return self.commit(model, shots);
        }
        let most = if self.phase.is_idle() { 40 } else { 112 };
        loop {
            let op = match 111 - self.rng.below(most) {
                0..=56 => self.write(model),
                57..=64 => self.sweep(model),
                65..=71 => self.load(model),
                72 => Some(self.pread(model)),
                73 => self.watch(model),
                74..=76 => self.part(model),
                77..=84 => Some(self.mapping(model)),
                85..=87 => self.protect(model),
                88..=90 => self.advise(model),
                91 => self.refused(model),
                92 => self.rng.chance(1, 8).then_some(Op::Fork),
                93 => self.rng.chance(1, 4).then(|| self.helper_mapping(model)),
                94..=95 => Some(Op::Info),
                96..=103 => self.snapshot(model, shots),
                _ => Some(self.cursor(cursors)),
            };
            if let Some(op) = op {
                return op;
            }
        }
    }

    fn commit(&mut self, model: &Model, shots: &[Option<Shot>]) -> Op {
        if !self.habits.snapshots || !self.rng.chance(1, 2) {
            return Op::Commit;
        }
        match shots.iter().position(Option::is_none) {
            Some(shot) => SnapshotChoice::new(&mut self.rng, model).commit(shot),
            None => Op::Commit,
        }
    }

    fn snapshot(&mut self, model: &Model, shots: &[Option<Shot>]) -> Option<Op> {
        let index = self.rng.below(shots.len());
        let shot = shots[index].as_ref()?;
        Some(SnapshotChoice::new(&mut self.rng, model).of(index, shot))
    }

    fn sweep(&mut self, model: &Model) -> Option<Op> {
        let (index, slot) = self.slot(model)?;
        self.phase.sweep(&mut self.rng, index, slot).map(Op::Sweep)
    }

    fn watch(&mut self, model: &Model) -> Option<Op> {
        let (slot, mapped) = self.slot(model)?;
        let (page, pages) = self.run_of(mapped.writable.len());
        let watch = match self.rng.below(100) {
            0 => Watch::Compact,
            1..=5 => Watch::ClearReferenced,
            6..=10 => Watch::ClearSoftDirty,
            11..=30 => Watch::Register,
            31..=70 => Watch::Protect,
            _ => Watch::Unprotect,
        };
        Some(Op::Watch {
            slot,
            page,
            pages,
            watch,
        })
    }

    // A mapping is changed in part.
    fn part(&mut self, model: &Model) -> Option<Op> {
        let (slot, mapped) = self.slot(model)?;
        let len = mapped.writable.len();
        let (page, pages) = self.run_of(len);
        match self.rng.below(8) {
            0 if page > 0 => Some(Op::Shrink { slot, pages: page }),
            1..=2 if page > 0 => {
                let to = model.slots.iter().position(Option::is_none)?;
                Some(Op::Split { slot, page, to })
            }
            _ => Some(Op::Replace { slot, page, pages }),
        }
    }

    fn write(&mut self, model: &Model) -> Option<Op> {
        let means = match self.rng.below(100) {
            0..=39 => Means::Store,
            40..=54 => Means::Copy,
            55..=64 => Means::Fill,
            65..=69 => Means::Exchange,
            _ => *self.rng.pick(Means::ALL),
        };
        // Some cost a hundred times what a store does.
        let dear = matches!(
            means,
            Means::HelperPoke | Means::HelperCopy | Means::VmWrite | Means::ReadDirect
        );
        if !self.habits.means.contains(&means) || (dear && !self.rng.chance(1, 6)) {
            return None;
        }
        let (place, first, writable) = self.place(model, means)?;
        // A run of writable pages from a chosen page on.
        let page = self.page_of(model, first, writable.len());
        let run = writable[page..].iter().take_while(|is| **is).count().min(4);
        if run == 0 {
            return None;
        }
        self.recent.push(first + page);
        if self.recent.len() > 32 {
            self.recent.remove(0);
        }
        let (start, len, source) = self.extent(means, run * PAGE);
        let offset = page * PAGE + start;
        let data = match means {
            Means::ReadFile | Means::ReadDirect => {
                self.habits.source[source..source + len].to_vec()
            }
            Means::Fill => vec![self.rng.next() as u8; len],
            // Writing what is there already is writing, too.
            _ if self.rng.chance(1, 12) => model.bytes(first * PAGE + offset, len),
            _ => self.rng.bytes(len),
        };
        Some(Op::Write(Write {
            means,
            place,
            offset,
            data,
            source,
        }))
    }

    // A mapping for these means: its first dense page, and which pages are writable.
    fn place(&mut self, model: &Model, means: Means) -> Option<(Place, usize, Vec<bool>)> {
        if means.needs_helper_mapping() {
            let windows = model.geometry().windows();
            let index = self.rng.below(windows.len());
            let window = &windows[index];
            return Some((Place::Helper(index), window.dense, vec![true; window.pages]));
        }
        let (index, slot) = self.slot(model)?;
        Some((Place::Slot(index), slot.dense, slot.writable.clone()))
    }

    // First byte, number of bytes, and place in the source, within `space` bytes.
    fn extent(&mut self, means: Means, space: usize) -> (usize, usize, usize) {
        let source_pages = self.habits.source.len() / PAGE;
        match means {
            Means::Store => {
                let len = *self.rng.pick(&[1, 2, 4, 8]);
                // Every fourth near the end of the first page, to straddle it.
                let start = if self.rng.chance(1, 4) {
                    PAGE - self.rng.between(1, 8)
                } else {
                    self.rng.below(PAGE)
                };
                (start.min(space - len), len, 0)
            }
            Means::Exchange | Means::HelperPoke => (self.rng.below(PAGE / 8) * 8, 8, 0),
            Means::ReadDirect => {
                let pages = self.rng.between(1, (space / PAGE).min(source_pages));
                let source = self.rng.below(source_pages - pages + 1);
                (0, pages * PAGE, source * PAGE)
            }
            _ => {
                let start = self.rng.below(PAGE);
                let most = if self.rng.chance(1, 10) {
                    space - start
                } else {
                    200
                };
                let len = self.rng.between(1, most.min(space - start));
                (
                    start,
                    len,
                    self.rng.below(self.habits.source.len() - len + 1),
                )
            }
        }
    }

    // A page of a run: anywhere, one written lately, or one beside a boundary.
    fn page_of(&mut self, model: &Model, first: usize, pages: usize) -> usize {
        let inside = |dense: usize| dense.checked_sub(first).filter(|page| *page < pages);
        let chosen = match self.rng.below(3) {
            0 if !self.recent.is_empty() => inside(*self.rng.pick(&self.recent)),
            1 => {
                let pgoff = model.geometry().pgoff(first);
                let to_chunk_end = (511 - pgoff % 512) as usize;
                let edges = [0, pages - 1, to_chunk_end, to_chunk_end + 1];
                Some(*self.rng.pick(&edges)).filter(|page| *page < pages)
            }
            _ => None,
        };
        chosen.unwrap_or_else(|| self.rng.below(pages))
    }

    fn slot<'a>(&mut self, model: &'a Model) -> Option<(usize, &'a Slot)> {
        let index = self.rng.below(model.slots.len());
        model.slots[index].as_ref().map(|slot| (index, slot))
    }

    // A run of pages of a mapping.
    fn run_of(&mut self, pages: usize) -> (usize, usize) {
        let page = self.rng.below(pages);
        (page, self.rng.between(1, (pages - page).min(16)))
    }

    fn load(&mut self, model: &Model) -> Option<Op> {
        let (index, slot) = self.slot(model)?;
        let bytes = slot.writable.len() * PAGE;
        let page = self.page_of(model, slot.dense, slot.writable.len());
        let offset = page * PAGE + self.rng.below(PAGE);
        let len = self.rng.between(1, (bytes - offset).min(300));
        Some(Op::Load {
            slot: index,
            offset,
            len,
        })
    }

    fn pread(&mut self, model: &Model) -> Op {
        let windows = model.geometry().windows();
        let window = self.rng.below(windows.len());
        let bytes = windows[window].pages * PAGE;
        let offset = self.rng.below(bytes);
        let most = if self.rng.chance(1, 8) { 5 * PAGE } else { 200 };
        let len = self.rng.between(1, (bytes - offset).min(most));
        Op::Pread {
            window,
            offset,
            len,
        }
    }

    fn mapping(&mut self, model: &Model) -> Op {
        let slot = self.rng.below(model.slots.len());
        if model.slots[slot].is_some() {
            return if self.rng.chance(1, 2) {
                Op::Move { slot }
            } else {
                Op::Unmap { slot }
            };
        }
        let window = self.rng.pick(model.geometry().windows()).clone();
        // Often the whole window, so that most of it can be written most of the time.
        let (first, pages) = if self.rng.chance(1, 2) {
            (0, window.pages)
        } else {
            let first = self.rng.below(window.pages);
            (first, self.rng.between(1, window.pages - first))
        };
        Op::Map {
            slot,
            dense: window.dense + first,
            pages,
        }
    }

    fn protect(&mut self, model: &Model) -> Option<Op> {
        let (index, slot) = self.slot(model)?;
        let (page, pages) = self.run_of(slot.writable.len());
        Some(Op::Protect {
            slot: index,
            page,
            pages,
            // Read-only pages are the exception, or little could be written.
            writable: self.rng.chance(2, 3),
        })
    }

    fn advise(&mut self, model: &Model) -> Option<Op> {
        let (index, slot) = self.slot(model)?;
        let (page, pages) = self.run_of(slot.writable.len());
        let advice = match self.rng.below(8) {
            0 => Advice::PopulateRead,
            1 if slot.writable[page..page + pages].iter().all(|is| *is) => Advice::PopulateWrite,
            _ => Advice::DontNeed,
        };
        Some(Op::Advise {
            slot: index,
            page,
            pages,
            advice,
        })
    }

    fn refused(&mut self, model: &Model) -> Option<Op> {
        let (index, slot) = self.slot(model)?;
        let page = self.rng.below(slot.writable.len());
        (!slot.writable[page]).then_some(Op::Refused { slot: index, page })
    }

    fn helper_mapping(&mut self, model: &Model) -> Op {
        let window = self.rng.below(model.geometry().windows().len());
        if self.rng.chance(1, 2) {
            Op::HelperRemap { window }
        } else {
            Op::HelperDontNeed { window }
        }
    }

    fn cursor(&mut self, cursors: &[Cursor]) -> Op {
        // The first cursors are used most: some stay close to the last commit, some fall back.
        let cursor = self
            .rng
            .below(cursors.len())
            .min(self.rng.below(cursors.len()));
        if self.rng.chance(1, 200) {
            Op::Reset { cursor }
        } else {
            self.delta_of(cursors, cursor)
        }
    }

    fn delta_of(&mut self, cursors: &[Cursor], cursor: usize) -> Op {
        let capacity = *self.rng.pick(&[1, 1, 2, 3, 7, 64, 1000]);
        if cursors[cursor].is_taking() {
            Op::DeltaMore { cursor, capacity }
        } else {
            Op::DeltaBegin { cursor, capacity }
        }
    }
}
