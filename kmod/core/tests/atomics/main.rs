// SPDX-License-Identifier: GPL-2.0-only
//! The lock-free part, in every order of its accesses: notes beside commits, and chunks that are
//! made by several at once.
//!
//! The files of the crate are compiled once more here, with other atomics: in this crate,
//! `core` is this crate. Their own tests come along. What weaker orders than sequential
//! consistency could do beyond this is not tried; the notes and marks do not use any.

// What the files of the crate find under `core`.
extern crate self as core;
use std::{array, iter, marker, mem, ops, ptr};
mod sync {
    pub(crate) use crate::atomic;
}

mod atomic;
mod schedule;

#[path = "../../src"]
#[expect(dead_code, reason = "only what has to do with notes is used here")]
mod tracking {
    pub mod bits;
    pub mod chunk;
    pub mod index;
    pub mod slot;
    pub mod tracker;
}
use tracking::{bits, slot, tracker};

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, Ordering};

use atomic::AtomicU64;
use bits::{Bits, CHUNK_PAGES};
use schedule::every_order;
use slot::Heap;
use tracker::{Costs, Hardware, Plan, Policy, Tracker};
use tracking::index::Index;

/// The host's heap.
struct Host;

/// As above, and counts.
struct Counted;

/// What it handed out and did not get back.
static HELD: AtomicI64 = AtomicI64::new(0);

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

// SAFETY: As `Host`.
unsafe impl Heap for Counted {
    fn zeroed<T>() -> Option<NonNull<T>> {
        HELD.fetch_add(1, Ordering::Relaxed);
        Host::zeroed()
    }

    unsafe fn free<T>(memory: NonNull<T>) {
        HELD.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: As this function's contract.
        unsafe { Host::free(memory) }
    }
}

/// A machine on which no entry is ever dirty, and some pages are pinned.
struct Clean(Bits);

impl Hardware for Clean {
    fn costs(&self) -> &'static Costs {
        &Costs::DIRECT
    }

    fn harvest(&mut self, _first: u64, _plan: &Plan) -> Bits {
        Bits::default()
    }

    fn pinned(&mut self, _first: u64, pages: &Bits) -> Bits {
        self.0.and(pages)
    }
}

type Pages = Index<AtomicU64, Host>;

/// Two in a word, one in another word of the chunk, one in another chunk, one far away.
const PAGES: [u64; 5] = [3, 5, 70, 600, 1 << 22];

/// An index with chunks for the pages.
fn made() -> Pages {
    let index = Pages::new(Tracker::new(Policy::Adaptive));
    for page in PAGES {
        index.chunk(page).expect("memory");
    }
    index
}

fn commit<H: Heap>(index: &Index<AtomicU64, H>, epoch: u64) -> u64 {
    index
        .harvest(epoch, false, &mut Clean(Bits::default()))
        .looked
}

/// After a commit more, pages were told, no note is left, and none is told twice.
fn all_told<H: Heap>(
    index: &Index<AtomicU64, H>,
    epochs: u64,
    pages: &[u64],
) -> Result<(), String> {
    commit(index, epochs + 1);
    for &page in pages {
        let at = page as usize % CHUNK_PAGES;
        let stamped = index.get(page).expect("made").stamped_after(0);
        if stamped.and(&Bits::range(at, at + 1)).is_empty() {
            return Err(format!("page {page} is told by no commit"));
        }
    }
    match (index.noted(), commit(index, epochs + 2)) {
        (0, 0) => Ok(()),
        (noted, looked) => Err(format!(
            "{noted} notes are left, and {looked} pages looked at"
        )),
    }
}

/// Two commits beside notes of pages, in every order with so many stops.
fn notes_beside_commits(stops: usize, first: u64, second: u64) -> Result<usize, String> {
    let note = |page| {
        move |index: &Pages| {
            index.note(page);
        }
    };
    let commits = |index: &Pages| {
        commit(index, 1);
        commit(index, 2);
    };
    let (first_note, second_note) = (note(first), note(second));
    every_order(
        stops,
        made,
        &[&commits, &first_note, &second_note],
        |index| all_told(&index, 2, &[first, second]),
    )
}

