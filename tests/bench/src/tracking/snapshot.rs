// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a snapshot adds to a commit, and to the writes while it is open.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::Options;
use super::memory;
use super::module::Module;
use super::runs;
use super::runs::Mechanism;
use super::workload;
use crate::record::emit;

/// Epochs with the same pages; the last one counts.
const EPOCHS: usize = 6;

/// Measures, with 1 % and 10 % of the pages changed.
pub fn run(options: &Options) -> Result<()> {
    println!();
    println!("Commit alone, plain and with a snapshot, and the write phase while it is open.");
    println!("workload      changed      plain  with snapshot  later writes  their faults");
    for pattern in ["random", "sequential"] {
        for share in [100, 10] {
            let run = workload::settled(options.pages, pattern, options.pages / share, EPOCHS);
            let pages = &run.epochs[0];
            let mut plain = 0;
            let mut arena = filled(options.pages)?;
            for _ in 0..EPOCHS {
                let cost = runs::epoch(&mut arena, pages)?;
                plain = cost.commit - cost.delta;
            }
            drop(arena);
            let mut arena = filled(options.pages)?;
            let (mut frozen, mut later, mut faults) = (0, 0, 0);
            let mut open = None;
            for _ in 0..EPOCHS {
                let before = arena.fd.stats()?.write_faults;
                let begun = Instant::now();
                // SAFETY: The pages are in the arena.
                unsafe { memory::write(arena.base(), pages) };
                later = begun.elapsed().as_nanos() as u64;
                faults = arena.fd.stats()?.write_faults - before;
                // The consumer is done.
                drop(open.take());
                let begun = Instant::now();
                let (commit, snapshot) = arena.fd.commit_with_snapshot(arena.epoch, 0)?;
                frozen = begun.elapsed().as_nanos() as u64;
                arena.epoch = commit.epoch;
                anyhow::ensure!(
                    commit.snapshot_pages >= pages.len() as u64,
                    "a snapshot of {} pages misses some of {}",
                    commit.snapshot_pages,
                    pages.len()
                );
                open = Some(snapshot);
            }
            println!(
                "{pattern:<11} {:>9} {plain:>10} {frozen:>14} {later:>13} {faults:>13}",
                pages.len()
            );
            emit(
                "tracking",
                &json!({
                    "mechanism": options.label,
                    "workload": "snapshot",
                    "pattern": pattern,
                    "arena_pages": options.pages,
                    "dirty_pages": pages.len(),
                    "write_instructions": later,
                    "commit_instructions": frozen,
                    "plain_commit_instructions": plain,
                    "later_write_faults": faults,
                }),
            );
        }
    }
    Ok(())
}

fn filled(pages: u64) -> Result<Module> {
    let mut arena = Module::new(pages)?;
    runs::epoch(&mut arena, &(0..pages).collect::<Vec<_>>())?;
    Ok(arena)
}
