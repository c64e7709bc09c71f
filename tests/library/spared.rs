// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program whose state spares keep: it does what it is told, and looks at every byte that it has
//! whenever it begins and has gone back.
//!
//! Its state is a function of one number, the one that its last commit had: which pages there are
//! and in which commit each was written. Two regions have it, one of which grows and one of which
//! is memory of the program's own.

use std::env;
use std::io;
use std::process;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::Outputs;
use ckptctl::RegionSpec;
use ckptctl::When;
use ckptctl::outputs::Released;
use nix::libc;

use super::adopting::FIXED;
use super::adopting::Memory;

/// Set in the program: the size of its state in MiB.
pub const LIFE: &str = "CKPT_TEST_SPARED";

/// The name of its own arena.
pub const NAME: &str = "spared";

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

/// Pages that each commit changes.
const CHANGED: usize = 50;
/// The commits in which the region grows, and by how many pages.
const GROWS: [u64; 2] = [5, 9];
const GROWTH: usize = 64;
/// Pages of the memory that is adopted.
const OWN: usize = 16;

/// How often its hook behind a takeover ran.
static TAKEOVERS: AtomicU64 = AtomicU64::new(0);

struct Program {
    context: Context,
    start: *mut u64,
    own: Memory,
    /// The region's pages to begin with.
    pages: usize,
}

/// What a word is, in a page that commit `number` wrote.
fn word(page: usize, number: u64, at: usize) -> u64 {
    ((at as u64 % 16 + 1) << 56) | (number << 32) | page as u64
}

impl Program {
    fn open(mib: usize) -> Program {
        let options = Options::new()
            .name(NAME)
            .arena_bytes((2 * mib as u64 + 64) << 20)
            .no_code_pointers()
            .hook(When::AfterTakeover, |_, _| {
                TAKEOVERS.fetch_add(1, Ordering::Relaxed);
                0
            });
        let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
        let spec = RegionSpec {
            name: "state",
            kind: 1,
            len_bytes: (mib as u64) << 20,
            reserve_bytes: (mib as u64 + 1) << 20,
        };
        let start = context.region(&spec).unwrap().cast().as_ptr();
        let own = Memory::mapped("own", FIXED, OWN, libc::MAP_PRIVATE);
        own.adopt(&context);
        Program {
            context,
            start,
            own,
            pages: mib << 8,
        }
    }

    fn pages_at(&self, number: u64) -> usize {
        self.pages + GROWTH * GROWS.iter().filter(|at| number >= **at).count()
    }

    /// The pages that commit `number` writes.
    fn written(&self, number: u64) -> impl Iterator<Item = usize> {
        let pages = self.pages_at(number);
        let new = self.pages_at(number - 1).min(pages)..pages;
        let all = if number == 1 { 0..pages } else { 0..0 };
        let some =
            (0..CHANGED).map(move |nth| 1 + (number as usize * 7919 + nth * 104_729) % (pages - 1));
        all.chain(new).chain(some).chain(0..1)
    }

    /// The pages of its own memory that it writes.
    fn written_own(number: u64) -> std::ops::Range<usize> {
        match number {
            1 => 0..OWN,
            _ => (number as usize % OWN)..(number as usize % OWN + 1),
        }
    }

    fn fill(&self, page: usize, number: u64) {
        for at in 0..WORDS {
            // SAFETY: Within the region, and one thread uses it.
            unsafe {
                let place = self.start.add(page * WORDS + at);
                place.write_volatile(word(page, number, at));
            }
        }
    }

    fn fill_own(&self, page: usize, number: u64) {
        for (at, place) in self.own.words()[page * WORDS..][..WORDS].iter().enumerate() {
            place.store(word(page, number, at), Ordering::Relaxed);
        }
    }

    /// Makes the state that of the next number, and commits; its epoch.
    fn commit(&self, number: u64) -> u64 {
        let len = (self.pages_at(number) * PAGE) as u64;
        self.context.grow_region("state", len).unwrap();
        self.written(number)
            .for_each(|page| self.fill(page, number));
        Self::written_own(number).for_each(|page| self.fill_own(page, number));
        self.context.commit_sync().unwrap().epoch
    }

    /// The number of the state, of which every byte is looked at; 0 for none.
    fn number(&self) -> u64 {
        // SAFETY: Within the region.
        let get = |page: usize, at| unsafe { self.start.add(page * WORDS + at).read_volatile() };
        let number = (get(0, 0) >> 32) & 0xff_ffff;
        let mut last = vec![0; self.pages_at(number)];
        let mut last_own = [0; OWN];
        for number in 1..=number {
            self.written(number).for_each(|page| last[page] = number);
            Self::written_own(number).for_each(|page| last_own[page] = number);
        }
        let len = self.context.region_len("state").unwrap().unwrap();
        assert_eq!(len, (last.len() * PAGE) as u64, "length in commit {number}");
        let is = |page, number, at| {
            if number == 0 {
                0
            } else {
                word(page, number, at)
            }
        };
        for (page, &number) in last.iter().enumerate() {
            let wrong = (0..WORDS).find(|&at| get(page, at) != is(page, number, at));
            assert_eq!(wrong, None, "page {page}, written by commit {number}");
        }
        for (page, &number) in last_own.iter().enumerate() {
            let words = &self.own.words()[page * WORDS..][..WORDS];
            let wrong =
                (0..WORDS).find(|&at| words[at].load(Ordering::Relaxed) != is(page, number, at));
            assert_eq!(wrong, None, "own page {page}, written by commit {number}");
        }
        number
    }

    /// Commits, and waits until it may say so; the epoch.
    fn say(&self) -> u64 {
        let outputs = Outputs::new(&self.context, 10).unwrap();
        outputs.hold(0, ()).unwrap();
        let epoch = self.context.commit().unwrap().epoch;
        assert_eq!(outputs.released(None).unwrap(), Some(Released::Safe(())));
        epoch
    }
}

/// Says its epoch, its number, how often it has taken over and its process, and does what it is
/// told.
pub fn obey() {
    let mib = env::var(LIFE).unwrap().parse().unwrap();
    let program = Program::open(mib);
    let mut number = program.number();
    let mut epoch = program.context.restored_epoch().unwrap_or(0);
    if number == 0 {
        number = 1;
        epoch = program.commit(1);
    }
    let takeovers = TAKEOVERS.load(Ordering::Relaxed);
    println!("{epoch} {number} {takeovers} {}", process::id());
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let (what, how_many) = line.split_once(' ').unwrap_or((&line, "1"));
        let how_many: u64 = how_many.parse().unwrap();
        match what {
            "commit" => {
                for _ in 0..how_many {
                    number += 1;
                    epoch = program.commit(number);
                }
            }
            "when-asked" => {
                while !program.context.pending() {
                    thread::yield_now();
                }
                number += 1;
                epoch = program.commit(number);
            }
            "back-to" => {
                epoch = program.context.rollback(how_many).unwrap().epoch;
                number = program.number();
            }
            // What is no commit's.
            "scribble" => {
                program.written(number + 7).for_each(|page| {
                    if page < program.pages {
                        program.fill(page, 77_777);
                    }
                });
                program.fill_own(3, 77_777);
            }
            "say" => epoch = program.say(),
            "end" => return program.context.close().unwrap(),
            other => panic!("{other}"),
        }
        println!("{epoch} {number}");
    }
}
