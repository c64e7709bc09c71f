// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl compact`: a chain without the epochs that nobody needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use ckptctl::store;
use ckptctl::store::Chain;
use ckptctl::store::Compaction;
use ckptctl::store::EpochRanges;
use ckptctl::store::Keep;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::json;

use super::chain_json;
use super::figures;
use super::output;
use super::times;

/// Drop epochs of a chain that nobody needs, and give their room back
///
/// Without options, the newest epoch is kept. What is kept can be restored as before; of what is
/// dropped, only what kept epochs build on stays.
///
/// Programs that write to the chain and readers go on meanwhile. The segment that a program
/// writes to is left alone, with what its epochs build on. It can be stopped at any moment, also
/// by SIGKILL or a power cut: then the chain is as it was. What is kept is written anew before
/// anything is removed, so there must be room for both. Every page is checked as it is read;
/// when something that is to be kept is damaged, nothing is changed.
///
/// Memory: 32 MiB at most for pages, and up to 100 bytes per page of the largest image, 300 MiB
/// at most, to find pages that are alike.
#[derive(clap::Args)]
pub struct Args {
    /// The chain's directory
    dir: PathBuf,
    /// Keep the newest N epochs; 1 when not said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keep_last: Option<u64>,
    /// Keep the newest epoch of every TIME, as in 1h or 10min, counted from 1970 on
    #[arg(long, value_name = "TIME", value_parser = times::span)]
    keep_every: Option<Duration>,
    /// With --keep-every: only of epochs that are not older than TIME, as in 2d
    #[arg(long = "for", value_name = "TIME", value_parser = times::span, requires = "keep_every")]
    within: Option<Duration>,
    /// Tell what would be kept and dropped, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let keep = Keep {
        last: args.keep_last.unwrap_or(1),
        every: args.keep_every,
        within: args.within,
    };
    let begun = Instant::now();
    let outcome = if args.dry_run {
        store::preview(&args.dir, &keep)?
    } else {
        let options = store::Options::as_in(&Chain::open(&args.dir)?);
        // Hidden by itself when stderr is no terminal.
        let bar = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} {bytes} of pages copied")?);
        let outcome = store::compact(&args.dir, &keep, &options, |bytes| {
            bar.set_position(bytes);
            true
        });
        bar.finish_and_clear();
        outcome?
    };
    let took_ns = begun.elapsed().as_nanos() as u64;
    if args.json {
        output::print_json(&json(&args, &outcome, took_ns))?;
    } else {
        output::print(&text(&args, &outcome, took_ns))?;
    }
    for damage in &outcome.given_up {
        let verb = if args.dry_run { "would be" } else { "was" };
        output::say(&format!("damage {verb} dropped with its epochs: {damage}"));
    }
    for path in &outcome.not_removed {
        output::say(&format!(
            "{} is not needed any more and cannot be removed; the next compaction or writer tries \
             again",
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(args: &Args, outcome: &Compaction, took_ns: u64) -> String {
    let nothing = outcome.dropped.is_empty();
    let (kept, dropped, after) = match args.dry_run {
        true => ("would keep", "would drop", "after, about"),
        false => ("kept", "dropped", "after"),
    };
    let mut facts = vec![
        ("chain", args.dir.display().to_string()),
        (kept, epochs(&outcome.kept)),
        (dropped, epochs(&outcome.dropped)),
        ("before", figures::bytes(outcome.bytes_before)),
    ];
    if !nothing {
        let share = figures::percent(outcome.bytes_after, outcome.bytes_before);
        let bytes = figures::bytes(outcome.bytes_after);
        facts.push((after, format!("{bytes}, which is {share}")));
    }
    if outcome.bytes_open > 0 {
        let bytes = figures::bytes(outcome.bytes_open);
        facts.push(("left alone", format!("{bytes} that a program writes to")));
    }
    if !args.dry_run {
        facts.push(("time", figures::duration(took_ns)));
    }
    output::facts(facts)
}

/// How many epochs, and which, unless that is too much to read.
fn epochs(epochs: &[u64]) -> String {
    const READABLE: usize = 100;
    let ([first, ..], [.., last]) = (epochs, epochs) else {
        return "none".into();
    };
    let mut which = EpochRanges(epochs).to_string();
    if which.len() > READABLE {
        which = format!("from {first} to {last}");
    }
    format!("{}: {which}", figures::counted(epochs.len() as u64, "epoch"))
}

fn json(args: &Args, outcome: &Compaction, took_ns: u64) -> serde_json::Value {
    let given_up: Vec<_> = outcome.given_up.iter().map(chain_json::damage).collect();
    let not_removed: Vec<_> = outcome
        .not_removed
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    json!({
        "dir": args.dir.display().to_string(),
        "dry_run": args.dry_run,
        "kept": outcome.kept,
        "dropped": outcome.dropped,
        "bytes_before": outcome.bytes_before,
        "bytes_after": outcome.bytes_after,
        "bytes_open": outcome.bytes_open,
        "damage": given_up,
        "not_removed": not_removed,
        "took_ns": (!args.dry_run).then_some(took_ns),
    })
}
