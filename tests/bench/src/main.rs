// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tracking and checkpoints cost, beside what else there is. `make bench` runs all of it.
//!
//! `tracking` and `pause` are meant for the test VM with an instruction count for a clock,
//! where a nanosecond is an instruction, exact and repeatable. Elsewhere their numbers are
//! times and as noisy as the machine. `durable` and `store` measure time on a real disk.

mod chart;
mod check;
mod durable;
mod pause;
mod record;
mod report;
mod store;
mod tracking;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::Subcommand;

/// Measures, and shows what was measured.
#[derive(Parser)]
#[command(name = "ckpt-bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Instructions of a write phase and of finding what changed, by mechanism
    Tracking(tracking::Options),
    /// Pause and total of an incremental checkpoint
    Pause(pause::Options),
    /// The program that `pause` checkpoints from outside
    #[command(hide = true)]
    Program {
        /// Where its orders are
        folder: PathBuf,
    },
    /// Latency of small durable commits
    Durable(durable::Options),
    /// Throughput of a full save and of a restore, against the bare compressor and the disk
    Store(store::Options),
    /// Draws cost against changed pages, from tracking.json
    Chart {
        /// Folder of the JSON files
        folder: PathBuf,
        /// Where the picture goes
        picture: PathBuf,
    },
    /// Prints tables in Markdown, from the JSON files
    Report {
        /// Folder of the JSON files
        folder: PathBuf,
        /// A document that has a place for them
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Compares what was measured with what is required, from tracking.json and store.json
    Check {
        /// Folder of the JSON files
        folder: PathBuf,
    },
}

fn run(what: What) -> Result<bool> {
    match what {
        What::Tracking(options) => tracking::run(&options)?,
        What::Pause(options) => pause::run(&options)?,
        What::Program { folder } => pause::run_program(&folder)?,
        What::Durable(options) => durable::run(&options)?,
        What::Store(options) => store::run(&options)?,
        What::Chart { folder, picture } => chart::run(&folder, &picture)?,
        What::Report { folder, into } => report::run(&folder, into.as_deref())?,
        What::Check { folder } => return check::run(&folder),
    }
    Ok(true)
}

fn main() -> ExitCode {
    match run(Arguments::parse().what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ckpt-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
