// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl import`: a chain out of one file.

use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use ckptctl::store;
use ckptctl::store::EpochRanges;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde_json::json;

use super::figures;
use super::output;

/// Make a chain of what `ckptctl export` wrote
///
/// All of it is verified, and is on the disk, before DIR has its name. An export that is cut off or
/// damaged is refused, and nothing is left of it.
#[derive(clap::Args)]
pub struct Args {
    /// The export; stdin without it, or when it is -
    file: Option<PathBuf>,
    /// The chain's directory; it is made, or must be empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let input: Box<dyn Read> = match &args.file {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::open(path);
            Box::new(file.map_err(|error| anyhow!("cannot open {}: {error}", path.display()))?)
        }
        _ => Box::new(io::stdin().lock()),
    };
    // Hidden by itself when stderr is no terminal.
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {bytes} read")?);
    let imported = store::import(BufReader::new(input), &args.to, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let imported = imported?;
    let epochs = &imported.report.restorable;
    if args.json {
        output::print_json(&json!({
            "dir": args.to.display().to_string(),
            "epochs": epochs,
            "files": imported.files,
            "bytes": imported.bytes,
        }))?;
    } else {
        output::print(&output::facts([
            ("chain", args.to.display().to_string()),
            (
                "epochs",
                match epochs.as_slice() {
                    [] => "none".into(),
                    epochs => EpochRanges(epochs).to_string(),
                },
            ),
            (
                "imported",
                format!(
                    "{}, {}, all verified",
                    figures::counted(imported.files, "file"),
                    figures::bytes(imported.bytes)
                ),
            ),
        ]))?;
    }
    Ok(ExitCode::SUCCESS)
}
