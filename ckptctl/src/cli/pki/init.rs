// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl pki init`: a new authority.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ckptctl::replication::credentials::AUTHORITY;

use super::authority::AUTHORITY_KEY;
use super::authority::Authority;
use super::listing;
use super::staging::PUBLIC;
use super::staging::SECRET;
use super::staging::Staging;

/// Make the authority of an installation: ca.pem and ca-key.pem in a new directory
///
/// DIR must not be there yet, or be empty. Its ca-key.pem can make anybody a node: keep it where
/// nobody else comes, and a copy of it elsewhere. Prints what was made, as `ckptctl pki show`.
#[derive(clap::Args)]
pub struct Args {
    /// The directory to make
    dir: PathBuf,
    /// What the authority is called, for people; something is added that no other has
    #[arg(long, default_value = "ckpt", value_parser = name)]
    name: String,
    /// How many days it is good for
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<String, String> {
    const MAX: usize = 48;
    let sound = !text.trim().is_empty() && text.len() <= MAX && !text.contains(char::is_control);
    match sound {
        true => Ok(text.trim().into()),
        false => Err(format!("it is a name of up to {MAX} bytes")),
    }
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let valid = Duration::from_secs(u64::from(args.days) * 24 * 3600);
    let made = Authority::make(&args.name, valid)?;
    let mut staging = Staging::beside(&args.dir)?;
    staging.write(AUTHORITY_KEY, &made.key, SECRET)?;
    staging.write(AUTHORITY, &made.certificate, PUBLIC)?;
    staging.publish(
        "an authority that is replaced is one whose certificates nobody trusts any more; name a \
         directory that is not there",
    )?;
    listing::print(&listing::of(&args.dir)?, args.json)?;
    Ok(ExitCode::SUCCESS)
}
