// SPDX-License-Identifier: GPL-2.0-only
//! The index against a model that keeps a stamp per page in a map.

use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ckpt_core::bits::{Bits, CHUNK_PAGES};
use ckpt_core::index::{Index, Walk, MAX_PAGES};
use ckpt_core::ranges::{Gather, Range};
use ckpt_core::slot::Heap;
use ckpt_core::tracker::{Costs, Hardware, Plan, Policy, Tracker};
use proptest::prelude::*;

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

/// A machine with one page-table entry per page.
#[derive(Default)]
struct Machine {
    writable: BTreeSet<u64>,
    dirty: BTreeSet<u64>,
    pinned: BTreeSet<u64>,
}

impl Machine {
    /// A store, with the fault that it takes if the entry is not writable. True if the page
    /// was not noted before.
    fn store(&mut self, index: &Index<AtomicU64, Host>, page: u64, epoch: u64) -> bool {
        let mut new = false;
        if !self.writable.contains(&page) {
            let chunk = index.chunk(page).unwrap();
            let first = page - page % CHUNK_PAGES as u64;
            if chunk.count_fault(page, epoch, index.tracker()) {
                // Every third page has an entry.
                let mut opened = Bits::default();
                (0..CHUNK_PAGES).step_by(3).for_each(|at| opened.insert(at));
                self.writable
                    .extend(opened.iter().map(|at| first + at as u64));
                chunk.opened(&opened);
            }
            new = index.note(page);
            self.writable.insert(page);
        }
        self.dirty.insert(page);
        new
    }
}

impl Hardware for Machine {
    fn costs(&self) -> &'static Costs {
        &Costs::DIRECT
    }

    fn harvest(&mut self, first: u64, plan: &Plan) -> Bits {
        assert_eq!(first % CHUNK_PAGES as u64, 0, "not a chunk");
        assert!(plan.arm.and(&plan.keep).is_empty(), "armed and kept");
        let mut dirty = Bits::default();
        for (pages, arm) in [(&plan.arm, true), (&plan.keep, false)] {
            for at in pages.iter() {
                let page = first + at as u64;
                let was = self.dirty.remove(&page);
                if was {
                    dirty.insert(at);
                }
                if arm || (plan.freeze && was) {
                    self.writable.remove(&page);
                }
            }
        }
        dirty
    }

    fn pinned(&mut self, first: u64, pages: &Bits) -> Bits {
        let mut pinned = Bits::default();
        pages
            .iter()
            .filter(|&at| self.pinned.contains(&(first + at as u64)))
            .for_each(|at| pinned.insert(at));
        pinned
    }
}

fn index() -> Index<AtomicU64, Host> {
    Index::new(Tracker::new(Policy::Adaptive))
}

/// Reads a whole delta, in pieces of `capacity` runs and `budget` chunks.
fn delta(index: &Index<AtomicU64, Host>, since: u64, capacity: u32, budget: u32) -> Vec<Range> {
    let mut all = Vec::new();
    let mut from = 0;
    'calls: loop {
        let mut gather = Gather::new(capacity);
        let mut call = Vec::new();
        loop {
            let mut full = false;
            let mut walk = Walk {
                since,
                budget,
                found: |first, len| {
                    let put = gather.put(first, len, |run| call.push(run));
                    full = put.is_break();
                    put
                },
            };
            let more = match index.changed_since(from, &mut walk) {
                ControlFlow::Break(at) if !full => {
                    assert!(at >= from, "went backwards");
                    from = at;
                    continue;
                }
                ControlFlow::Break(at) => Some(at),
                ControlFlow::Continue(()) => None,
            };
            call.extend(gather.finish());
            assert!(call.len() <= capacity as usize);
            for pair in call.windows(2) {
                assert!(
                    pair[0].first + pair[0].len < pair[1].first,
                    "adjacent or unordered"
                );
            }
            all.append(&mut call);
            match more {
                Some(at) => {
                    from = at;
                    continue 'calls;
                }
                None => return all,
            }
        }
    }
}

fn pages(runs: &[Range]) -> BTreeSet<u64> {
    runs.iter()
        .flat_map(|run| run.first..run.first + run.len)
        .collect()
}

#[derive(Clone, Debug)]
enum Op {
    Store(u64),
    StoreRun(u64, u64),
    /// Stores that keep coming to the same pages.
    Again,
    Note(u64),
    Pin(u64),
    Unpin,
    Commit(bool),
    Delta(u64, u32, u32),
}

