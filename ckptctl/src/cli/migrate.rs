// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl migrate`: a program goes on on another host.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use ckptctl::replication::Finished;
use ckptctl::replication::Until;
use ckptctl::replication::known_term;
use ckptctl::store::Chain;
use ckptctl::store::CommitId;
use ckptctl::sys::consumers::wait_readable;
use ckptctl::sys::signals;
use ckptctl::sys::standstill::Standstill;
use ckptctl::sys::standstill::parent_of;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;

use super::commit;
use super::commit::Wait;
use super::figures;
use super::output;
use super::replication_args::IdentityArgs;
use super::replication_args::SendArgs;
use super::replicator::Plan;
use super::replicator::Replicator;
use super::spare_board::Board;
use super::target::Target;
use super::times;

/// Move a running program to a spare on another host
///
/// Sends what the spare does not have while the program runs, in rounds, until what is left is small
/// or does not get smaller. Then the program is asked for a last commit and stands still; the rest
/// is sent; the spare takes over, and the program ends here. Nothing that it has said is lost: what
/// depends on a commit that is not durable was not said yet.
///
/// When anything goes wrong before the spare has said that it takes over, the program goes on
/// here as if nothing had happened.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The program: its chain's directory
    #[arg(value_name = "DIR")]
    target: OsString,
    /// The spare, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// How long the program may take for its last commit
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::parse)]
    timeout: Duration,
    /// Do not ask for a last commit: the program goes on from the last one that it made
    #[arg(long)]
    without_commit: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    send: SendArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Examples and exit codes.
const HELP: &str = "\
Examples:
  ckptctl spare --listen 0.0.0.0:7100 --store /var/lib/sim --pki /etc/ckpt/east --service sim -- ./sim
  ckptctl migrate /var/lib/sim --to east:7100 --pki /etc/ckpt/west --service sim

Exit codes:
  0 it runs there, 1 failed: it still runs here, 2 usage, 5 the spare knows a later term, or has
  another history";

/// Rounds at most.
const ROUNDS_MAX: usize = 30;

/// What is sent while the program stands still is no more than this, if that can be.
const SMALL: u64 = 1 << 20;

/// How often it is looked how far the spare has come.
const LOOK: Duration = Duration::from_millis(20);

/// How long there may be no link, and how long a supervisor may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the program stands still at most before it goes on here.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);

