// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl man`: the manual pages, made from the help.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::CommandFactory;

use super::Cli;
use super::output;

/// Write the manual pages into a directory, or print that of the tool
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// A directory: a page for the tool and one for each verb are written there
    dir: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    match args.dir {
        Some(dir) => clap_mangen::generate_to(command, &dir).map_err(|error| {
            let dir = dir.display();
            anyhow!("cannot write manual pages into {dir}: {error}; give a directory that is there")
        })?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            output::print(&String::from_utf8(page)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
