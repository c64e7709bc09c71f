// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks after a program that runs: hands signals on to it, and starts it again when it fails.

use std::io;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use ckptctl::sys::child;
use ckptctl::sys::child::End;
use ckptctl::sys::signals;
use ckptctl::sys::signals::Next;
use ckptctl::sys::signals::Signals;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::exit::Exit;
use super::figures;
use super::keeper::Keeper;
use super::keeper::KeeperArgs;
use super::output;
use super::program::Program;
use super::progress::Progress;
use super::reign::Fence;
use super::restarts::Failure;
use super::restarts::RestartArgs;
use super::restarts::Restarts;
use super::restarts::Verdict;

/// After one of these the program is not started again.
const STOPPING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// These are handed on, and that is all.
const PASSING: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH];

/// The signals that somebody who supervises waits for.
pub fn signals() -> io::Result<Signals> {
    Signals::take(&[STOPPING.as_slice(), PASSING.as_slice()].concat())
}

/// Becomes the program, or looks after it when it may be started again.
pub fn run(
    program: Program,
    restart: &RestartArgs,
    keeper: &KeeperArgs,
) -> anyhow::Result<ExitCode> {
    match Restarts::new(restart) {
        None => {
            keeper.refuse_without_restart()?;
            Err(program.exec().into())
        }
        Some(restarts) => supervise(program, restarts, Keeper::new(keeper), &signals()?, None),
    }
}

/// Runs a program until it succeeds, is asked to stop or has failed too often; its exit code,
/// or 128 and the number of the signal that killed it.
pub fn supervise(
    mut program: Program,
    mut restarts: Restarts,
    mut keeper: Keeper,
    signals: &Signals,
    fence: Option<&Fence>,
) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::of(&program)?;
    loop {
        let begun = Instant::now();
        let theirs = keeper.prepare()?;
        let pid = program.spawn(signals.before(), theirs.as_ref())?;
        drop(theirs);
        if let Some(fence) = fence {
            // If it is too late already, its end is waited for below.
            fence.guard(pid);
        }
        let (end, stopping) = wait_for(pid, signals, &mut keeper, fence)?;
        keeper.ended()?;
        let lasted = begun.elapsed();
        if end == End::Exited(0) {
            return Ok(ExitCode::SUCCESS);
        }
        let story = format!(
            "{pid} {} after {}",
            describe(end),
            figures::duration(lasted.as_nanos() as u64)
        );
        if let Some(why) = fence.and_then(Fence::why) {
            output::say(&format!("{story}; it is not started again: {why}"));
            return Ok(Exit::Fenced.into());
        }
        if stopping.is_some() {
            output::say(&format!(
                "{story}; it was asked to stop and is not started again"
            ));
            return Ok(exit_code(end));
        }
        let now = match Progress::of(&program) {
            Ok(now) => now,
            Err(error) => {
                output::say(&format!(
                    "{story}; it is not started again, as its chain cannot be used"
                ));
                return Err(error.into());
            }
        };
        let committed = now.commit > progress.commit;
        if now.epoch > progress.epoch {
            // It is past the restore of the epoch that it may have been told to begin with.
            program.go_on_from_newest();
            program.has_taken_over();
        }
        progress = now;
        let mut story = format!("{story}{}", progress.place());
        match restarts.after(Failure { lasted, committed }) {
            Verdict::GiveUp => {
                let max = match restarts.max() {
                    0 => "no restarts are allowed".to_owned(),
                    max => format!(
                        "{} brought no new commit{}",
                        figures::counted(max.into(), "restart"),
                        restarts.report()
                    ),
                };
                output::say(&format!("{story}; giving up, {max}"));
                return Ok(exit_code(end));
            }
            Verdict::Again {
                wait,
                number,
                in_vain,
            } => {
                let mut from = progress.begins_with(program.told_epoch());
                if let (Some(in_vain), Some(stuck)) = (in_vain, from) {
                    if let Some(earlier) = progress.before(stuck) {
                        let tries = figures::counted(in_vain.into(), "restart");
                        story.push_str(&format!(
                            "; {tries} from epoch {stuck} brought no new commit, so it goes back to epoch {earlier}"
                        ));
                        program.go_back_to(earlier);
                        restarts.went_back();
                        from = Some(earlier);
                    }
                }
                restarts.note(from);
                let when = match wait {
                    Duration::ZERO => String::new(),
                    wait => format!(" in {}", figures::duration(wait.as_nanos() as u64)),
                };
                let max = restarts.max();
                output::say(&format!(
                    "{story}; starting it again{when} ({number} of {max})"
                ));
                if let Some(signal) = pause(wait, signals)? {
                    let name = signals::name(signal as i32);
                    output::say(&format!(
                        "got signal {} ({name}); it is not started again",
                        signal as i32
                    ));
                    return Ok(exit_code(End::Killed(signal as i32)));
                }
            }
        }
    }
}

/// Hands signals on until the program ends; how it ended, and the first signal that asked it to.
fn wait_for(
    pid: Pid,
    signals: &Signals,
    keeper: &mut Keeper,
    fence: Option<&Fence>,
) -> anyhow::Result<(End, Option<Signal>)> {
    let mut stopping = None;
    loop {
        let left = keeper
            .deadline()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let arrival = match signals.next_beside(keeper.fd(), left)? {
            Next::Signal(arrival) => arrival,
            Next::Other => {
                keeper.listen()?;
                continue;
            }
            Next::TimedOut => {
                if let Some(signal) = keeper.overdue() {
                    output::say(&format!("{pid} {}", keeper.complaint(signal)));
                    signals::send(pid, signal)?;
                }
                continue;
            }
        };
        if arrival.signal == Signal::SIGCHLD {
            // All that ended: as process 1 of a container we also get children of others.
            let end = match fence {
                None => reap(pid)?,
                Some(fence) => {
                    let end = fence.while_reaping(|| reap(pid))?;
                    if end.is_none() {
                        fence.guard(pid);
                    }
                    end
                }
            };
            if let Some(end) = end {
                return Ok((end, stopping));
            }
            continue;
        }
        // The terminal sends its signals to the program as well.
        if !arrival.from_kernel {
            signals::send(pid, arrival.signal)?;
        }
        if STOPPING.contains(&arrival.signal) {
            stopping = stopping.or(Some(arrival.signal));
        }
    }
}

/// Takes the ends of all children; that of this one, if it is among them.
fn reap(pid: Pid) -> io::Result<Option<End>> {
    let mut end = None;
    while let Some((reaped, how)) = child::reap()? {
        if reaped == pid {
            end = Some(how);
        }
    }
    Ok(end)
}

/// Waits, unless a signal asks to stop: then that.
fn pause(wait: Duration, signals: &Signals) -> anyhow::Result<Option<Signal>> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match signals.next(Some(left))? {
            None => return Ok(None),
            Some(arrival) if STOPPING.contains(&arrival.signal) => {
                return Ok(Some(arrival.signal));
            }
            Some(_) => {}
        }
    }
}

fn describe(end: End) -> String {
    match end {
        End::Exited(code) => format!("ended with code {code}"),
        End::Killed(signal) => {
            format!("was killed by signal {signal} ({})", signals::name(signal))
        }
    }
}

fn exit_code(end: End) -> ExitCode {
    let code = match end {
        End::Exited(code) => code,
        End::Killed(signal) => 128 + signal,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
