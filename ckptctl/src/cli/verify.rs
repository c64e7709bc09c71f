// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl verify`: is every byte of a chain as it was written?

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use ckptctl::store::Chain;
use ckptctl::store::EpochRanges;
use ckptctl::store::Report;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::json;

use super::chain_json;
use super::exit::Exit;
use super::figures;
use super::output;

/// Read all of a chain, name every damage and what it costs
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
    // Hidden by itself when stderr is no terminal.
    let bar = ProgressBar::new(chain.bytes()).with_style(ProgressStyle::with_template(
        "{bytes} of {total_bytes} {wide_bar} {eta} left",
    )?);
    let report = chain.verify(|done, _| bar.set_position(done));
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        output::print_json(&json(&chain, &report))?;
    } else {
        output::print(&text(&args.dir, &report))?;
    }
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { Exit::Damaged.into() })
}

fn text(dir: &Path, report: &Report) -> String {
    let epochs = |epochs: &[u64]| match epochs {
        [] => "none".to_owned(),
        some => EpochRanges(some).to_string(),
    };
    let mut facts = vec![
        ("chain", dir.display().to_string()),
        (
            "checked",
            format!(
                "{}, {}, {}",
                figures::counted(report.segments as u64, "segment"),
                figures::bytes(report.bytes),
                figures::counted(report.pages, "page")
            ),
        ),
        ("restorable", epochs(&report.restorable)),
    ];
    if !report.lost.is_empty() {
        facts.push(("lost", epochs(&report.lost)));
    }
    if let Some(torn) = &report.torn {
        facts.push(("torn tail", format!("{torn}; the next writer cuts it off")));
    }
    for path in &report.unfinished {
        facts.push(("unfinished", format!("{}; the next writer removes it", path.display())));
    }
    for path in &report.strangers {
        facts.push(("stranger", format!("{} is not part of a chain", path.display())));
    }
    for damage in &report.damage {
        facts.push(("DAMAGE", damage.to_string()));
    }
    if report.damage.is_empty() {
        facts.push(("damage", "none".into()));
    }
    output::facts(facts)
}

fn json(chain: &Chain, report: &Report) -> serde_json::Value {
    let names = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    let mut value = chain_json::chain(chain);
    value["pages"] = report.pages.into();
    value["restorable"] = json!(report.restorable);
    value["lost"] = json!(report.lost);
    value["unfinished"] = names(&report.unfinished).into();
    value["strangers"] = names(&report.strangers).into();
    value["damage"] = report.damage.iter().map(chain_json::damage).collect();
    value
}
