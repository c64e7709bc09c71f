// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Latency of small durable commits against plain writes of as many bytes, on one disk, in
//! turns.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use ckptctl::Context;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use clap::Args;
use serde_json::json;

use crate::record::emit;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A folder on the disk in question
    #[arg(long, default_value = "target/bench/tmp")]
    folder: PathBuf,
    /// Commits and writes of each size
    #[arg(long, default_value_t = 200)]
    samples: usize,
}

/// Bytes that a commit has changed: 1, 16 and 256 pages.
const CHANGED: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Bytes of the state.
const STATE: usize = 8 << 20;

/// Bytes that do not compress.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes());
        }
    }
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.folder)
        .with_context(|| format!("making {}", options.folder.display()))?;
    let chain = options.folder.join("chain");
    let plain = options.folder.join("plain");
    let _ = fs::remove_dir_all(&chain);
    let context = Context::open(
        ckptctl::Options::new()
            .dir(&chain)
            .name("bench")
            .arena_bytes(64 << 20)
            .restore(Restore::Nothing)
            .no_code_pointers(),
    )?;
    let region = context.region(&RegionSpec {
        name: "state",
        kind: 0,
        len_bytes: STATE as u64,
        reserve_bytes: 0,
    })?;
    // SAFETY: The region is this program's, of that size, and nobody else uses it.
    let state = unsafe { std::slice::from_raw_parts_mut(region.as_ptr(), STATE) };
    let file = File::create(&plain).with_context(|| format!("making {}", plain.display()))?;
    let mut noise = Noise(1);
    noise.fill(state);
    context.commit_sync()?;

    println!(
        "Time, not instructions, in microseconds: {} times each, in turns, on the disk of",
        options.samples
    );
    println!(
        "{}. A state of 8 MiB, bytes that do not compress, tracker {}.",
        options.folder.display(),
        context.tracker()
    );
    println!("The commit: from its call until it is durable; how long the program stands still is");
    println!("its pause. The write: appending as many bytes, and fdatasync. Not in it: other");
    println!("writers, and disks that answer before they have written.");
    println!();
    println!("changed    what                 median      p10      p90");
    let mut place = 0;
    for changed in CHANGED {
        let (mut commits, mut pauses, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = vec![0; changed];
        for sample in 0..options.samples {
            let first = sample * changed % (STATE - changed + 1);
            noise.fill(&mut state[first..first + changed]);
            let begun = Instant::now();
            let commit = context.commit()?;
            pauses.push(begun.elapsed().as_nanos() as u64);
            context.wait(commit.epoch, None)?;
            commits.push(begun.elapsed().as_nanos() as u64);

            noise.fill(&mut bytes);
            let begun = Instant::now();
            file.write_all_at(&bytes, place)?;
            file.sync_data()?;
            writes.push(begun.elapsed().as_nanos() as u64);
            place += changed as u64;
        }
        let plain = tell("pwrite+fdatasync", "", changed, &mut writes, None);
        tell(
            "ckpt",
            context.tracker(),
            changed,
            &mut commits,
            Some(plain),
        );
        tell("ckpt pause", context.tracker(), changed, &mut pauses, None);
    }
    context.close()?;
    fs::remove_dir_all(&chain)?;
    fs::remove_file(&plain)?;
    Ok(())
}

/// Shows and emits; returns the median.
fn tell(
    mechanism: &str,
    tracker: &str,
    changed: usize,
    samples: &mut [u64],
    plain: Option<u64>,
) -> u64 {
    samples.sort_unstable();
    let at = |tenths: usize| samples[(samples.len() - 1) * tenths / 10];
    let (median, low, high) = (at(5), at(1), at(9));
    let ratio = plain.map(|plain| median as f64 / plain as f64);
    let shown = ratio.map_or(String::new(), |ratio| {
        format!("   {ratio:.2} times the write")
    });
    println!(
        "{:>4} KiB   {mechanism:<18} {:>8} {:>8} {:>8}{shown}",
        changed >> 10,
        median / 1000,
        low / 1000,
        high / 1000
    );
    emit(
        "durable",
        &json!({
            "mechanism": mechanism,
            "tracker": tracker,
            "changed_bytes": changed,
            "state_bytes": STATE,
            "samples": samples.len(),
            "median_nanoseconds": median,
            "p10_nanoseconds": low,
            "p90_nanoseconds": high,
            "median_of_pwrite_fdatasync": ratio,
        }),
    );
    median
}
