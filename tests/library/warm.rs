// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program that dies again and again, and looks each time whether it has the state of its last
//! commit. `ckptctl run --warm` is to start it.

use std::env;
use std::path::Path;
use std::process;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::claims::Claim;

/// Wants to be run by `ckptctl run --restart on-failure --warm`.
pub const PROGRAMS: &[Claim] = &[("dies_and_goes_on", dies_and_goes_on)];

/// Size of its state in MiB.
const MIB: &str = "CKPT_TEST_MIB";

const WORDS: usize = 512;
/// Pages that each commit changes, and that are changed without one.
const CHANGED: usize = 50;
/// Commits in each life, and in all.
const COMMITS: u64 = 3;
const LAST: u64 = 15;

/// The pages that commit `number` changes, of so many.
fn pages_of(number: u64, pages: usize) -> impl Iterator<Item = usize> {
    (0..CHANGED).map(move |nth| 1 + (number as usize * 7919 + nth * 104_729) % (pages - 1))
}

fn dies_and_goes_on(dir: &Path) {
    let mib: usize = env::var(MIB).unwrap().parse().unwrap();
    let pages = mib << 8;
    let options = Options::new()
        .dir(dir.join("chain"))
        .name("warm")
        .arena_bytes((mib as u64 + 64) << 20)
        .no_code_pointers();
    let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
    let spec = RegionSpec {
        name: "state",
        kind: 1,
        len_bytes: (mib as u64) << 20,
        reserve_bytes: 0,
    };
    let region = context.region(&spec).unwrap().cast::<u64>();
    let word = |page: usize, word: usize| {
        assert!(page < pages && word < WORDS);
        // SAFETY: Within the region.
        unsafe { region.add(page * WORDS + word) }
    };
    // SAFETY: As above, and no other thread writes.
    let get = |page, at| unsafe { word(page, at).read_volatile() };
    // SAFETY: As above.
    let put = |page, at, value| unsafe { word(page, at).write_volatile(value) };
    // The first page says how many commits there were, each page by which it was changed.
    let mut done = get(0, 0);
    match context.restored_epoch() {
        None => {
            for page in 1..pages {
                put(page, 0, 1);
                put(page, 1, page as u64);
            }
            done = 1;
            put(0, 0, done);
            context.commit_sync().unwrap();
        }
        Some(_) => {
            let mut expected = vec![1; pages];
            for number in 2..=done {
                pages_of(number, pages).for_each(|page| expected[page] = number);
            }
            let wrong = (1..pages).find(|&page| {
                get(page, 0) != expected[page] || get(page, 1) != page as u64 || get(page, 9) != 0
            });
            assert_eq!(wrong, None, "a page that is not as in commit {done}");
        }
    }
    println!("{done}");
    for number in done + 1..=done + COMMITS {
        pages_of(number, pages).for_each(|page| put(page, 0, number));
        put(0, 0, number);
        context.commit_sync().unwrap();
    }
    if done + COMMITS >= LAST {
        return context.close().unwrap();
    }
    // These are no commit's.
    pages_of(LAST + 1 + done, pages).for_each(|page| put(page, 9, done));
    put(0, 0, 77_777);
    kill(Pid::from_raw(process::id() as i32), Signal::SIGKILL).unwrap();
}
