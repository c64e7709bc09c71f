// SPDX-License-Identifier: GPL-2.0-only
//! A real index over a machine that adds up what everything costs, by the tracker's own sums.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use ckpt_core::bits::{Bits, CHUNK_PAGES};
use ckpt_core::index::{Harvested, Index};
use ckpt_core::slot::Heap;
use ckpt_core::tracker::{spans, Costs, Hardware, Plan, Policy, Tracker};

/// The host's heap.
struct Host;

// SAFETY: `alloc_zeroed` and `dealloc` with the layout of `T` do as asked.
unsafe impl Heap for Host {
    fn zeroed<T>() -> Option<NonNull<T>> {
        // SAFETY: No type that the index allocates has size zero.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(Layout::new::<T>()) }.cast())
    }

    unsafe fn free<T>(memory: NonNull<T>) {
        // SAFETY: By the contract the memory came from `zeroed::<T>`.
        unsafe { std::alloc::dealloc(memory.as_ptr().cast(), Layout::new::<T>()) }
    }
}

/// The entries of a chunk.
#[derive(Default)]
pub struct Entries {
    present: Bits,
    writable: Bits,
    dirty: Bits,
    /// Left open by the last commit.
    pub open: Bits,
}

/// What was spent, in instructions, and on what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub faults: u64,
    pub opening: u64,
    pub commits: u64,
}

impl Spent {
    pub fn all(&self) -> u64 {
        self.faults + self.opening + self.commits
    }
}

struct Machine {
    costs: &'static Costs,
    chunks: BTreeMap<u64, Entries>,
    spent: Spent,
}

/// What going over pages costs.
fn passes(costs: &Costs, pages: &Bits) -> u64 {
    let pass =
        |(_, len): (usize, usize)| u64::from(costs.pass) + u64::from(costs.entry) * len as u64;
    spans(pages, costs.gap).map(pass).sum()
}

impl Hardware for Machine {
    fn costs(&self) -> &'static Costs {
        self.costs
    }

    fn harvest(&mut self, first: u64, plan: &Plan) -> Bits {
        assert!(plan.arm.and(&plan.keep).is_empty(), "armed and kept");
        let costs = self.costs;
        let entries = self.chunks.entry(first).or_default();
        let harvested = plan.arm.or(&plan.keep);
        let dirty = entries.dirty.and(&harvested);
        let armed = plan.arm.and(&entries.writable);
        self.spent.commits += u64::from(costs.visit)
            + passes(costs, &plan.arm)
            + passes(costs, &plan.keep)
            + u64::from(costs.arm) * armed.len() as u64;
        entries.dirty = entries.dirty.minus(&harvested);
        entries.writable = entries.writable.minus(&plan.arm);
        entries.open = plan.keep;
        match costs.opens {
            true => dirty,
            // It is not told which were dirty.
            false => plan.arm.minus(&plan.known),
        }
    }

    fn pinned(&mut self, _first: u64, _pages: &Bits) -> Bits {
        Bits::default()
    }
}

/// A program that writes and commits, tracked by a policy.
pub struct Run {
    index: Index<AtomicU64, Host>,
    machine: Machine,
    epoch: u64,
    /// Write faults in all.
    pub faults: u64,
    /// Pages that were opened by faults on others since the last commit.
    pub opened: u64,
    /// Pages told as changed that were not written.
    pub false_changes: u64,
    /// Pages written since the last commit.
    written: BTreeMap<u64, Bits>,
}

impl Run {
    pub fn new(policy: Policy, costs: &'static Costs) -> Self {
        let index = Index::new(Tracker::new(policy));
        // As the first commit of all.
        index.tracker().uses(costs);
        Run {
            index,
            machine: Machine {
                costs,
                chunks: BTreeMap::new(),
                spent: Spent::default(),
            },
            epoch: 0,
            faults: 0,
            opened: 0,
            false_changes: 0,
            written: BTreeMap::new(),
        }
    }

    /// Writes pages of the chunk with a number.
    pub fn write(&mut self, number: u64, pages: &Bits) {
        if pages.is_empty() {
            return;
        }
        let first = number * CHUNK_PAGES as u64;
        self.written.entry(first).or_default().union(pages);
        let entries = self.machine.chunks.entry(first).or_default();
        for page in pages.iter() {
            let bit = Bits::range(page, page + 1);
            if entries.writable.and(&bit).is_empty() {
                let costs = self.machine.costs;
                self.faults += 1;
                self.machine.spent.faults += u64::from(costs.fault);
                let page = first + page as u64;
                let chunk = self.index.chunk(page).expect("memory");
                // Without an entry it is another fault, which does not count.
                let counts = !entries.present.and(&bit).is_empty();
                if counts && chunk.count_fault(page, self.epoch, self.index.tracker()) {
                    self.machine.spent.opening += u64::from(costs.pass)
                        + u64::from(costs.open) * entries.present.len() as u64;
                    self.opened += entries.present.minus(&entries.open).len() as u64;
                    entries.open = entries.present;
                    entries.writable = entries.present;
                    chunk.opened(&entries.present);
                }
                self.index.note(page);
                entries.present.union(&bit);
                entries.writable.union(&bit);
            }
            entries.dirty.union(&bit);
        }
    }

    /// Commits, and makes sure that all that was written is told.
    pub fn commit(&mut self) -> Harvested {
        self.epoch += 1;
        let harvested = self.index.harvest(self.epoch, false, &mut self.machine);
        self.opened = 0;
        let mut told = 0;
        for (first, pages) in std::mem::take(&mut self.written) {
            let chunk = self.index.get(first).expect("written");
            let stamped = chunk.stamped_after(self.epoch - 1);
            assert!(pages.minus(&stamped).is_empty(), "lost a page");
            told += pages.len() as u64;
        }
        self.false_changes += harvested.changed - told;
        harvested
    }

    pub fn spent(&self) -> Spent {
        self.machine.spent
    }

    /// Open pages of a chunk.
    pub fn open(&self, number: u64) -> Bits {
        let entries = self.machine.chunks.get(&(number * CHUNK_PAGES as u64));
        entries.map_or(Bits::default(), |entries| entries.open)
    }

    /// Pages of a chunk that can be written without a fault.
    pub fn writable(&self, number: u64) -> Bits {
        let entries = self.machine.chunks.get(&(number * CHUNK_PAGES as u64));
        entries.map_or(Bits::default(), |entries| entries.writable)
    }

    /// Pages and chunks that the machine has open, pages and chunks that the index says are,
    /// and all chunks.
    pub fn counts(&self) -> ((u64, u64), (u64, u64), u64) {
        let open = self
            .machine
            .chunks
            .values()
            .filter(|one| !one.open.is_empty());
        let open = open.fold((0, 0), |all, one| {
            (all.0 + one.open.len() as u64, all.1 + 1)
        });
        (open, self.index.open(), self.index.chunks())
    }
}
