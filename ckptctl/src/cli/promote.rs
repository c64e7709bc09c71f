// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl promote`: a spare takes over because somebody says so.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::figures;
use super::output;
use super::spare_socket;

/// Tell a spare to take over now
///
/// The spare on DIR starts its program with the newest state that it has, in a new term. From then
/// on it refuses what the old primary sends.
///
/// Nobody can know from here whether the old primary is dead, or only out of reach: it may still
/// run, and answer its own clients. See to it that it does not before you promote a spare: end the
/// program, or switch its host off. What it committed and the spare has not received is not in the
/// new state. Where etcd decides (`ckptctl spare --etcd`), none of this is needed.
#[derive(clap::Args)]
pub struct Args {
    /// The spare's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Also while the spare is connected to its primary, which lives then
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = match args.force {
        true => "promote force",
        false => "promote",
    };
    let answer = spare_socket::ask(&args.dir, question)?;
    if let Some(why) = answer["refused"].as_str() {
        bail!("{why}");
    }
    if args.json {
        output::print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let number = |name: &str| answer[name].as_u64();
    let epoch = match number("epoch") {
        Some(epoch) => format!("with epoch {epoch}"),
        None => "with nothing, as it has received no commit".into(),
    };
    let heard = match number("heard_ns") {
        Some(ns) => format!("the primary was heard of {} ago", figures::duration(ns)),
        None => "no primary was ever heard of".into(),
    };
    let term = number("term").unwrap_or(0);
    output::say(&format!("the spare takes over {epoch} in term {term}; {heard}"));
    output::say(
        "whether the old primary still runs cannot be told from here: see to it that it does not",
    );
    Ok(ExitCode::SUCCESS)
}
