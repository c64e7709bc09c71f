// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pause and total of an incremental checkpoint of the same program, by several means.

mod ckpt;
mod criu;
mod fork;
mod program;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::record::emit;

pub use program::run as run_program;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A folder on the disk that the checkpoints go to
    #[arg(long, default_value = "/scratch/pause")]
    folder: PathBuf,
    /// Seconds to wait first
    #[arg(long, default_value_t = 20)]
    settle: u64,
}

/// Bytes of the program's memory.
const BYTES: usize = 256 << 20;
/// Changed pages: 0.1, 1 and 10 %.
const CHANGED: [usize; 3] = [65, 655, 6_553];
/// Checkpoints of each kind; the median counts.
const REPETITIONS: usize = 3;

/// What one checkpoint took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// For how long the program stood still.
    pub pause: Duration,
    /// Until everything was on disk.
    pub total: Duration,
    /// Bytes that were written.
    pub written: u64,
}

/// A way to checkpoint.
trait Means {
    /// Changes so many random pages, of a set of its own, and makes a checkpoint.
    fn checkpoint(&mut self, changed: usize, seed: u64) -> Result<Took>;
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    std::thread::sleep(Duration::from_secs(options.settle));
    std::fs::create_dir_all(&options.folder)
        .with_context(|| format!("making {}", options.folder.display()))?;
    println!(
        "Milliseconds of the test VM's clock, which counts instructions and the time that its"
    );
    println!(
        "disk is waited for; 256 MiB, random pages, median of {REPETITIONS}. Pause: how long the program"
    );
    println!(
        "stands still. Total: until all is on disk. Not in it: what caches cost, a real disk, and the"
    );
    println!(
        "faults that later writes to pages take that are being saved (ckpt: changed ones, fork: all)."
    );
    println!();
    println!("by              changed      pause      total   MiB written");
    for name in ["ckpt", "criu", "fork"] {
        let mut means: Box<dyn Means> = match name {
            "ckpt" => Box::new(ckpt::Ckpt::new(&options.folder)?),
            "criu" => Box::new(criu::Criu::new(&options.folder)?),
            _ => Box::new(fork::Fork::new(&options.folder)?),
        };
        for changed in CHANGED {
            let mut all = Vec::new();
            for repetition in 0..REPETITIONS {
                let seed = (changed * REPETITIONS + repetition) as u64 + 1;
                all.push(
                    means
                        .checkpoint(changed, seed)
                        .with_context(|| format!("{name}, {changed} pages"))?,
                );
            }
            tell(name, changed, &all);
        }
        // The next needs the room.
        drop(means);
        std::fs::remove_dir_all(&options.folder)?;
        std::fs::create_dir_all(&options.folder)?;
    }
    Ok(())
}

fn tell(name: &str, changed: usize, all: &[Took]) {
    let median = |of: fn(&Took) -> u64| {
        let mut values: Vec<_> = all.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let pause = median(|took| took.pause.as_nanos() as u64);
    let total = median(|took| took.total.as_nanos() as u64);
    let written = median(|took| took.written);
    println!(
        "{name:<14} {changed:>8} {:>10.3} {:>10.3} {:>12.2}",
        pause as f64 / 1e6,
        total as f64 / 1e6,
        written as f64 / 1048576.0
    );
    emit(
        "pause",
        &json!({
            "mechanism": name,
            "program_bytes": BYTES,
            "changed_pages": changed,
            "repetitions": all.len(),
            "pause_nanoseconds": pause,
            "total_nanoseconds": total,
            "written_bytes": written,
        }),
    );
}
