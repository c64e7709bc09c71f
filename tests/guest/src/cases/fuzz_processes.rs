// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several unprivileged processes that call anything at all, at the same time.
//!
//! Nothing may crash, hang or be left behind, and nothing of other users may be
//! reached: not opened, not listed, not changed.

mod requests;
mod worker;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use crate::abi;
use crate::arena::Arena;
use crate::credentials::SOMEBODY_ELSE;
use crate::credentials::become_user;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::diag;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::process::Peer;
use crate::runner::Test;
use crate::tests;
use worker::work;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    600 => unprivileged_processes_that_call_anything_break_nothing_and_reach_nothing_of_others,
];

const WORKERS: usize = 4;

// Arenas of somebody else, and of root, with content that nobody may change.
struct Canaries {
    ids: Vec<u64>,
}

fn fill(arena: &Arena) -> Result<Mapping, Failure> {
    let map = arena.map_all()?;
    for page in 0..arena.len_pages() as usize {
        map.write(page * PAGE, &arena.id().to_ne_bytes().repeat(PAGE / 8));
    }
    arena.commit()?;
    Ok(map)
}

fn ensure_unharmed(arena: &Arena, map: &Mapping) -> Outcome {
    let expected = arena.id().to_ne_bytes().repeat(PAGE / 8);
    for page in 0..arena.len_pages() as usize {
        ensure!(
            map.read(page * PAGE, PAGE) == expected,
            "page {page} of arena {} was changed",
            arena.id()
        );
    }
    let (info, stats) = (arena.info()?, arena.stats()?);
    ensure_eq!(
        (info.epoch, info.changed_pages, stats.commits),
        (1, 0, 1),
        "epoch, changes and commits of arena {}",
        arena.id()
    );
    ensure_eq!(stats.snapshots_made, 0, "snapshots of arena {}", arena.id());
    Ok(())
}

fn unprivileged_processes_that_call_anything_break_nothing_and_reach_nothing_of_others(
    options: &Options,
) -> Outcome {
    diag!("seed {} calls {}", options.seed, options.fuzz_calls);
    let device = Device::open()?;
    let own = device.create("of root", 16)?;
    let own_map = fill(&own)?;
    let owner = Peer::start(|link| {
        become_user(SOMEBODY_ELSE)?;
        let open = device.create("of somebody else", 16)?;
        let private = device.create_with(&mut abi::ckpt_create {
            flags: abi::CKPT_CREATE_PRIVATE,
            ..create_request("private", 16)
        })?;
        let maps = (fill(&open)?, fill(&private)?);
        link.send_number(open.id())?;
        link.send_number(private.id())?;
        link.receive()?;
        ensure_unharmed(&open, &maps.0)?;
        ensure_unharmed(&private, &maps.1)
    })?;
    let canaries = Canaries {
        ids: vec![
            own.id(),
            owner.link.receive_number()?,
            owner.link.receive_number()?,
        ],
    };
    let mut workers = Vec::new();
    for worker in 0..WORKERS as u64 {
        let calls = options.fuzz_calls / WORKERS;
        let seed = options.seed ^ (worker << 40);
        workers.push(Peer::start(|link| {
            // It must not have by inheritance what it must not reach.
            // SAFETY: closes the child's copy, which nothing in the child uses.
            unsafe { libc::close(own.as_fd().as_raw_fd()) };
            work(&device, &canaries, calls, seed, &link)
        })?);
    }
    let mut done = 0;
    for worker in workers {
        let answer = worker.link.receive_number();
        worker.finish()?;
        done += answer?;
    }
    diag!("{done} calls were carried out");
    ensure!(
        done * 20 > options.fuzz_calls as u64,
        "only {done} of {} calls were carried out",
        options.fuzz_calls
    );
    owner.link.send_number(0)?;
    owner.finish()?;
    ensure_unharmed(&own, &own_map)
}
