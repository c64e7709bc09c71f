// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A full save and a restore of much realistic data, against what the disk and the bare compressor
//! take, on one disk, in turns.

mod bare;
mod data;

mod random;
mod usage;

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use ckptctl::Compacting;
use ckptctl::Context;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use ckptctl::store;
use ckptctl::store::Compression;
use ckptctl::sys::thread;
use clap::Args;
use nix::unistd::syncfs;
use serde_json::json;

use crate::record::emit;
use bare::Stored;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// A folder on the disk in question
    #[arg(long, default_value = "target/bench/tmp")]
    folder: PathBuf,
    /// MiB of data. Takes 3.5 times as much memory, with the tracker compare twice as much more
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    mib: u64,
    /// Times that each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Where the data begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How pages are compressed: lz4, zstd, zstd:LEVEL, none
    #[arg(long, value_delimiter = ',', default_value = "lz4,zstd,none")]
    compressions: Vec<Compression>,
    /// Threads that compress; without it as many as programs get
    #[arg(long)]
    pack_threads: Option<usize>,
}

/// What one direction took in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    library: Duration,
    /// Of all processors together, which does not depend on who else uses them.
    library_processor: Duration,
    compressor: Duration,
    disk: Duration,
    /// Compressor and disk at the same time.
    at_once: Duration,
    /// Memory beyond that of the state, at most.
    peak_bytes: u64,
}

impl Took {
    /// How fast the library is, of what both would reach together if neither took anything from
    /// the other.
    fn of_slower(&self) -> f64 {
        self.of(self.compressor.max(self.disk))
    }

    /// Of what both reach at the same time.
    fn of_at_once(&self) -> f64 {
        self.of(self.at_once)
    }

    /// Of what both reach one after the other.
    fn of_sum(&self) -> f64 {
        self.of(self.compressor + self.disk)
    }

    fn of(&self, bare: Duration) -> f64 {
        bare.as_secs_f64() / self.library.as_secs_f64()
    }
}

/// What is measured, and with what.
struct Bench<'a> {
    options: &'a Options,
    data: &'a [u8],
    runs: &'a [Range<usize>],
    compression: Compression,
    pack_threads: usize,
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.folder)
        .with_context(|| format!("making {}", options.folder.display()))?;
    let mut data = vec![0; (options.mib as usize) << 20];
    let extents = data::fill(&mut data, options.seed);
    let runs = bare::runs(&data);
    let pack_threads = match options.pack_threads {
        Some(threads) => threads,
        None => store::Options::default().threads,
    };

    println!(
        "Time, not instructions: {} MiB, {} rounds in turns, on the disk of {}.",
        options.mib,
        options.rounds,
        options.folder.display()
    );
    let shares = data::Kind::SHARES.iter().map(|&(kind, _)| {
        let of_kind = extents.iter().filter(|extent| extent.1 == kind);
        let bytes: usize = of_kind.map(|extent| extent.0.len()).sum();
        format!(
            "{} {:.1} %",
            kind.name(),
            bytes as f64 * 100.0 / data.len() as f64
        )
    });
    println!("The data: {}.", shares.collect::<Vec<_>>().join(", "));
    println!("Save: a commit of all pages, until it is durable. Restore: from opening the chain,");
    println!("which is not in the page cache, until the program has its state. Beside it the bare");
    println!("compressor and as many bytes to and from the disk, each by itself, and at once. The");
    println!(
        "library's speed of theirs: of the slower of the two by itself, which is what both would"
    );
    println!(
        "reach if neither took anything from the other; the lowest of these; of both at once; of"
    );
    println!("one after the other. Medians. Beyond: memory beside the state, at most.");
    println!();
    println!(
        "what     codec    library  compr.    disk at once  MiB/s  of slower lowest at once  sum  beyond"
    );
    for &compression in &options.compressions {
        let bench = Bench {
            options,
            data: &data,
            runs: &runs,
            compression,
            pack_threads,
        };
        bench.run()?;
    }
    Ok(())
}

