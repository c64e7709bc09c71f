// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl run` as a supervisor: signals, exit codes, limits, and its own death.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::prctl;
use nix::sys::signal::SigHandler;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::signal::signal;
use nix::unistd::Pid;

const SUPERVISED: [&str; 5] = ["run", "--restart", "on-failure", "--backoff", "0s"];

/// A program that waits; what it does about signals stands before it. Its sleep lasts longer
/// than any test, ends with it, and keeps no pipe open.
const WAIT: &str = "sleep 1000 >/dev/null 2>&1 & echo ready; while :; do wait $!; done";

fn ckptctl(arguments: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    command.args(arguments).args(["--", "sh", "-c", script]);
    command.env_remove("CKPT_STORE").env_remove("CKPT_TRACKER");
    command
}

fn output(arguments: &[&str], script: &str) -> Output {
    ckptctl(arguments, script).output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What takes longer will never come.
const LIMIT: Duration = Duration::from_secs(60);

/// The tool, running.
struct Running {
    pid: Pid,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    status: Receiver<ExitStatus>,
}

/// How the tool ended, and what it said that was not asked for before.
struct Ended {
    status: ExitStatus,
    words: String,
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        lines.for_each(|line| drop(sender.send(line)));
    });
    receiver
}

impl Running {
    fn start(command: Command) -> Running {
        Running::start_on(command, Stdio::null())
    }

    fn start_on(mut command: Command, stdin: Stdio) -> Running {
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A shell ignores the terminal's signals for what it runs in the background, nohup its
        // end, and a program in its turn cannot trap them then.
        let heed = || {
            for one in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
                // SAFETY: Sets the default, which is no handler.
                unsafe { signal(one, SigHandler::SigDfl) }?;
            }
            Ok(())
        };
        // SAFETY: What runs in the child between fork and exec is one system call for each.
        unsafe { command.pre_exec(heed) };
        let mut tool = command.spawn().unwrap();
        let pid = Pid::from_raw(tool.id() as i32);
        let (stdout, stderr) = (tool.stdout.take().unwrap(), tool.stderr.take().unwrap());
        let (sender, status) = mpsc::channel();
        thread::spawn(move || sender.send(tool.wait().unwrap()));
        Running {
            pid,
            stdout: lines(stdout),
            stderr: lines(stderr),
            status,
        }
    }

    /// The next line that the program prints; empty when there is none any more.
    fn line(&self) -> String {
        match self.stdout.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => self.give_up("the program prints nothing"),
        }
    }

    /// The next line that the tool says.
    fn word(&self) -> String {
        let word = self.stderr.recv_timeout(LIMIT);
        word.unwrap_or_else(|_| self.give_up("the tool says nothing"))
    }

    fn send(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    fn end(self) -> Ended {
        let status = self.status.recv_timeout(LIMIT);
        let status = status.unwrap_or_else(|_| self.give_up("the tool does not end"));
        let words = self.stderr.iter().map(|line| line + "\n").collect();
        Ended { status, words }
    }

    fn give_up(&self, why: &str) -> ! {
        // It may be gone already.
        let _ = kill(self.pid, Signal::SIGKILL);
        panic!("{why}");
    }
}

#[test]
fn the_exit_code_is_the_programs() {
    assert_eq!(output(&["run"], "exit 7").status.code(), Some(7));
    assert_eq!(output(&SUPERVISED, "exit 0").status.code(), Some(0));
    let once = [&SUPERVISED[..], &["--max-restarts", "0"]].concat();
    assert_eq!(output(&once, "exit 7").status.code(), Some(7));
    assert_eq!(output(&once, "kill -9 $$").status.code(), Some(137));
}

#[test]
fn a_signal_without_a_name_is_told_by_its_number() {
    let once = [&SUPERVISED[..], &["--max-restarts", "0"]].concat();
    let output = output(&once, "kill -40 $$");
    assert_eq!(output.status.code(), Some(128 + 40));
    assert!(
        words(&output).contains("signal 40 (RTMIN+6)"),
        "{}",
        words(&output)
    );
}

#[test]
fn a_program_that_keeps_failing_is_given_up_after_the_limit() {
    let arguments = [&SUPERVISED[..], &["--max-restarts", "3"]].concat();
    let output = output(&arguments, "echo start; exit 5");
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(output.stdout, b"start\n".repeat(4));
    let words = words(&output);
    assert_eq!(words.lines().count(), 4, "{words}");
    assert!(words.contains(" ended with code 5 after "), "{words}");
    assert!(words.contains("; starting it again (3 of 3)"), "{words}");
    assert!(
        words.contains("; giving up, 3 restarts brought no new commit"),
        "{words}"
    );
}

#[test]
fn a_program_that_succeeds_in_the_end_is_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = ckptctl(&SUPERVISED, "test -e flag || { touch flag; exit 1; }");
    let output = command.current_dir(&dir).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
}

#[test]
fn a_signal_that_ends_is_handed_on_and_the_program_is_not_started_again() {
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGTERM, "TERM"),
    ] {
        let script = format!("trap 'kill $!; echo got {name}; exit 7' {name}; {WAIT}");
        let running = Running::start(ckptctl(&SUPERVISED, &script));
        assert_eq!(running.line(), "ready");
        running.send(signal);
        assert_eq!(running.line(), format!("got {name}"));
        assert_eq!(running.line(), "", "it ends");
        let ended = running.end();
        assert_eq!(ended.status.code(), Some(7));
        let words = ended.words;
        assert!(words.contains("it was asked to stop"), "{words}");
    }
}

