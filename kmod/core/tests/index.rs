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
use ckpt_core::tracker::{Hardware, Tracker};
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

/// A machine that remembers what was armed.
#[derive(Default)]
struct Machine {
    armed: BTreeSet<u64>,
    pinned: BTreeSet<u64>,
}

impl Hardware for Machine {
    fn rearm(&mut self, first: u64, len: u64) -> Bits {
        let chunk = first / CHUNK_PAGES as u64;
        assert_eq!(
            (first + len - 1) / CHUNK_PAGES as u64,
            chunk,
            "a pass crosses chunks"
        );
        self.armed.extend(first..first + len);
        Bits::default()
    }

    fn pinned(&mut self, page: u64) -> bool {
        assert!(self.armed.contains(&page), "asked before arming");
        self.pinned.contains(&page)
    }
}

fn index() -> Index<AtomicU64, Host> {
    Index::new(Tracker::armed())
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
    Note(u64),
    NoteRun(u64, u64),
    Pin(u64),
    Unpin,
    Commit,
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
        6 => page().prop_map(Op::Note),
        2 => (page(), 1u64..90).prop_map(|(first, len)| Op::NoteRun(first, len)),
        1 => page().prop_map(Op::Pin),
        1 => Just(Op::Unpin),
        3 => Just(Op::Commit),
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
        let mut noted: BTreeSet<u64> = BTreeSet::new();
        let mut epoch = 0;
        for op in ops {
            match op {
                Op::Note(page) => {
                    index.chunk(page).unwrap();
                    prop_assert_eq!(index.note(page), noted.insert(page));
                }
                Op::NoteRun(first, len) => for page in first..(first + len).min(MAX_PAGES) {
                    index.chunk(page).unwrap();
                    prop_assert_eq!(index.note(page), noted.insert(page));
                },
                Op::Pin(page) => { machine.pinned.insert(page); }
                Op::Unpin => machine.pinned.clear(),
                Op::Commit => {
                    epoch += 1;
                    machine.armed.clear();
                    let took = index.harvest(epoch, &mut machine);
                    prop_assert_eq!(took.changed, noted.len() as u64);
                    prop_assert!(noted.is_subset(&machine.armed), "left a page unarmed");
                    for page in &noted {
                        stamps.insert(*page, epoch);
                    }
                    noted.retain(|page| machine.pinned.contains(page));
                    prop_assert_eq!(took.again, noted.len() as u64);
                }
                Op::Delta(back, capacity, budget) => {
                    let since = epoch.saturating_sub(back);
                    let expected: BTreeSet<u64> =
                        stamps.iter().filter(|(_, &at)| at > since).map(|(&page, _)| page).collect();
                    let told = delta(&index, since, capacity, budget);
                    prop_assert_eq!(pages(&told), expected);
                }
            }
            prop_assert_eq!(index.noted(), noted.len() as u64);
        }
    }
}

#[test]
fn an_empty_index_has_nothing_and_holds_nothing() {
    let index = index();
    assert_eq!(index.harvest(1, &mut Machine::default()).changed, 0);
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
                index.harvest(next, &mut machine);
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
        index.harvest(last, &mut Machine::default());
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
