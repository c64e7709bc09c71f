// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries out operations on an arena and on the model, and compares.

use std::collections::VecDeque;
use std::fmt;

use super::backend::Backend;
use super::backend::Committed;
use super::cursor::Cursor;
use super::generate::Generator;
use super::generate::Habits;
use super::geometry::Geometry;
use super::model::Model;
use super::model::Slot;
use super::op::Advice;
use super::op::Means;
use super::op::Op;
use super::op::Place;
use super::snapshots::Counts;
use super::snapshots::Snapshots;
use crate::device::PAGE;
use crate::rng::Rng;

const SLOTS: usize = 5;
const CURSORS: usize = 4;
const SHOWN_OPS: usize = 60;
/// A device may keep its pins for a moment; many commits are longer than that.
const SETTLING_COMMITS: usize = 100_000;

/// One run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Gives the operations, together with the geometry.
    pub seed: u64,
    /// How many of them, at least. Every store of a loop counts.
    pub ops: usize,
    /// The pages used.
    pub geometry: Geometry,
}

/// What a run found wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    message: String,
    config: Config,
    ops_done: usize,
    last_ops: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} (geometry {}, seed {}, operation {})",
            self.message, self.config.geometry.name, self.config.seed, self.ops_done
        )?;
        writeln!(f, "the last operations:")?;
        for op in &self.last_ops {
            writeln!(f, "  {op}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Finding {}

/// What a run without findings did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Operations.
    pub ops: usize,
    /// Of these, commits.
    pub commits: usize,
    /// Of these, deltas taken to their end.
    pub deltas: usize,
    /// Of these, writes.
    pub writes: usize,
    /// What was done with snapshots.
    pub snapshots: Counts,
}

/// The bytes of the file that some means read: whole pages.
pub fn source(seed: u64) -> Vec<u8> {
    Rng::new(seed ^ 0x736f_7572_6365).bytes(16 * PAGE)
}

/// Runs operations until one finds something wrong or all are done.
pub fn run(backend: &mut impl Backend, config: &Config) -> Result<Summary, Box<Finding>> {
    let mut last_ops = VecDeque::new();
    let mut summary = Summary::default();
    let mut oracle = Oracle::new(backend, config);
    let outcome = oracle.run(config, &mut summary, &mut last_ops);
    match outcome {
        Ok(()) => Ok(summary),
        Err(message) => Err(Box::new(Finding {
            message,
            config: config.clone(),
            ops_done: summary.ops,
            last_ops: last_ops.into(),
        })),
    }
}

struct Oracle<'a, B> {
    backend: &'a mut B,
    model: Model,
    cursors: Vec<Cursor>,
    snapshots: Snapshots,
    generator: Generator,
    // All pages are compared at every so many-th commit: often in a small arena.
    compare_every: usize,
}

impl<'a, B: Backend> Oracle<'a, B> {
    fn new(backend: &'a mut B, config: &Config) -> Self {
        let pages = config.geometry.dense_pages();
        let habits = Habits {
            commit_every: (pages / 8).clamp(25, 120),
            means: Means::ALL
                .iter()
                .copied()
                .filter(|means| backend.supports(*means))
                .collect(),
            source: source(config.seed),
            snapshots: backend.makes_snapshots(),
        };
        let model = Model::new(config.geometry.clone(), SLOTS, 0);
        Self {
            cursors: (0..CURSORS).map(|_| Cursor::new(&model)).collect(),
            model,
            snapshots: Snapshots::new(),
            generator: Generator::new(config.seed, habits),
            compare_every: (pages / 32).max(1),
            backend,
        }
    }

    fn run(
        &mut self,
        config: &Config,
        summary: &mut Summary,
        last_ops: &mut VecDeque<String>,
    ) -> Result<(), String> {
        while summary.ops < config.ops {
            let shots = self.snapshots.shots();
            let op = self.generator.next(&self.model, &self.cursors, shots);
            if last_ops.len() == SHOWN_OPS {
                last_ops.pop_front();
            }
            last_ops.push_back(op.to_string());
            summary.ops += op.weight();
            self.step(&op, summary)
                .map_err(|message| format!("{op}: {message}"))?;
        }
        // What is still open is closed and told, so that the last operations count, too.
        self.snapshots
            .finish(self.backend, &self.model, &mut summary.snapshots)?;
        self.commit(summary)?;
        for cursor in 0..self.cursors.len() {
            while self.cursors[cursor].is_taking() {
                self.take(cursor, 64, summary)?;
            }
            self.cursors[cursor].begin(&self.model);
            while self.cursors[cursor].is_taking() {
                self.take(cursor, 64, summary)?;
            }
        }
        self.compare_content()
    }