#[test]
fn no_note_beside_commits_is_lost() {
    for (stops, first, second, floor) in [
        (3, PAGES[0], PAGES[1], 5_000),
        (2, PAGES[0], PAGES[2], 500),
        (2, PAGES[0], PAGES[3], 500),
        (2, PAGES[0], PAGES[4], 500),
        (2, PAGES[0], PAGES[0], 500),
    ] {
        let orders = notes_beside_commits(stops, first, second).expect("nothing is lost");
        println!("{orders} orders of notes of {first} and {second} beside commits");
        assert!(orders >= floor, "only {orders} orders");
    }
}

#[test]
fn a_note_that_was_made_before_a_commit_is_told_by_it() {
    let note_and_commit = |index: &Pages| {
        index.note(PAGES[0]);
        commit(index, 1);
        let stamped = index.get(PAGES[0]).expect("made").stamped_after(0);
        let stamped = stamped.and(&Bits::range(3, 4));
        // To be seen by the check: a page that nobody else notes.
        if stamped.is_empty() {
            index.note(PAGES[4]);
        }
    };
    // A page of the same word, and the same page: whose note came first does not matter.
    for page in [PAGES[1], PAGES[0]] {
        let other = |index: &Pages| {
            index.note(page);
        };
        let orders = every_order(3, made, &[&note_and_commit, &other], |index| {
            all_told(&index, 1, &[PAGES[0], page])?;
            let late = index.get(PAGES[4]).expect("made").stamped_after(0);
            match late.is_empty() {
                true => Ok(()),
                false => Err("a note was missed by the commit after it".into()),
            }
        })
        .expect("nothing is lost");
        assert!(orders >= 100, "only {orders} orders");
    }
}

#[test]
fn a_page_that_is_noted_again_for_a_pin_is_told_by_the_next_commit() {
    let commits = |index: &Pages| {
        let at = PAGES[0] as usize;
        index.harvest(1, false, &mut Clean(Bits::range(at, at + 1)));
    };
    let note = |index: &Pages| {
        index.note(PAGES[1]);
    };
    let make = || {
        let index = made();
        index.note(PAGES[0]);
        index
    };
    let orders = every_order(4, make, &[&commits, &note], |index| {
        commit(&index, 2);
        let stamped = index.get(PAGES[0]).expect("made").stamped_after(1);
        if stamped.and(&Bits::range(3, 4)).is_empty() {
            return Err("a pinned page is not told again".into());
        }
        all_told(&index, 2, &PAGES[..2])
    })
    .expect("nothing is lost");
    assert!(orders >= 100, "only {orders} orders");
}

#[test]
fn a_note_is_lost_when_changes_are_torn() {
    let torn = |index: &Pages| {
        atomic::TORN.set(true);
        commit(index, 1);
        atomic::TORN.set(false);
    };
    let note = |index: &Pages| {
        index.note(PAGES[1]);
    };
    let make = || {
        let index = made();
        index.note(PAGES[0]);
        index
    };
    let lost = every_order(3, make, &[&torn, &note], |index| {
        all_told(&index, 1, &PAGES[..2])
    });
    let wrong = lost.expect_err("not found");
    println!("{wrong}");
    assert!(wrong.contains("is told by no commit"), "{wrong}");
}

#[test]
fn a_chunk_that_several_make_at_once_is_made_once_and_nothing_leaks() {
    let make = |page: u64| {
        move |index: &Index<AtomicU64, Counted>| {
            atomic::POINTERS.set(true);
            index.chunk(page).expect("memory");
            index.note(page);
        }
    };
    let (first, second) = (make(PAGES[0]), make(PAGES[1]));
    let empty = || Index::<AtomicU64, Counted>::new(Tracker::new(Policy::Adaptive));
    let orders = every_order(2, empty, &[&first, &second], |index| {
        all_told(&index, 0, &PAGES[..2])?;
        let chunks = index.chunks();
        drop(index);
        match chunks {
            1 => Ok(()),
            _ => Err(format!("{chunks} chunks were made")),
        }
    })
    .expect("one chunk");
    assert!(orders >= 100, "only {orders} orders");
    assert_eq!(HELD.load(Ordering::Relaxed), 0, "memory leaked");
}
