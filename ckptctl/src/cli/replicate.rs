// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl replicate`: keeps spares of a chain, for a program that knows nothing of it.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ckptctl::replication::Finished;
use ckptctl::replication::Until;
use ckptctl::replication::known_term;
use ckptctl::store::Chain;
use ckptctl::sys::consumers::wait_readable;
use ckptctl::sys::signals::Signals;
use nix::sys::signal::Signal;

use super::output;
use super::replication_args::IdentityArgs;
use super::replication_args::SendArgs;
use super::replicator::Plan;
use super::replicator::Replicator;
use super::settling::About;
use super::settling::Settling;
use super::spare_board::Board;

/// Send a chain to spares, and each commit as it becomes durable
///
/// For a program that runs already, or a chain that nobody writes. What the spare has is not sent
/// again; a spare that was away goes on where it stopped, also when the chain was compacted
/// meanwhile. Nothing is kept in memory for a spare that is slow or away, and nobody waits for it,
/// but for a program that wants to: it is told what all spares have (CKPT_WAIT_FOR=replicated).
///
/// Runs until it is interrupted; with --once until the spares have all that there is.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The chain's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A spare, HOST:PORT; may be given several times
    #[arg(long, value_name = "ADDR", required = true)]
    to: Vec<String>,
    /// End when the spares have everything
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    send: SendArgs,
}

/// Examples and exit codes.
const HELP: &str = "\
Examples:
  ckptctl replicate /var/lib/sim --to east:7100 --pki /etc/ckpt/west --service sim
  ckptctl replicate /var/lib/sim --to 127.0.0.1:7100 --plain --once

Exit codes:
  0 ok, 1 failed, 2 usage, 4 chain damaged, 5 the spare knows a later term, or has another history";

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // What is wrong with it is told at once.
    Chain::open(&args.dir)?.newest()?;
    let plan = Plan {
        dir: &args.dir,
        spares: &args.to,
        security: args.identity.security()?,
        service: args.identity.service.clone(),
        node: args.identity.node()?,
        term: known_term(&args.dir)?.max(1),
        limit: args.send.limit,
        ready: None,
    };
    let signals = Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let until = match args.once {
        true => Until::Complete,
        false => Until::Stopped,
    };
    let board = Board::new(&args.to);
    let about = About {
        service: plan.service.clone(),
        term: plan.term,
    };
    let _settling = Settling::start(&board, &args.dir, &plan.node, about, None, None)?;
    let replicator = Replicator::start(&plan, &board, until)?;
    let mut left = args.to.len();
    while left > 0 {
        let fds = [signals.as_fd(), replicator.ended().as_fd()];
        let [signalled, ended] = wait_readable(fds, Duration::from_secs(3600))?;
        if signalled && signals.next(Some(Duration::ZERO))?.is_some() {
            break;
        }
        if ended {
            replicator.ended().clear();
            left = replicator.running();
        }
    }
    match replicator.finish()? {
        Finished::Complete => {
            for (to, spare) in board.spares() {
                output::say(&format!("{to} has epoch {}", spare.progress.durable));
            }
        }
        Finished::Stopped | Finished::HandedOver { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
