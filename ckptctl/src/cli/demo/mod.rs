// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl demo`: what all this is good for, in seconds.

mod bank;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use bank::BankArgs;

/// See a program be killed, restored, damaged and rolled back, in seconds
///
/// Runs a small program on this machine, with or without the module, as any user: a bank whose
/// accounts are in memory. Each step shows the command that a person would type. All that is made is a
/// directory for the chain, which is removed in the end.
#[derive(clap::Args)]
pub struct Args {
    /// Keep the chain in DIR, which is made, or must be empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Be the program of the demonstration
    #[arg(long, hide = true)]
    bank: bool,
    #[command(flatten)]
    program: BankArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.bank {
        true => bank::run(&args.program),
        false => story::tell(args.keep.as_deref()),
    }
}