/// Pages in a few clusters: neighbours, chunk borders, far ends of the index.
fn page() -> impl Strategy<Value = u64> {
    let base = prop_oneof![
        Just(0),
        Just(500),
        Just(511 * 64),
        Just(1 << 21),
        Just(MAX_PAGES - 700)
    ];
    (base, 0u64..600).prop_map(|(base, offset)| base + offset)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => page().prop_map(Op::Store),
        2 => (page(), 1u64..90).prop_map(|(first, len)| Op::StoreRun(first, len)),
        3 => Just(Op::Again),
        2 => page().prop_map(Op::Note),
        1 => page().prop_map(Op::Pin),
        1 => Just(Op::Unpin),
        6 => prop::bool::weighted(0.2).prop_map(Op::Commit),
        3 => (0u64..40, 1u32..5, 1u32..4).prop_map(|(a, b, c)| Op::Delta(a, b, c)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_tells_what_a_stamp_per_page_would_tell(ops in prop::collection::vec(op(), 1..120)) {
        let index = index();
        let mut machine = Machine::default();
        let mut stamps: BTreeMap<u64, u64> = BTreeMap::new();
        let mut changed: BTreeSet<u64> = BTreeSet::new();
        let mut latest: Vec<u64> = Vec::new();
        let mut epoch = 0;
        for op in ops {
            match op {
                Op::Store(page) => {
                    machine.store(&index, page, epoch);
                    changed.insert(page);
                    latest.push(page);
                }
                Op::StoreRun(first, len) => {
                    latest.clear();
                    for page in first..(first + len).min(MAX_PAGES) {
                        machine.store(&index, page, epoch);
                        changed.insert(page);
                        latest.push(page);
                    }
                }
                Op::Again => for &page in &latest {
                    machine.store(&index, page, epoch);
                    changed.insert(page);
                },
                Op::Note(page) => {
                    index.chunk(page).unwrap();
                    index.note(page);
                    changed.insert(page);
                }
                Op::Pin(page) => { machine.pinned.insert(page); }
                Op::Unpin => machine.pinned.clear(),
                Op::Commit(freeze) => {
                    epoch += 1;
                    let took = index.harvest(epoch, freeze, &mut machine);
                    // A pinned page is told as long as it is open or noted.
                    let told = pages(&delta(&index, epoch - 1, 7, 2));
                    prop_assert!(changed.is_subset(&told), "lost a page");
                    prop_assert_eq!(took.changed, told.len() as u64);
                    for page in told.difference(&changed) {
                        prop_assert!(machine.pinned.contains(page), "{} did not change", page);
                    }
                    prop_assert!(machine.dirty.is_empty(), "left an entry dirty");
                    prop_assert_eq!(took.again, index.noted());
                    prop_assert!(
                        machine.writable.len() as u64 <= took.open + took.again,
                        "left a page writable that is neither open nor noted"
                    );
                    if freeze {
                        prop_assert!(
                            told.is_disjoint(&machine.writable),
                            "left a page writable that a snapshot holds"
                        );
                    }
                    for page in told {
                        stamps.insert(page, epoch);
                    }
                    changed.clear();
                    if took.again != 0 {
                        changed.extend(stamps.iter().filter(|&(page, &at)| at == epoch && machine.pinned.contains(page)).map(|(&page, _)| page));
                    }
                }
                Op::Delta(back, capacity, budget) => {
                    let since = epoch.saturating_sub(back);
                    let expected: BTreeSet<u64> =
                        stamps.iter().filter(|(_, &at)| at > since).map(|(&page, _)| page).collect();
                    let told = delta(&index, since, capacity, budget);
                    prop_assert_eq!(pages(&told), expected);
                }
            }
        }
    }
}

#[test]
fn an_empty_index_has_nothing_and_holds_nothing() {
    let index = index();
    assert_eq!(index.harvest(1, false, &mut Machine::default()).changed, 0);
    assert!(delta(&index, 0, 1, 1).is_empty());
    assert_eq!(index.bytes_held(), 0);
    assert!(!index.note(5), "noted a page that has no chunk");
}

#[test]
fn the_memory_follows_the_pages_touched() {
    let index = index();
    index.chunk(0).unwrap();
    let one = index.bytes_held();
    index.chunk(1).unwrap();
    assert_eq!(
        index.bytes_held(),
        one,
        "a second page of a chunk took memory"
    );
    index.chunk(MAX_PAGES - 1).unwrap();
    assert!(index.bytes_held() < 3 * one);
    let mut payloads = 0;
    index.each_payload(|_| payloads += 1);
    assert_eq!(payloads, 2);
}

/// A machine on which somebody unmaps a written page when a commit is about to look at it: the
/// entry is gone, and what tells of the write is the note that the unmapping made.
struct Unmapping<'a> {
    index: &'a Index<AtomicU64, Host>,
    page: u64,
    looked: bool,
}

