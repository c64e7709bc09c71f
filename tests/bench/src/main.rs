// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tracking costs: the instructions of a write phase, of the commit behind it and of
//! the delta, by number and pattern of changed pages.
//!
//! Meant for the test VM with an instruction count for a clock (`make bench`), where a
//! nanosecond is an instruction, exact and repeatable. Elsewhere the numbers are times and
//! as noisy as the machine.

mod workload;

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use ckptctl::sys::device::ArenaFd;
use ckptctl::sys::device::Device;
use ckptctl::sys::memory::Mapping;
use ckptctl::sys::memory::PAGE;
use workload::Pattern;
use workload::Workload;

/// Pages of the arena: 256 MiB.
const PAGES: u64 = 65_536;
/// Changed pages: 0.01, 0.1, 1, 10 and 50 %.
const CHANGED: [u64; 5] = [6, 65, 655, 6_553, 32_768];
/// A cell is the last of so many repetitions with the same pages.
const REPETITIONS: u32 = 6;

/// An arena all of whose pages have memory.
struct Arena {
    fd: ArenaFd,
    mapping: Mapping,
    epoch: u64,
}

/// What one repetition cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    write: u64,
    commit: u64,
    delta: u64,
    /// Pages that the delta named.
    pages: u64,
}

impl Arena {
    fn new(pages: u64) -> io::Result<Arena> {
        let fd = Device::open()?.create("bench", pages * PAGE as u64, 0)?;
        let mapping = Mapping::shared(fd.as_fd(), 0, pages as usize * PAGE)?;
        let mut arena = Arena {
            fd,
            mapping,
            epoch: 0,
        };
        let all: Vec<u64> = (0..pages).collect();
        arena.repeat(&Workload::of_pages(all))?;
        Ok(arena)
    }

    fn repeat(&mut self, workload: &Workload) -> io::Result<Cost> {
        let begun = Instant::now();
        workload.write(&self.mapping);
        let written = Instant::now();
        let commit = self.fd.commit()?;
        let committed = Instant::now();
        let mut pages = 0;
        self.fd.delta(self.epoch, |_, len| pages += len)?;
        let told = Instant::now();
        self.epoch = commit.epoch;
        Ok(Cost {
            write: (written - begun).as_nanos() as u64,
            commit: (committed - written).as_nanos() as u64,
            delta: (told - committed).as_nanos() as u64,
            pages,
        })
    }
}

fn measure() -> io::Result<()> {
    println!(
        "Instructions per epoch, module, arena of 256 MiB, repetition {REPETITIONS} with the same pages."
    );
    println!(
        "Each changed page gets 8 one-byte increments 512 bytes apart, which the write column contains."
    );
    println!();
    println!("pattern     changed      write     commit      delta      total   named");
    for pattern in [Pattern::Random, Pattern::Sequential] {
        let mut arena = Arena::new(PAGES)?;
        for changed in CHANGED {
            let workload = Workload::new(pattern, PAGES, changed);
            let mut cost = Cost::default();
            for _ in 0..REPETITIONS {
                cost = arena.repeat(&workload)?;
            }
            let total = cost.write + cost.commit + cost.delta;
            println!(
                "{:<11} {:>7} {:>10} {:>10} {:>10} {:>10} {:>7}",
                pattern.name(),
                changed,
                cost.write,
                cost.commit,
                cost.delta,
                total,
                cost.pages
            );
        }
        let idle = arena.repeat(&Workload::of_pages(Vec::new()))?;
        println!(
            "{:<11} {:>7} {:>10} {:>10} {:>10} {:>10} {:>7}",
            "idle",
            0,
            idle.write,
            idle.commit,
            idle.delta,
            idle.write + idle.commit + idle.delta,
            idle.pages
        );
    }
    Ok(())
}

fn main() {
    if let Err(error) = measure() {
        eprintln!(
            "ckpt-bench: {error}: it needs /dev/ckpt and {PAGES} pages of memory, see make bench"
        );
        std::process::exit(1);
    }
}