impl Bench<'_> {
    fn run(&self) -> Result<()> {
        let stored = Stored::new(self.data, self.runs, self.compression)?;
        let (mut saves, mut restores) = (Vec::new(), Vec::new());
        let (mut stored_bytes, mut tracker) = (0, "");
        for round in 0..self.options.rounds {
            let (mut save, mut restore) = (Took::default(), Took::default());
            // Who goes first has what the one before left to the disk.
            let library_first = round % 2 == 0;
            if library_first || stored_bytes == 0 {
                (stored_bytes, tracker) = self.library(&mut save, &mut restore)?;
                self.bare(&stored, stored_bytes, &mut save, &mut restore)?;
            } else {
                self.bare(&stored, stored_bytes, &mut save, &mut restore)?;
                self.library(&mut save, &mut restore)?;
            }
            saves.push(save);
            restores.push(restore);
        }
        self.tell("save", self.pack_threads, tracker, stored_bytes, &saves);
        self.tell(
            "restore",
            thread::processors(),
            tracker,
            stored_bytes,
            &restores,
        );
        Ok(())
    }

    /// Saves and restores; the bytes of the chain, and the tracker.
    fn library(&self, save: &mut Took, restore: &mut Took) -> Result<(u64, &'static str)> {
        let chain = self.options.folder.join("chain");
        let _ = fs::remove_dir_all(&chain);
        let options = ckptctl::Options::new()
            .dir(&chain)
            .name("bench")
            .arena_bytes(self.data.len() as u64 + (64 << 20))
            .compression(self.compression)
            .compacting(Compacting::Never)
            .pack_threads(self.pack_threads)
            .no_code_pointers();
        let open = |restore| Context::open(options.clone().restore(restore));
        let state = |context: &Context| {
            let region = context.region(&RegionSpec {
                name: "state",
                kind: 0,
                len_bytes: self.data.len() as u64,
                reserve_bytes: 0,
            })?;
            // SAFETY: The region is this program's, of that size, nobody else uses it, and the
            // slice is not used when the context is closed.
            anyhow::Ok(unsafe { std::slice::from_raw_parts_mut(region.as_ptr(), self.data.len()) })
        };

        let context = open(Restore::Nothing)?;
        let tracker = context.tracker();
        let to = state(&context)?;
        for run in self.runs {
            to[run.clone()].copy_from_slice(&self.data[run.clone()]);
        }
        self.settle()?;
        let before = usage::begin()?;
        let used = usage::processor_time()?;
        let begun = Instant::now();
        let commit = context.commit_sync()?;
        save.library = begun.elapsed();
        save.library_processor = usage::processor_time()?.saturating_sub(used);
        save.peak_bytes = usage::peak()?.saturating_sub(before);
        context.close()?;

        let segments = fs::read_dir(&chain)?.map(|entry| anyhow::Ok(entry?.path()));
        for file in segments.collect::<Result<Vec<_>>>()? {
            bare::forget(&file)?;
        }
        self.settle()?;
        let before = usage::begin()?;
        let used = usage::processor_time()?;
        let begun = Instant::now();
        let context = open(Restore::Newest)?;
        restore.library = begun.elapsed();
        restore.library_processor = usage::processor_time()?.saturating_sub(used);
        let filled: u64 = self.runs.iter().map(|run| run.len() as u64).sum();
        restore.peak_bytes = usage::peak()?.saturating_sub(before + filled);
        let restored = state(&context)?;
        ensure!(
            context.restored_epoch() == Some(commit.epoch) && restored == self.data,
            "what was restored is not what was saved"
        );
        context.close()?;
        fs::remove_dir_all(&chain)?;
        Ok((commit.stored_bytes, tracker))
    }

    fn bare(
        &self,
        stored: &Stored,
        stored_bytes: u64,
        save: &mut Took,
        restore: &mut Took,
    ) -> Result<()> {
        let plain = self.options.folder.join("plain");
        let _ = fs::remove_file(&plain);
        // With no thread beside it the one that saves does it.
        let threads = self.pack_threads.max(1);
        let compress = || bare::compress(self.data, self.runs, self.compression, threads);
        let decompress = || stored.decompress(thread::processors());
        let write = || stored.write(&plain, stored_bytes);
        let read = || bare::read(&plain);

        self.settle()?;
        save.compressor = compress()?;
        self.settle()?;
        save.disk = write()?;
        fs::remove_file(&plain)?;
        self.settle()?;
        save.at_once = bare::at_once(compress, write)?;

        self.settle()?;
        restore.compressor = decompress()?;
        bare::forget(&plain)?;
        self.settle()?;
        restore.disk = read()?;
        bare::forget(&plain)?;
        self.settle()?;
        restore.at_once = bare::at_once(decompress, read)?;
        fs::remove_file(&plain)?;
        Ok(())
    }

    /// Waits until the disk has nothing left of what was before, and there is memory.
    fn settle(&self) -> Result<()> {
        let folder = fs::File::open(&self.options.folder)?;
        syncfs(&folder)?;
        usage::have_at_hand(3 * self.data.len() / 2);
        Ok(())
    }

    fn tell(&self, what: &str, threads: usize, tracker: &str, stored_bytes: u64, all: &[Took]) {
        let nanoseconds = |of: fn(&Took) -> Duration| {
            median(all.iter().map(|took| of(took).as_nanos() as f64)) as u64
        };
        let library = nanoseconds(|took| took.library);
        let compressor = nanoseconds(|took| took.compressor);
        let disk = nanoseconds(|took| took.disk);
        let at_once = nanoseconds(|took| took.at_once);
        let of_slower = median(all.iter().map(Took::of_slower));
        let of_at_once = median(all.iter().map(Took::of_at_once));
        let of_sum = median(all.iter().map(Took::of_sum));
        let lowest = all
            .iter()
            .map(Took::of_slower)
            .fold(f64::INFINITY, f64::min);
        let peak = all.iter().map(|took| took.peak_bytes).max().unwrap_or(0);
        let mib_per_second = self.options.mib as f64 / (library as f64 / 1e9);
        let seconds = |nanoseconds: u64| format!("{:.2} s", nanoseconds as f64 / 1e9);
        let percent = |ratio: f64| format!("{:.0} %", ratio * 100.0);
        println!(
            "{what:<8} {:<8} {:>7} {:>7} {:>7} {:>7} {mib_per_second:>6.0} {:>10} {:>6} {:>7} {:>5} {:>3} MiB",
            self.compression.to_string(),
            seconds(library),
            seconds(compressor),
            seconds(disk),
            seconds(at_once),
            percent(of_slower),
            percent(lowest),
            percent(of_at_once),
            percent(of_sum),
            peak >> 20,
        );
        emit(
            "store",
            &json!({
                "what": what,
                "compression": self.compression.to_string(),
                "tracker": tracker,
                "data_bytes": self.data.len(),
                "stored_bytes": stored_bytes,
                "zero_bytes": self.data.len() - self.runs.iter().map(Range::len).sum::<usize>(),
                "seed": self.options.seed,
                "rounds": all.len(),
                "compressor_threads": threads,
                "median_nanoseconds": library,
                "processor_median_nanoseconds": nanoseconds(|took| took.library_processor),
                "compressor_median_nanoseconds": compressor,
                "disk_median_nanoseconds": disk,
                "mib_per_second": mib_per_second,
                "median_of_slower": of_slower,
                "lowest_of_slower": lowest,
                "at_once_median_nanoseconds": at_once,
                "median_of_at_once": of_at_once,
                "median_of_sum": of_sum,
                "peak_beyond_state_bytes": peak,
            }),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = values.len() / 2;
    match values.len() % 2 {
        0 if values.is_empty() => f64::NAN,
        0 => (values[at - 1] + values[at]) / 2.0,
        _ => values[at],
    }
}