    fn step(&mut self, op: &Op, summary: &mut Summary) -> Result<(), String> {
        match op {
            Op::Commit => return self.commit(summary),
            Op::Info => return self.compare_facts(),
            Op::Reset { cursor } => self.cursors[*cursor] = Cursor::new(&self.model),
            Op::DeltaBegin { cursor, capacity } => {
                self.cursors[*cursor].begin(&self.model);
                return self.take(*cursor, *capacity, summary);
            }
            Op::DeltaMore { cursor, capacity } => return self.take(*cursor, *capacity, summary),
            Op::CommitWithSnapshot { .. } => return self.commit_with_snapshot(op, summary),
            Op::Gather { .. }
            | Op::Thaw { .. }
            | Op::SnapshotInfo { .. }
            | Op::CloseSnapshot { .. } => {
                let counts = &mut summary.snapshots;
                return self.snapshots.act(self.backend, &self.model, op, counts);
            }
            Op::Load { slot, offset, len } => return self.load(*slot, *offset, *len),
            Op::Pread {
                window,
                offset,
                len,
            } => return self.pread(*window, *offset, *len),
            _ => {
                let (pages, written) = self.touched(op);
                let counts = &mut summary.snapshots;
                self.snapshots
                    .make_room(self.backend, &self.model, &pages, counts)?;
                self.backend.act(op)?;
                if written {
                    summary.writes += op.weight();
                }
                self.snapshots.disturb(&pages, written);
                self.note(op);
            }
        }
        Ok(())
    }

    // The dense pages that an operation touches for writing, and whether it writes to them.
    fn touched(&self, op: &Op) -> (Vec<usize>, bool) {
        match op {
            Op::Write(write) => {
                let start = self.dense_of(write.place) * PAGE + write.offset;
                let last = start + write.data.len() - 1;
                ((start / PAGE..=last / PAGE).collect(), true)
            }
            Op::Sweep(sweep) => {
                let first = self.slot(sweep.slot).dense;
                (sweep.pages().map(|page| first + page).collect(), true)
            }
            Op::Advise {
                slot,
                page,
                pages,
                advice: Advice::PopulateWrite,
            } => {
                let first = self.slot(*slot).dense + page;
                ((first..first + pages).collect(), false)
            }
            _ => (Vec::new(), false),
        }
    }

    fn dense_of(&self, place: Place) -> usize {
        match place {
            Place::Slot(slot) => self.slot(slot).dense,
            Place::Helper(window) => self.model.geometry().windows()[window].dense,
        }
    }

    // What an operation that was carried out means for the model.
    fn note(&mut self, op: &Op) {
        match op {
            Op::Write(write) => {
                let offset = self.dense_of(write.place) * PAGE + write.offset;
                if write.means == Means::ReadDirect {
                    self.model.dma(offset, &write.data);
                } else {
                    self.model.write(offset, &write.data);
                }
            }
            Op::Map { slot, dense, pages } => {
                self.model.slots[*slot] = Some(Slot {
                    dense: *dense,
                    writable: vec![true; *pages],
                });
            }
            Op::Sweep(sweep) => {
                let first = self.slot(sweep.slot).dense * PAGE;
                for (offset, value) in sweep.stores() {
                    self.model.store_word(first + offset, value);
                }
            }
            Op::Unmap { slot } => self.model.slots[*slot] = None,
            Op::Replace { slot, page, pages } => {
                if let Some(slot) = &mut self.model.slots[*slot] {
                    slot.writable[*page..*page + *pages].fill(true);
                }
            }
            Op::Shrink { slot, pages } => {
                if let Some(slot) = &mut self.model.slots[*slot] {
                    slot.writable.truncate(*pages);
                }
            }
            Op::Split { slot, page, to } => {
                if let Some(slot) = &mut self.model.slots[*slot] {
                    let tail = Slot {
                        dense: slot.dense + page,
                        writable: slot.writable.split_off(*page),
                    };
                    self.model.slots[*to] = Some(tail);
                }
            }
            Op::Protect {
                slot,
                page,
                pages,
                writable,
            } => {
                if let Some(slot) = &mut self.model.slots[*slot] {
                    slot.writable[*page..*page + *pages].fill(*writable);
                }
            }
            Op::Advise {
                slot,
                page,
                pages,
                advice,
            } => {
                let first = self.slot(*slot).dense + page;
                match advice {
                    Advice::DontNeed => {}
                    Advice::PopulateRead => {
                        self.model.touch_for_reading(first * PAGE, pages * PAGE);
                    }
                    Advice::PopulateWrite => {
                        (first..first + pages)
                            .for_each(|dense| self.model.touch_for_writing(dense));
                    }
                }
            }
            Op::Refused { slot, page } => {
                let dense = self.slot(*slot).dense + page;
                self.model.perhaps_faulted(dense);
            }
            _ => {}
        }
    }

    fn slot(&self, index: usize) -> &Slot {
        self.model.slots[index]
            .as_ref()
            .expect("the generator uses mapped slots")
    }

    fn load(&mut self, slot: usize, offset: usize, len: usize) -> Result<(), String> {
        let start = self.slot(slot).dense * PAGE + offset;
        let bytes = self.backend.load(slot, offset, len)?;
        self.model.touch_for_reading(start, len);
        compare(&bytes, &self.model.bytes(start, len), "loaded")
    }

