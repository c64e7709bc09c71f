// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl pull`: keeps a chain of a running program, from outside.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use ckptctl::pull::Outcome;
use ckptctl::pull::Pulled;
use ckptctl::pull::Puller;
use ckptctl::pull::Wish;
use ckptctl::store;
use ckptctl::sys::signals::Signals;
use nix::sys::signal::Signal;
use serde_json::json;

use super::figures;
use super::output;
use super::target::Live;
use super::times;

/// Save a running program from outside: what changed since the last pull
///
/// Asks the program for a commit, takes what has changed since the last pull from a frozen
/// snapshot while the program runs, and appends it to the chain in DIR. The program needs no code
/// for it: one that only makes an arena and commits will do. Nobody ever waits for a pull; when a
/// program writes more meanwhile than may be copied aside, the next commit is taken instead.
///
/// With --follow every commit of the program is taken, or the last of several that were made
/// while one was being saved, until the program ends or this is interrupted. Under
/// `ckptctl run --warm` it goes on over the program's deaths. Several can pull from one program. One
/// that was killed, at any time, goes on where it stopped.
///
/// What is on the disk is acknowledged to the program, which can wait for that.
#[derive(clap::Args)]
pub struct Args {
    /// The program: the id or name of its arena (see `ckptctl ps`)
    #[arg(value_name = "ID|NAME")]
    target: OsString,
    /// The chain's directory; made if it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Go on until the program ends
    #[arg(long)]
    follow: bool,
    /// With --follow: ask for a commit when there was none for so long
    #[arg(long, value_name = "TIME", value_parser = times::parse, requires = "follow")]
    every: Option<Duration>,
    /// Without --follow: how long to wait for the commit
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::parse)]
    timeout: Duration,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// Longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let live = Live::find(&args.target)?;
    let shown = live.to_string();
    let (mut puller, recovery) =
        Puller::open(live.arena, &args.to, store::Options::default())?;
    if let Some(torn) = recovery.torn {
        output::say(&format!("{torn}; cut off"));
    }
    let signals = Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    // The first one at once: until then there is nothing here.
    let mut ask = true;
    loop {
        let wish = Wish {
            ask,
            timeout: match (args.follow, args.every) {
                (false, _) => args.timeout,
                (true, Some(every)) => every,
                (true, None) => FOREVER,
            },
            interrupt: signals.as_fd(),
        };
        match puller.pull(&wish)? {
            Outcome::Pulled(pulled) => {
                tell(&args, &pulled)?;
                if !args.follow {
                    return Ok(ExitCode::SUCCESS);
                }
                ask = false;
            }
            Outcome::TimedOut if args.follow => ask = true,
            Outcome::TimedOut => bail!(
                "{shown} made no commit within {}. It commits when it looks at ckpt_pending(), or when \
                 it likes: wait longer with --timeout",
                figures::duration(args.timeout.as_nanos() as u64)
            ),
            Outcome::Ended => {
                let last = match puller.cursor() {
                    Some(epoch) => format!("epoch {epoch} is the last that was pulled"),
                    None => "nothing was pulled".into(),
                };
                output::say(&format!("{shown} has ended; {last}"));
                return Ok(match puller.cursor() {
                    Some(_) => ExitCode::SUCCESS,
                    None => ExitCode::FAILURE,
                });
            }
            Outcome::Interrupted => {
                // None is left when it was a child's end.
                if let Some(arrival) = signals.next(Some(Duration::ZERO))? {
                    if arrival.signal != Signal::SIGCHLD {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
            }
        }
    }
}

fn tell(args: &Args, pulled: &Pulled) -> anyhow::Result<()> {
    let took_ns = pulled.took.as_nanos() as u64;
    if args.json {
        let line = json!({
            "epoch": pulled.epoch,
            "pages": pulled.pages,
            "stored_bytes": pulled.stored_bytes,
            "again": pulled.again,
            "took_ns": took_ns,
        });
        return output::print(&format!("{line}\n"));
    }
    let again = match pulled.again {
        0 => String::new(),
        times => format!(", at attempt {}", times + 1),
    };
    output::print(&format!(
        "epoch {}: {} changed, {} stored, {}{again}\n",
        pulled.epoch,
        figures::counted(pulled.pages, "page"),
        figures::bytes(pulled.stored_bytes),
        figures::duration(took_ns)
    ))
}
