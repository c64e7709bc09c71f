// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl pki show`: certificates, and what is wrong with them.

use std::path::PathBuf;
use std::process::ExitCode;

use super::super::output;
use super::listing;

/// Show certificates: whose, for which services, until when, and what is wrong
///
/// Of an authority's directory, its own and those of the nodes in it are shown; of a node's directory,
/// all that makes it usable is looked at as the node would, permissions included; of a file, only
/// what the certificates in it say.
///
/// SHA256 is the certificate's fingerprint, to compare with what is on another host.
///
/// Exit code 1 when something is wrong with any of them: for a timer that warns. One that ends within
/// 30 days is not wrong yet, and STATE says so.
#[derive(clap::Args)]
pub struct Args {
    /// An authority's or a node's directory, or a file
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let listed = listing::of(&args.path)?;
    listing::print(&listed, args.json)?;
    let mut code = ExitCode::SUCCESS;
    for wrong in listed.iter().flat_map(|entry| &entry.wrong) {
        output::say(wrong);
        code = ExitCode::FAILURE;
    }
    Ok(code)
}