impl Hardware for Unmapping<'_> {
    fn costs(&self) -> &'static Costs {
        &Costs::DIRECT
    }

    fn harvest(&mut self, first: u64, plan: &Plan) -> Bits {
        let at = (self.page - first) as usize;
        if plan.keep.or(&plan.arm).iter().any(|page| page == at) {
            self.index.note(self.page);
            self.looked = true;
        }
        Bits::default()
    }

    fn pinned(&mut self, _first: u64, _pages: &Bits) -> Bits {
        Bits::default()
    }
}

#[test]
fn a_page_that_is_unmapped_while_a_commit_harvests_it_is_in_that_commit() {
    for policy in [Policy::Adaptive, Policy::Open] {
        let mut looked = 0;
        // After more and more commits that found it clean: chunks that have something to decide,
        // and such that have settled.
        for clean in 0..12 {
            let index = Index::new(Tracker::new(policy));
            let mut machine = Machine::default();
            index.chunk(700).unwrap();
            for epoch in 1..=4 {
                machine.store(&index, 700, epoch - 1);
                index.harvest(epoch, false, &mut machine);
            }
            for epoch in 5..5 + clean {
                index.harvest(epoch, false, &mut machine);
            }
            let mut unmapping = Unmapping {
                index: &index,
                page: 700,
                looked: false,
            };
            let epoch = 5 + clean;
            let harvested = index.harvest(epoch, false, &mut unmapping);
            if !unmapping.looked {
                // It was armed meanwhile, so nobody could have written it.
                continue;
            }
            assert_eq!(harvested.changed, 1, "{policy:?}, {clean} clean commits");
            let told = delta(&index, epoch - 1, 1, 1);
            assert_eq!(told, [Range { first: 700, len: 1 }]);
            looked += 1;
        }
        assert!(looked > 1, "{policy:?}: the page was open {looked} times");
    }
}

#[test]
fn no_note_made_beside_commits_is_lost() {
    const WRITERS: u64 = 3;
    const ROUNDS: u64 = 20_000;
    let index = index();
    let far = |writer: u64, round: u64| (writer * 77_777 + round * 8_191) % (1 << 22);
    for writer in 0..WRITERS {
        for round in 0..ROUNDS {
            index.chunk(far(writer, round)).unwrap();
        }
    }
    let done = AtomicBool::new(false);
    let epoch = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (index, epoch) = (&index, &epoch);
                scope.spawn(move || {
                    let mut made = Vec::new();
                    for round in 0..ROUNDS {
                        let page = far(writer, round);
                        // The commit that takes the note is a later one than this.
                        let before = epoch.load(Ordering::SeqCst);
                        index.note(page);
                        made.push((page, before));
                    }
                    made
                })
            })
            .collect();
        let committer = scope.spawn(|| {
            let mut machine = Machine::default();
            while !done.load(Ordering::SeqCst) {
                let next = epoch.load(Ordering::SeqCst) + 1;
                index.harvest(next, false, &mut machine);
                epoch.store(next, Ordering::SeqCst);
            }
        });
        let made: Vec<_> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect();
        done.store(true, Ordering::SeqCst);
        committer.join().unwrap();
        let last = epoch.load(Ordering::SeqCst) + 1;
        index.harvest(last, false, &mut Machine::default());
        // One walk per distinct epoch would be slow: a page's stamp must be above the
        // epoch it was last noted after.
        let mut noted_after: BTreeMap<u64, u64> = BTreeMap::new();
        for (page, before) in made {
            let at = noted_after.entry(page).or_default();
            *at = (*at).max(before);
        }
        let step = (last / 40).max(1);
        for since in (0..last).step_by(step as usize) {
            let told = pages(&delta(&index, since, u32::MAX, u32::MAX));
            for (page, before) in &noted_after {
                assert!(
                    *before < since || told.contains(page),
                    "page {page}, noted after {before}, is not in the delta since {since}"
                );
            }
        }
    });
}
