// SPDX-License-Identifier: GPL-2.0-only
use super::*;
use crate::bits::WORDS;

/// A machine with one entry per page of a chunk.
#[derive(Default)]
struct Machine {
    writable: Bits,
    dirty: Bits,
    entries: usize,
}

impl Hardware for Machine {
    fn costs(&self) -> &'static Costs {
        &Costs::DIRECT
    }

    fn harvest(&mut self, _first: u64, plan: &Plan) -> Bits {
        let all = plan.arm.or(&plan.keep);
        let dirty = self.dirty.and(&all);
        self.entries += all.len();
        self.dirty = self.dirty.minus(&all);
        self.writable = self.writable.minus(&plan.arm);
        if plan.freeze {
            self.writable = self.writable.minus(&dirty);
        }
        dirty
    }

    fn pinned(&mut self, _first: u64, _pages: &Bits) -> Bits {
        Bits::default()
    }
}

/// A chunk as the module has it: the tracker, its memory, and who faulted.
struct Chunk {
    tracker: Tracker,
    history: History,
    machine: Machine,
    noted: Bits,
    last: Bits,
    before: Bits,
    ever: Bits,
    twice: Bits,
    faults: u32,
    spent: u32,
    faults_in_all: u32,
    froze: bool,
}

impl Chunk {
    fn new(policy: Policy) -> Self {
        Chunk {
            tracker: Tracker::new(policy),
            history: History::default(),
            machine: Machine::default(),
            noted: Bits::default(),
            last: Bits::default(),
            before: Bits::default(),
            ever: Bits::default(),
            twice: Bits::default(),
            faults: 0,
            spent: 0,
            faults_in_all: 0,
            froze: false,
        }
    }

    fn write(&mut self, pages: &Bits) {
        for page in pages.iter() {
            if !self.machine.writable.contains(page) {
                self.faults_in_all += 1;
                if self.ever.contains(page) {
                    let lately =
                        self.last.contains(page) && self.twice.contains(page) && !self.froze;
                    self.faults += u32::from(!lately);
                    let (before, cost) = (self.spent, self.tracker.fault_counts(lately));
                    self.spent += cost;
                    if self.tracker.opens(before, cost) {
                        self.machine.writable = Bits([u64::MAX; WORDS]);
                        self.history.open = self.machine.writable;
                    }
                }
                self.noted.insert(page);
                self.machine.writable.insert(page);
            }
            self.machine.dirty.insert(page);
        }
    }

    fn commit(&mut self, freeze: bool) -> Outcome {
        let epoch = Epoch {
            noted: core::mem::take(&mut self.noted),
            again: Bits::default(),
            ever: self.ever,
            faults: core::mem::take(&mut self.faults),
            spent: self.spent,
            freeze,
        };
        let again = epoch
            .noted
            .and(&self.twice)
            .and(&self.last.or(&self.before));
        let epoch = Epoch { again, ..epoch };
        let outcome = self
            .tracker
            .harvest(0, &epoch, &mut self.history, &mut self.machine);
        self.before = self.last;
        self.last = outcome.changed;
        self.twice.union(&outcome.changed.and(&self.ever));
        self.ever.union(&outcome.changed);
        self.froze = freeze;
        self.spent = self.history.regret;
        outcome
    }

    /// Writes and commits. Faults that it took.
    fn epoch(&mut self, pages: &Bits) -> u32 {
        let before = self.faults_in_all;
        self.write(pages);
        assert!(
            pages.minus(&self.commit(false).changed).is_empty(),
            "lost a page"
        );
        self.faults_in_all - before
    }
}

fn set(pages: impl IntoIterator<Item = usize>) -> Bits {
    let mut bits = Bits::default();
    pages.into_iter().for_each(|page| bits.insert(page));
    bits
}

#[test]
fn a_page_written_again_in_two_epochs_running_faults_no_more() {
    let mut chunk = Chunk::new(Policy::Adaptive);
    let pages = set([3, 511]);
    chunk.epoch(&pages);
    chunk.epoch(&pages);
    assert_eq!(chunk.epoch(&pages), 2);
    for _ in 0..20 {
        assert_eq!(chunk.epoch(&pages), 0);
    }
    assert_eq!(chunk.history.open, pages);
}

#[test]
fn a_page_that_stays_clean_is_armed_again_and_then_costs_nothing() {
    let mut chunk = Chunk::new(Policy::Adaptive);
    let pages = set([3]);
    (0..3).for_each(|_| assert_eq!(chunk.epoch(&pages), 1));
    let idle = (1..).find(|_| chunk.commit(false).closed == 1);
    assert!(idle.is_some_and(|commits| commits <= 8), "{idle:?}");
    assert!(chunk.history.open.is_empty());
    assert_eq!(chunk.epoch(&pages), 1, "was left writable");
}

#[test]
fn many_faults_open_the_chunk_within_the_epoch() {
    let mut chunk = Chunk::new(Policy::Adaptive);
    chunk.epoch(&Bits::ALL);
    (0..10).for_each(|_| assert!(chunk.commit(false).changed.is_empty()));
    let faults = chunk.epoch(&set((0..512).step_by(2)));
    assert!((2..30).contains(&faults), "{faults} faults");
    assert_eq!(chunk.epoch(&set((1..512).step_by(2))), 0);
}

#[test]
fn writing_a_whole_chunk_again_opens_it_within_the_epoch() {
    let mut chunk = Chunk::new(Policy::Adaptive);
    chunk.epoch(&Bits::ALL);
    let faults = chunk.epoch(&Bits::ALL);
    assert!((2..40).contains(&faults), "{faults} faults");
}

#[test]
fn first_writes_open_nothing() {
    let mut chunk = Chunk::new(Policy::Adaptive);
    assert_eq!(chunk.epoch(&Bits::ALL), 512);
    assert!(chunk.history.open.is_empty());
}

#[test]
fn a_few_new_pages_each_epoch_open_the_chunk_in_the_end_and_one_does_not() {
    for (pages, opens) in [(8, true), (1, false)] {
        let mut chunk = Chunk::new(Policy::Adaptive);
        chunk.epoch(&Bits::ALL);
        let mut opened = false;
        for epoch in 0..24 {
            let first = epoch * 20;
            chunk.epoch(&set((first..first + pages).map(|page| page * 7 % 512)));
            opened |= chunk.history.open.len() > 100;
        }
        assert_eq!(opened, opens, "{pages} pages");
    }
}

#[test]
fn what_a_snapshot_holds_is_never_left_writable() {
    let mut chunk = Chunk::new(Policy::Adaptive);
    let pages = set(0..100);
    for _ in 0..10 {
        chunk.write(&pages);
        let outcome = chunk.commit(true);
        assert!(outcome.changed.and(&chunk.machine.writable).is_empty());
        assert!(chunk.machine.writable.minus(&chunk.history.open).is_empty());
    }
}

#[test]
fn the_policies_to_compare_with_do_what_they_say() {
    let mut armed = Chunk::new(Policy::Armed);
    let mut open = Chunk::new(Policy::Open);
    let pages = set([1, 2, 3]);
    for epoch in 0..100 {
        assert_eq!(armed.epoch(&pages), 3);
        assert_eq!(open.epoch(&pages), if epoch == 0 { 3 } else { 0 });
    }
    (0..200).for_each(|_| assert!(open.commit(false).changed.is_empty()));
    assert_eq!(open.epoch(&pages), 0);
}