/// A round.
struct Round {
    bytes: u64,
    took: Duration,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let dir = PathBuf::from(&args.target);
    if !dir.is_dir() {
        bail!("name the program by its chain's directory: what is sent is read from there");
    }
    let target = Arc::new(Target::find(&args.target)?);
    let mut plan = Plan {
        dir: &dir,
        spares: std::slice::from_ref(&args.to),
        security: args.identity.security()?,
        service: args.identity.service.clone(),
        node: args.identity.node()?,
        term: known_term(&dir)?.max(1),
        limit: args.send.limit,
        ready: None,
    };
    let rounds = send_in_rounds(&plan)?;
    if !args.without_commit {
        last_commit(&target, args.timeout)?;
    }
    let begun = Instant::now();
    let stopped = Standstill::of(target.pid())
        .with_context(|| format!("cannot stop process {}", target.pid()))?;
    let stopped = Arc::new(Mutex::new(Some(stopped)));
    let (ending, what) = (Arc::clone(&stopped), Arc::clone(&target));
    plan.ready = Some(Arc::new(move || {
        let stopped = ending.lock().unwrap_or_else(PoisonError::into_inner).take();
        stopped.is_some_and(|stopped| end(&what, stopped).is_ok())
    }));
    let handed = hand_over(&plan);
    let stood_still = begun.elapsed();
    // If it was not ended it goes on.
    drop(stopped.lock().unwrap_or_else(PoisonError::into_inner).take());
    let epoch = match handed {
        Ok((commit, told)) => {
            if !told {
                output::say(&format!(
                    "the program has ended here, and the link broke before {} could be told to go on: \
                     run `ckptctl promote` on its directory there",
                    args.to
                ));
            }
            commit.epoch
        }
        Err(error) => {
            output::say("nothing was handed over: the program goes on here");
            return Err(error);
        }
    };
    if args.json {
        let rounds: Vec<_> = rounds
            .iter()
            .map(|round| json!({ "bytes": round.bytes, "took_ns": round.took.as_nanos() as u64 }))
            .collect();
        output::print_json(&json!({
            "epoch": epoch,
            "rounds": rounds,
            "stood_still_ns": stood_still.as_nanos() as u64,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (number, round) in (1..).zip(&rounds) {
        output::print(&format!(
            "round {number}: {} in {}\n",
            figures::bytes(round.bytes),
            figures::duration(round.took.as_nanos() as u64)
        ))?;
    }
    output::print(&format!(
        "epoch {epoch} is with {}; the program stood still for {} until that could go on\n",
        args.to,
        figures::duration(stood_still.as_nanos() as u64)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends while the program runs, until little is left.
fn send_in_rounds(plan: &Plan<'_>) -> anyhow::Result<Vec<Round>> {
    let board = Board::new(plan.spares);
    let replicator = Replicator::start(plan, &board, Until::Stopped)?;
    let mut rounds: Vec<Round> = Vec::new();
    let mut chain = Chain::open(plan.dir)?;
    let mut sent_before = 0;
    loop {
        let begun = Instant::now();
        chain.follow()?;
        let newest = chain.newest()?.map_or(0, |newest| newest.epoch);
        let state = loop {
            let state = board.spare(&plan.spares[0]);
            // Its arena as well: the program would stand still while that is brought to it.
            let has = state.progress.durable.min(state.progress.applied);
            if state.connected && has >= newest {
                break state;
            }
            wait_readable([replicator.ended().as_fd()], LOOK)?;
            if replicator.running() == 0 {
                replicator.finish()?;
                bail!("the spare has ended the link");
            }
            if let (Some(why), true) = (&state.lost, begun.elapsed() > PATIENCE) {
                bail!("no link to {}: {why}", plan.spares[0]);
            }
        };
        let round = Round {
            bytes: state.sent_bytes - sent_before,
            took: begun.elapsed(),
        };
        sent_before = state.sent_bytes;
        let shrinks = rounds
            .last()
            .is_none_or(|last| round.bytes < last.bytes / 10 * 9);
        let enough = round.bytes <= SMALL || !shrinks || rounds.len() >= ROUNDS_MAX;
        rounds.push(round);
        if enough {
            break;
        }
    }
    replicator.finish()?;
    Ok(rounds)
}

/// Has the program commit once more.
fn last_commit(target: &Target, timeout: Duration) -> anyhow::Result<()> {
    let after = commit::ask(target)?;
    match commit::wait_for(target, after.saturating_add(1), Wait::Durable, timeout)? {
        Some(_) => Ok(()),
        None => bail!(
            "{target} made no last commit within {}: it runs on here. It commits when it looks at \
             ckpt_pending(); --without-commit moves it with the last one that it made",
            figures::duration(timeout.as_nanos() as u64)
        ),
    }
}

/// Sends the rest, and has the spare take over.
fn hand_over(plan: &Plan<'_>) -> anyhow::Result<(CommitId, bool)> {
    let board = Board::new(plan.spares);
    let replicator = Replicator::start(plan, &board, Until::HandedOver)?;
    let deadline = Instant::now() + HAND_OVER_MAX;
    while replicator.running() > 0 && Instant::now() < deadline {
        wait_readable([replicator.ended().as_fd()], LOOK)?;
    }
    let state = board.spare(&plan.spares[0]);
    match replicator.finish()? {
        Finished::HandedOver { commit, told } => Ok((commit, told)),
        _ => bail!(
            "{} did not take over within {}{}",
            plan.spares[0],
            figures::duration(HAND_OVER_MAX.as_nanos() as u64),
            state.lost.map_or(String::new(), |why| format!(": {why}"))
        ),
    }
}

/// Ends a program that stands still, and sees to it that nobody here starts it again.
fn end(target: &Target, stopped: Standstill) -> anyhow::Result<()> {
    if let Some((parent, name)) = parent_of(target.pid()) {
        if name == "ckptctl" {
            // It hands the signal on, and does not start the program again.
            signals::send(Pid::from_raw(parent), Signal::SIGTERM)?;
            wait_for_pending(target.pid())?;
        }
    }
    Ok(stopped.end()?)
}

/// Waits until the supervisor has handed the signal on: from then on it takes the program's end for
/// what was asked for.
fn wait_for_pending(pid: i32) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !signals::is_pending(pid, Signal::SIGTERM)? {
        if Instant::now() > deadline {
            bail!("the supervisor of process {pid} does not react to SIGTERM");
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
