// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl commit`: asks a running program for a commit.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use ckptctl::sys::consumers::Level;
use ckptctl::sys::control::ControlPage;
use ckptctl::sys::takeover::has_ended;
use clap::ValueEnum;
use serde_json::json;

use super::figures;
use super::output;
use super::target;
use super::target::Live;
use super::target::Target;
use super::times;

/// Ask a running program for a commit
///
/// The program is told at its next look at ckpt_pending() and commits at its next safe point. One
/// that never looks, and commits when it likes, answers by its next commit. Without --wait this
/// returns at once.
///
/// It is allowed to the user whose program it is, and to root.
#[derive(clap::Args)]
pub struct Args {
    /// The program: the id or name of its arena (see `ckptctl ps`), or its chain's directory
    #[arg(value_name = "ID|NAME|DIR")]
    target: OsString,
    /// Wait until the commit is closed, durable or replicated; durable when not said
    #[arg(long, value_name = "LEVEL", value_enum, num_args = 0..=1, default_missing_value = "durable", require_equals = true)]
    wait: Option<Wait>,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::parse)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// The epoch is closed
    Closed,
    /// It is on a disk
    Durable,
    /// It is on another host
    Replicated,
}

impl Wait {
    fn level(self) -> Level {
        match self {
            Wait::Closed => Level::Committed,
            Wait::Durable => Level::Durable,
            Wait::Replicated => Level::Replicated,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Wait::Closed => "closed",
            Wait::Durable => "durable",
            Wait::Replicated => "replicated",
        }
    }
}

/// Asks a program for a commit. Returns the last one; a later one answers.
pub fn ask(target: &Target) -> anyhow::Result<u64> {
    Ok(match target {
        Target::Arena(live) => live.arena.request()?,
        Target::Chain(_, page) => page.request(),
    })
}

/// Waits until an epoch of a program has come so far; `None` when the time is over.
pub fn wait_for(
    target: &Target,
    epoch: u64,
    wait: Wait,
    timeout: Duration,
) -> anyhow::Result<Option<u64>> {
    match target {
        Target::Arena(live) => of_arena(live, epoch, wait, timeout),
        Target::Chain(_, page) => of_chain(page, epoch, wait, timeout),
    }
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let target = Target::find(&args.target)?;
    let begun = Instant::now();
    let after = ask(&target)?;
    let Some(wait) = args.wait else {
        if args.json {
            output::print_json(&json!({ "asked": true, "after": after }))?;
        } else {
            output::print(&format!("asked; the last commit is {}\n", place(after)))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(next) = after.checked_add(1) else {
        bail!(
            "{target} says that its last commit is {after}, which is no epoch: its page is damaged; \
             start the program again"
        );
    };
    let reached = wait_for(&target, next, wait, args.timeout)?;
    let took = begun.elapsed();
    let Some(epoch) = reached else {
        let limit = figures::duration(args.timeout.as_nanos() as u64);
        let closed = match &target {
            Target::Arena(live) => live.arena.info()?.epoch,
            Target::Chain(_, page) => page.epoch(),
        };
        if closed <= after {
            bail!(
                "{target} made no commit within {limit}; its last is {}. It commits when it looks at \
                 ckpt_pending(), or when it likes: wait longer with --timeout",
                place(after)
            );
        }
        bail!(
            "{target} closed epoch {closed}, which is not {} after {limit}: {}",
            wait.word(),
            match wait {
                Wait::Durable => "its saving lags or fails (see its stderr), or it saves nothing itself and nobody pulls",
                _ => "no spare has acknowledged it",
            }
        );
    };
    if args.json {
        output::print_json(&json!({
            "asked": true,
            "after": after,
            "epoch": epoch,
            "level": wait.word(),
            "took_ns": took.as_nanos() as u64,
        }))?;
    } else {
        let took = figures::duration(took.as_nanos() as u64);
        output::print(&format!("epoch {epoch} {} after {took}\n", wait.word()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn place(epoch: u64) -> String {
    match epoch {
        0 => "none yet".into(),
        epoch => format!("epoch {epoch}"),
    }
}

/// The epoch that has come so far; `None` when the time is over.
fn of_arena(live: &Live, epoch: u64, wait: Wait, timeout: Duration) -> anyhow::Result<Option<u64>> {
    let deadline = Instant::now() + timeout;
    loop {
        // A program that dies tells nobody: so look for it now and then. One that is kept for its
        // next start may answer yet.
        let left = deadline.saturating_duration_since(Instant::now());
        let part = left.min(Duration::from_secs(1));
        if let Some(epoch) = live.arena.wait(epoch, wait.level(), part)? {
            return Ok(Some(epoch));
        }
        if live.info.pid > 0 && has_ended(&live.arena.info()?) {
            bail!("{live} has ended");
        }
        if left <= part {
            return Ok(None);
        }
    }
}

fn of_chain(
    page: &ControlPage,
    epoch: u64,
    wait: Wait,
    timeout: Duration,
) -> anyhow::Result<Option<u64>> {
    let deadline = Instant::now() + timeout;
    let pid = page.pid();
    loop {
        let seen = page.seen();
        let reached = match wait {
            Wait::Closed => page.epoch(),
            Wait::Durable => page.durable(),
            Wait::Replicated => page.replicated(),
        };
        if reached >= epoch {
            return Ok(Some(reached));
        }
        if page.pid() != pid || !target::is_there(pid) {
            bail!("process {pid} has ended");
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        page.wait_for_change(seen, left.min(Duration::from_secs(1)));
    }
}
