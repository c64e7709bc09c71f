// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several threads that touch the same pages for the first time, at once.

use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;

use crate::arena::Arena;
use crate::credentials::SOMEBODY;
use crate::credentials::become_user;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::in_child;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    first_touches_at_once_make_one_page,
    first_touches_at_once_charge_a_page_once,
    first_touches_at_once_stay_within_a_reservation,
];

fn first_touches_at_once_make_one_page(_: &Options) -> Outcome {
    const THREADS: usize = 4;
    for _ in 0..20 {
        let arena = Device::open()?.create("first", 600)?;
        let maps: Vec<_> = (0..THREADS)
            .map(|_| arena.map_all())
            .collect::<Result<_, _>>()?;
        std::thread::scope(|scope| {
            for (number, map) in maps.iter().enumerate() {
                scope.spawn(move || {
                    // Writers and readers of the same new pages, in the same order.
                    for page in 0..600 {
                        if number % 2 == 0 {
                            map.set(page * PAGE + number, 7);
                        } else {
                            map.get(page * PAGE + number);
                        }
                    }
                });
            }
        });
        ensure_eq!(arena.info()?.resident_pages, 600, "resident pages");
        ensure_eq!(arena.commit()?.changed_pages, 600, "changed pages");
        for page in 0..600 {
            let bytes = maps[3].read(page * PAGE, 4);
            ensure_eq!(bytes, vec![7, 0, 7, 0], "content of page {page}");
        }
    }
    Ok(())
}

/// Several threads touch all pages of an arena for the first time, in the same order.
fn race_for_first_touches(arena: &Arena) -> Outcome {
    let map = arena.map_all()?;
    let pages = arena.len_pages() as usize;
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (map, start) = (&map, &start);
            scope.spawn(move || {
                start.wait();
                for page in 0..pages {
                    map.set(page * PAGE + number, 7);
                }
            });
        }
    });
    Ok(())
}

fn first_touches_at_once_charge_a_page_once(_: &Options) -> Outcome {
    let device = Device::open()?;
    for round in 0..40 {
        let arena = device.create("charged once", 600)?;
        race_for_first_touches(&arena)?;
        ensure_eq!(
            arena.stats()?.charged_pages,
            600,
            "charged pages in round {round}"
        );
    }
    Ok(())
}

// RESERVE says that touching so many pages cannot fail for the limit; that two threads want the
// same page at once makes it no more pages.
fn first_touches_at_once_stay_within_a_reservation(_: &Options) -> Outcome {
    const PAGES: u64 = 64;
    let device = Device::open()?;
    for round in 0..200 {
        in_child(|| {
            let bytes = PAGES * PAGE as u64;
            setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes)?;
            become_user(SOMEBODY)?;
            let arena = device.create("reserved", PAGES)?;
            arena.reserve(PAGES)?;
            race_for_first_touches(&arena)
        })
        .map_err(|failure| failure.within(format!("round {round}")))?;
    }
    Ok(())
}