#[test]
fn a_signal_of_the_programs_own_is_handed_on_and_restarts_go_on() {
    let script = format!("trap 'kill $!; echo got USR1; exit 7' USR1; {WAIT}");
    let arguments = [&SUPERVISED[..], &["--max-restarts", "1"]].concat();
    let running = Running::start(ckptctl(&arguments, &script));
    for _ in 0..2 {
        assert_eq!(running.line(), "ready");
        running.send(Signal::SIGUSR1);
        assert_eq!(running.line(), "got USR1");
    }
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(7));
    assert!(ended.words.contains("giving up"), "{}", ended.words);
}

#[test]
fn a_signal_ends_the_wait_before_a_restart() {
    let arguments = ["run", "--restart", "on-failure", "--backoff", "1h"];
    let running = Running::start(ckptctl(&arguments, "exit 5"));
    let line = running.word();
    assert!(
        line.ends_with("; starting it again in 1.0 h (1 of 10)"),
        "{line}"
    );
    running.send(Signal::SIGTERM);
    assert_eq!(
        running.word(),
        "ckptctl: got signal 15 (TERM); it is not started again"
    );
    assert_eq!(running.end().status.code(), Some(128 + 15));
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let tool = env!("CARGO_BIN_EXE_ckptctl");
    // The shell in between is what nohup is.
    let script = format!("trap 'kill $!; echo got USR1; exit 7' USR1; {WAIT}");
    let mut command = Command::new("sh");
    let outer = r#"trap "" HUP; exec "$@""#;
    command
        .args(["-c", outer, "sh", tool])
        .args(SUPERVISED)
        .args(["--max-restarts", "0"])
        .args(["--", "sh", "-c", &script]);
    let running = Running::start(command);
    assert_eq!(running.line(), "ready");
    running.send(Signal::SIGHUP);
    running.send(Signal::SIGUSR1);
    assert_eq!(running.line(), "got USR1");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(7));
    // The end came from the program itself, not from the signal.
    assert!(ended.words.contains("giving up"), "{}", ended.words);
}

#[test]
fn the_terminals_interrupt_reaches_the_program_once() {
    let pty = openpty(None, None).unwrap();
    let script = format!(
        "n=0; trap 'n=$((n + 1)); echo got INT' INT; trap 'kill $!; echo $n; exit 0' USR1; {WAIT}"
    );
    let mut command = Command::new("setsid");
    command.args(["--ctty", env!("CARGO_BIN_EXE_ckptctl")]);
    command.args(SUPERVISED).args(["--", "sh", "-c", &script]);
    let running = Running::start_on(command, pty.slave.into());
    assert_eq!(running.line(), "ready");
    // The tool is held until the program has taken the interrupt: one more would be seen.
    running.send(Signal::SIGSTOP);
    File::from(pty.master.try_clone().unwrap())
        .write_all(b"\x03")
        .unwrap();
    assert_eq!(running.line(), "got INT");
    running.send(Signal::SIGUSR1);
    running.send(Signal::SIGCONT);
    assert_eq!(running.line(), "1");
    assert_eq!(running.end().status.code(), Some(0));
}

#[test]
fn a_program_is_told_when_its_supervisor_is_killed() {
    let script = format!("trap 'kill $!; echo told; exit 0' TERM; {WAIT}");
    let running = Running::start(ckptctl(&SUPERVISED, &script));
    assert_eq!(running.line(), "ready");
    running.send(Signal::SIGKILL);
    assert_eq!(running.line(), "told");
    assert_eq!(running.end().status.code(), None);
}

#[test]
fn the_program_blocks_no_signals_and_has_fixed_addresses() {
    let script = "grep SigBlk /proc/self/status; cat /proc/self/personality";
    for arguments in [&["run"][..], &SUPERVISED] {
        let output = output(arguments, script);
        let text = String::from_utf8(output.stdout).unwrap();
        let values: Vec<u64> = text
            .lines()
            .map(|line| u64::from_str_radix(line.trim_start_matches("SigBlk:").trim(), 16).unwrap())
            .collect();
        assert_eq!(values[0], 0, "blocked signals");
        assert_eq!(values[1] & 0x0040000, 0x0040000, "ADDR_NO_RANDOMIZE");
    }
}

#[test]
fn the_store_is_an_absolute_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = ckptctl(&["run", "--store", "chain"], "cd /; echo $CKPT_STORE");
    let output = command.current_dir(&dir).output().unwrap();
    let expected = dir.path().canonicalize().unwrap().join("chain");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{}\n", expected.display())
    );
}

#[test]
fn the_tracker_is_in_the_environment_only_when_it_was_asked_for() {
    let script = "echo ${CKPT_TRACKER-unset}";
    assert_eq!(output(&["run"], script).stdout, b"unset\n");
    assert_eq!(
        output(&["run", "--tracker", "compare"], script).stdout,
        b"compare\n"
    );
}

#[test]
fn orphans_that_the_supervisor_inherits_leave_no_zombies() {
    // Asks whether the orphan is gone altogether, often enough for the slowest machine.
    let script = "orphan=$(true & echo $!); n=0
        while kill -0 $orphan 2>/dev/null; do n=$((n + 1)); [ $n -lt 3000000 ] || exit 1; done";
    let once = [&SUPERVISED[..], &["--max-restarts", "0"]].concat();
    let mut command = ckptctl(&once, script);
    // SAFETY: Makes a system call and nothing else.
    unsafe { command.pre_exec(|| Ok(prctl::set_child_subreaper(true)?)) };
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
}

#[test]
fn a_supervisor_without_anybody_to_talk_to_goes_on() {
    let mut command = ckptctl(&SUPERVISED, "exit 5");
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    assert_eq!(command.stderr(writer).status().unwrap().code(), Some(5));
}
