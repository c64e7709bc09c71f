// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs each test in a process of its own, under a time limit, and looks
//! afterwards for what it left behind.

use std::any::Any;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use nix::unistd::fork;
use nix::unistd::setpgid;

use crate::failure::Failure;
use crate::failure::Outcome;
use crate::famine;
use crate::famine::Famine;
use crate::ktap;
use crate::options::Options;
use crate::pipe::pipe;

/// One claim about the module.
pub struct Test {
    /// The path of the function.
    pub path: &'static str,
    /// Tries the claim.
    pub run: fn(&Options) -> Outcome,
    /// Seconds after which it is killed and counts as failed.
    pub limit_s: u32,
}

impl Test {
    /// Unique, the file's name and the function's: `delta::a_cursor_is_kept`.
    pub fn name(&self) -> &'static str {
        match self.path.split_once("::cases::") {
            Some((_, name)) => name,
            None => self.path,
        }
    }
}

// A test that takes longer says how long.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// How many tests ended in which way.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Claims that hold.
    pub passed: usize,
    /// Claims that do not.
    pub failed: usize,
    /// Claims that could not be tried here.
    pub skipped: usize,
}

/// Runs `tests` in order and writes their results.
///
/// `leftovers` is asked after each test; what it returns is a reason to fail it.
pub fn run_all(
    tests: &[&Test],
    options: &Options,
    leftovers: impl Fn() -> Result<(), Failure>,
) -> Totals {
    // Processes that outlive the test that started them come to us, to be reaped.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    ktap::begin(tests.len());
    let mut totals = Totals::default();
    let mut famine = match Famine::begin(options) {
        Ok(famine) => famine,
        Err(Failure::Failed(why) | Failure::Skipped(why)) => {
            println!("Bail out! {why}");
            totals.failed += 1;
            return totals;
        }
    };
    for (index, test) in tests.iter().enumerate() {
        let started = Instant::now();
        let run = || {
            let outcome = run_one(test, options);
            // What ended early must not leave anything behind either.
            if outcome.is_ok() || options.starve != 0 {
                leftovers()?;
            }
            outcome
        };
        let outcome = match &mut famine {
            Some(famine) => famine.try_out(test, run),
            None => run(),
        };
        let taken = started.elapsed();
        if taken >= WORTH_TELLING {
            ktap::diagnose(&format!("took {:.1} s", taken.as_secs_f32()));
        }
        match &outcome {
            Ok(()) => totals.passed += 1,
            Err(Failure::Failed(_)) => totals.failed += 1,
            Err(Failure::Skipped(_)) => totals.skipped += 1,
        }
        ktap::result(index + 1, test.name(), &outcome);
    }
    if let Some(Err(Failure::Failed(why))) = famine.map(|famine| famine.end(tests.len())) {
        println!("Bail out! {why}");
        totals.failed += 1;
    }
    ktap::totals(totals.passed, totals.failed, totals.skipped);
    totals
}

fn run_one(test: &Test, options: &Options) -> Outcome {
    let (reader, writer) = pipe()?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            drop(reader);
            report(
                writer,
                &guarded(|| {
                    if options.starve != 0 {
                        famine::join()?;
                    }
                    (test.run)(options)
                }),
            );
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            // Both sides set the group, so that it is set when either goes on.
            let _ = setpgid(child, child);
            let limit = Duration::from_secs(u64::from(test.limit_s * options.slow));
            let status = wait_for(child, limit);
            let _ = killpg(child, Signal::SIGKILL);
            reap_all();
            judge(status, limit, collect(reader))
        }
    }
}

/// Runs `body`; a panic becomes a failure that names its line.
pub fn guarded(body: impl FnOnce() -> Outcome) -> Outcome {
    static PANIC: Mutex<Option<String>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut slot) = PANIC.lock() {
            slot.get_or_insert_with(|| info.to_string());
        }
    }));
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload: Box<dyn Any + Send>| {
        drop(payload);
        let text = PANIC.lock().ok().and_then(|mut slot| slot.take());
        Err(Failure::Failed(text.unwrap_or_else(|| "panicked".into())))
    })
}

