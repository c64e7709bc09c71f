// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl run`: a program with a stable layout, started again when it fails.

use std::path::PathBuf;
use std::process::ExitCode;

use super::program::Program;
use super::program::ProgramArgs;
use super::restarts::RestartArgs;
use super::restarts::Restarts;
use super::supervisor::supervise;

/// Start a program with a stable layout, and again from its last commit when it fails
#[derive(clap::Args)]
pub struct Args {
    /// Directory of the chain [default: CKPT_STORE, else the program's own choice]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    program: ProgramArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let program = Program::prepare(args.program, args.store, None)?;
    match Restarts::new(&args.restart) {
        None => Err(program.exec().into()),
        Some(restarts) => supervise(program, restarts),
    }
}
