// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl log`: the commits of a chain.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use ckptctl::store::Chain;
use ckptctl::store::CommitInfo;
use ckptctl::store::FullCost;
use serde::Serialize;

use super::chain_arg;
use super::chain_json;
use super::figures;
use super::output;
use super::output::Column;
use super::sparkline;

/// Characters of the line that is drawn.
const SPARKLINE: usize = 60;

/// List a chain's commits: when, how many pages, what they take and would have taken
///
/// PAGES are those that were written before the commit. Of these, SAME had the content of the
/// commit before still, and ALIKE that of other pages that are stored: neither is stored again. BYTES
/// are those of all PAGES, STORED is what the commit takes on disk. On a terminal a line is drawn of
/// what each commit takes, from the oldest to the newest.
#[derive(clap::Args)]
pub struct Args {
    /// The chain's directory
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let chain = Chain::open(&args.dir)?;
    let costs = chain.full_costs()?;
    let totals = Totals::of(&chain, &costs);
    if args.json {
        output::print_json(&json(&chain, &costs, &totals))?;
    } else {
        output::print(&text(&chain, &totals))?;
    }
    Ok(chain_arg::warn(&chain))
}

/// Over the commits that can be restored, because only of these it is known
/// what a full checkpoint would have held.
#[derive(Default, Serialize)]
struct Totals {
    commits: u64,
    changed_pages: u64,
    shared_pages: u64,
    unchanged_pages: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    full_pages: u64,
    full_raw_bytes: u64,
    full_stored_bytes: u64,
}

impl Totals {
    fn of(chain: &Chain, costs: &[FullCost]) -> Totals {
        let mut totals = Totals::default();
        for commit in chain.commits().filter(|commit| commit.restorable) {
            totals.commits += 1;
            totals.changed_pages += commit.pages();
            totals.shared_pages += commit.shared_pages;
            totals.unchanged_pages += commit.unchanged_pages;
            totals.raw_bytes += commit.raw_bytes();
            totals.stored_bytes += commit.stored_bytes;
        }
        for cost in costs {
            totals.full_pages += cost.live_pages;
            totals.full_raw_bytes += cost.raw_bytes;
            totals.full_stored_bytes += cost.stored_bytes;
        }
        totals
    }
}

fn text(chain: &Chain, totals: &Totals) -> String {
    let columns = [
        Column::Figures("EPOCH"),
        Column::Words("KIND"),
        Column::Words("TIME"),
        Column::Figures("PAUSE"),
        Column::Figures("PAGES"),
        Column::Figures("SAME"),
        Column::Figures("ALIKE"),
        Column::Figures("BYTES"),
        Column::Figures("STORED"),
        Column::Figures("RATIO"),
        Column::Words("NOTE"),
    ];
    let mut previous = None;
    let rows: Vec<Vec<String>> = chain
        .commits()
        .map(|commit| {
            let note = note(commit, previous);
            previous = Some(commit.epoch);
            vec![
                commit.epoch.to_string(),
                commit.kind.name().into(),
                figures::time(commit.time_ns),
                figures::duration(commit.pause_ns),
                figures::count(commit.pages()),
                figures::count(commit.unchanged_pages),
                figures::count(commit.shared_pages),
                figures::bytes(commit.raw_bytes()),
                figures::bytes(commit.stored_bytes),
                figures::percent(commit.stored_bytes, commit.raw_bytes()),
                note,
            ]
        })
        .collect();
    let mut text = if rows.is_empty() {
        String::new()
    } else {
        output::table(&columns, rows) + "\n"
    };
    let mut facts = Vec::new();
    let stored: Vec<u64> = chain.commits().map(|commit| commit.stored_bytes).collect();
    if std::io::stdout().is_terminal() && stored.len() > 1 {
        let most = stored.iter().max().copied().unwrap_or(0);
        let line = sparkline::draw(&stored, SPARKLINE);
        facts.push(("each takes", format!("{line} up to {}", figures::bytes(most))));
    }
    facts.extend([
        (
            "commits",
            format!(
                "{}, {} written: {} unchanged, {} like others",
                figures::count(totals.commits),
                figures::counted(totals.changed_pages, "page"),
                figures::count(totals.unchanged_pages),
                figures::count(totals.shared_pages)
            ),
        ),
        (
            "stored",
            format!(
                "{}, which is {} of the written pages' bytes",
                figures::bytes(totals.stored_bytes),
                figures::percent(totals.stored_bytes, totals.raw_bytes)
            ),
        ),
        (
            "full checkpoints",
            format!(
                "would have saved {}, {}, and taken {}",
                figures::counted(totals.full_pages, "page"),
                figures::bytes(totals.full_raw_bytes),
                figures::bytes(totals.full_stored_bytes)
            ),
        ),
        (
            "so this chain takes",
            format!(
                "{} of what full checkpoints would have taken, compressed alike",
                figures::percent(totals.stored_bytes, totals.full_stored_bytes)
            ),
        ),
    ]);
    text += &output::facts(facts);
    text
}

/// What is unusual about a commit, given the epoch before it.
fn note(commit: &CommitInfo, previous: Option<u64>) -> String {
    let mut notes = Vec::new();
    match commit.parent {
        Some(parent) if Some(parent) != previous => notes.push(format!("from {parent}")),
        None if previous.is_some() => notes.push("stands alone".into()),
        _ => {}
    }
    if commit.compacted {
        notes.push("compacted".into());
    }
    if !commit.restorable {
        notes.push("DAMAGED".into());
    }
    notes.join(", ")
}

fn json(chain: &Chain, costs: &[FullCost], totals: &Totals) -> serde_json::Value {
    let costs: HashMap<u64, &FullCost> = costs.iter().map(|cost| (cost.epoch, cost)).collect();
    let commits: Vec<serde_json::Value> = chain
        .commits()
        .map(|commit| {
            let cost = costs.get(&commit.epoch);
            let mut value = chain_json::commit(chain, commit);
            value["full_pages"] = cost.map(|cost| cost.live_pages).into();
            value["full_raw_bytes"] = cost.map(|cost| cost.raw_bytes).into();
            value["full_stored_bytes"] = cost.map(|cost| cost.stored_bytes).into();
            value
        })
        .collect();
    let mut value = chain_json::chain(chain);
    value["commits"] = commits.into();
    value["totals"] = serde_json::json!(totals);
    value
}