/// Sends an outcome to the other end of a pipe.
pub fn report(mut writer: File, outcome: &Outcome) {
    let (tag, text) = match outcome {
        Ok(()) => (b'p', ""),
        Err(Failure::Skipped(reason)) => (b's', reason.as_str()),
        Err(Failure::Failed(message)) => (b'f', message.as_str()),
    };
    // Less than a pipe holds: the reader looks only when this process is gone.
    let text = &text.as_bytes()[..text.len().min(30_000)];
    let mut message = vec![tag];
    message.extend_from_slice(text);
    // A report that cannot be sent is a missing report, which is a failure.
    let _ = writer.write_all(&message);
}

/// Reads what [`report`] sent; `None` when nothing came.
///
/// Call it when the sender is gone. Others may still hold the pipe open, so the
/// end of the file is not waited for.
pub fn collect(mut reader: File) -> Option<Outcome> {
    let mut buffer = vec![0; 65_536];
    let mut filled = 0;
    while readable_now(&reader) {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    let text = String::from_utf8_lossy(buffer.get(1..filled)?).into_owned();
    match buffer[0] {
        b'p' => Some(Ok(())),
        b's' => Some(Err(Failure::Skipped(text))),
        _ => Some(Err(Failure::Failed(text))),
    }
}

fn readable_now(reader: &File) -> bool {
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(count) if count > 0)
}

/// Waits for a child to end; `None` when the time was up and it was killed.
pub fn wait_for(child: Pid, limit: Duration) -> Option<WaitStatus> {
    let deadline = Instant::now() + limit;
    // SAFETY: pidfd_open takes two integers and returns a descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    if raw >= 0 {
        // SAFETY: the descriptor is new and ours.
        let pidfd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_zero() => {
                    let _ = killpg(child, Signal::SIGKILL);
                    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                    let _ = waitpid(child, None);
                    return None;
                }
                Ok(0) | Err(Errno::EINTR) => continue,
                _ => break,
            }
        }
    }
    waitpid(child, None).ok()
}

fn reap_all() {
    loop {
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn judge(status: Option<WaitStatus>, limit: Duration, reported: Option<Outcome>) -> Outcome {
    match (status, reported) {
        (None, _) => Err(Failure::Failed(format!(
            "not done after {} s; killed",
            limit.as_secs()
        ))),
        (Some(WaitStatus::Signaled(_, signal, _)), _) => Err(Failure::Failed(format!(
            "the test's process was killed by {signal}"
        ))),
        (Some(_), Some(outcome)) => outcome,
        (Some(status), None) => Err(Failure::Failed(format!(
            "the test's process ended without a result: {status:?}"
        ))),
    }
}

/// Makes a list of [`Test`]s from function names: `tests![a, b, 90 => slow]`.
#[macro_export]
macro_rules! tests {
    (@one $seconds:literal => $name:ident) => {
        $crate::runner::Test {
            path: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
            limit_s: $seconds,
        }
    };
    ($($($seconds:literal =>)? $name:ident),* $(,)?) => {
        &[$($crate::tests!(@pick $($seconds)? ; $name)),*]
    };
    (@pick $seconds:literal ; $name:ident) => { $crate::tests!(@one $seconds => $name) };
    (@pick ; $name:ident) => { $crate::tests!(@one 60 => $name) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(_: &Options) -> Outcome {
        Ok(())
    }

    fn panics(_: &Options) -> Outcome {
        panic!("on purpose")
    }

    fn dies(_: &Options) -> Outcome {
        std::process::abort()
    }

    fn hangs(_: &Options) -> Outcome {
        loop {
            // SAFETY: waits for a signal; touches no memory.
            unsafe { libc::pause() };
        }
    }

    fn outcome_of(run: fn(&Options) -> Outcome) -> Outcome {
        let options = Options::parse(std::iter::empty(), 0).unwrap();
        let test = Test {
            path: "t",
            run,
            limit_s: 1,
        };
        run_one(&test, &options)
    }

    // One test: run_one reaps every child of the process, so two at once would
    // take each other's.
    #[test]
    fn every_way_to_end_is_told_from_the_others() {
        assert!(outcome_of(passes).is_ok());
        let failed = |outcome: Outcome| match outcome {
            Err(Failure::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(failed(outcome_of(panics)).contains("on purpose"));
        assert!(failed(outcome_of(dies)).contains("SIGABRT"));
        assert!(failed(outcome_of(hangs)).contains("not done after 1 s"));
        let skips = outcome_of(|_| Err(Failure::skip("no disk")));
        assert!(matches!(skips, Err(Failure::Skipped(reason)) if reason == "no disk"));
    }
}