    fn pread(&mut self, window: usize, offset: usize, len: usize) -> Result<(), String> {
        let window = &self.model.geometry().windows()[window];
        let start = window.dense * PAGE + offset;
        let bytes = self
            .backend
            .pread(window.pgoff * PAGE as u64 + offset as u64, len)?;
        compare(
            &bytes,
            &self.model.bytes(start, len),
            "read through the descriptor",
        )
    }

    fn commit(&mut self, summary: &mut Summary) -> Result<(), String> {
        let bounds = self.model.changed_bounds();
        let committed = self.backend.commit()?;
        self.model.commit();
        self.committed(committed, bounds, summary)
    }

    fn commit_with_snapshot(&mut self, op: &Op, summary: &mut Summary) -> Result<(), String> {
        // A pinned page is in a snapshot as the device leaves it, whatever that is.
        if self.model.lingers() {
            self.settle(summary)?;
        }
        let bounds = self.model.changed_bounds();
        let counts = &mut summary.snapshots;
        let committed = self
            .snapshots
            .make(self.backend, &mut self.model, op, counts)?;
        self.committed(committed, bounds, summary)
    }

    // Commits until nothing changes any more: a pinned page would be told again.
    fn settle(&mut self, summary: &mut Summary) -> Result<(), String> {
        for _ in 0..SETTLING_COMMITS {
            let bounds = self.model.changed_bounds();
            let committed = self.backend.commit()?;
            self.model.commit();
            self.committed(committed, bounds, summary)?;
            if committed.changed_pages == 0 {
                self.model.is_settled();
                return Ok(());
            }
        }
        Err(format!(
            "{SETTLING_COMMITS} commits after the last write pages still change"
        ))
    }

    fn committed(
        &mut self,
        committed: Committed,
        (least, most): (u64, u64),
        summary: &mut Summary,
    ) -> Result<(), String> {
        summary.commits += 1;
        if committed.epoch != self.model.epoch() {
            return Err(format!(
                "closed epoch {}, not {}",
                committed.epoch,
                self.model.epoch()
            ));
        }
        if !(least..=most).contains(&committed.changed_pages) {
            return Err(format!(
                "stamped {} pages, not {least} to {most}",
                committed.changed_pages
            ));
        }
        if summary.commits % self.compare_every == 0 {
            self.compare_content()?;
        }
        Ok(())
    }

    fn take(&mut self, index: usize, capacity: usize, summary: &mut Summary) -> Result<(), String> {
        let cursor = &mut self.cursors[index];
        let part = self
            .backend
            .delta(cursor.since(), cursor.start(), capacity)?;
        for dense in cursor.take(&self.model, &part, capacity)? {
            let offset = self.model.geometry().pgoff(dense) * PAGE as u64;
            cursor.copy(dense, &self.backend.pread(offset, PAGE)?);
        }
        if part.next.is_none() {
            summary.deltas += 1;
            cursor.finish(&self.model, summary.deltas % self.compare_every == 0)?;
        }
        Ok(())
    }

    fn compare_facts(&mut self) -> Result<(), String> {
        let facts = self.backend.facts()?;
        if facts.epoch != self.model.epoch() {
            return Err(format!("epoch {}, not {}", facts.epoch, self.model.epoch()));
        }
        let (least, most) = self.model.changed_bounds();
        let least = if facts.counts_all { least } else { 0 };
        if !(least..=most).contains(&facts.changed_pages) {
            return Err(format!(
                "{} pages changed, not {least} to {most}",
                facts.changed_pages
            ));
        }
        let (least, most) = self.model.resident_bounds();
        if !(least..=most).contains(&facts.resident_pages) {
            return Err(format!(
                "{} pages resident, not {least} to {most}",
                facts.resident_pages
            ));
        }
        Ok(())
    }

    fn compare_content(&mut self) -> Result<(), String> {
        const AT_ONCE: usize = 64;
        for window in self.model.geometry().windows() {
            for first in (0..window.pages).step_by(AT_ONCE) {
                let pages = AT_ONCE.min(window.pages - first);
                let offset = (window.pgoff + first as u64) * PAGE as u64;
                let bytes = self.backend.pread(offset, pages * PAGE)?;
                if bytes.len() != pages * PAGE {
                    return Err(format!("pread of {pages} pages gave {} bytes", bytes.len()));
                }
                for (page, content) in bytes.chunks(PAGE).enumerate() {
                    if content != self.model.page(window.dense + first + page) {
                        let pgoff = window.pgoff + (first + page) as u64;
                        return Err(format!("page {pgoff} does not hold what was written"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn compare(got: &[u8], expected: &[u8], how: &str) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    let at = got
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    Err(format!(
        "bytes {how} are not what was written: {} of {} bytes, first difference at {at:?}",
        got.len(),
        expected.len()
    ))
}
