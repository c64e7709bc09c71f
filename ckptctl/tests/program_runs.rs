// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl run` and `ckptctl restore` with a program that counts, commits and is killed.

use std::env;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::store::Chain;
use ckptctl::store::Kind;

const LOG: &str = "COUNTER_LOG";
const LAST: &str = "COUNTER_LAST";
const COMMITS: &str = "COUNTER_COMMITS";
/// "hang": it stays after its commits, in place of dying. "live": it stays for 5 s and says so.
const THEN: &str = "COUNTER_THEN";

/// A tool that goes on for so many seconds will go on for ever.
const LIMIT: &str = "120";

/// The program: adds 1 to the number in its state and commits, until that is COUNTER_LAST or
/// COUNTER_COMMITS commits were made; then it kills itself. Started by the tests below.
#[test]
#[ignore = "it is the program that the other tests start"]
fn counter() {
    let Some(log) = env::var_os(LOG) else { return };
    let number = |name| env::var(name).unwrap().parse::<u64>().unwrap();
    let (last, commits) = (number(LAST), number(COMMITS));
    let context = Context::open(Options::new().arena_bytes(1 << 24)).unwrap();
    let counter = match context.root().unwrap() {
        Some(counter) => counter.cast::<u64>(),
        None => {
            let counter = context.allocate(8, 8).unwrap();
            // SAFETY: The block is new, and as large and aligned as a counter.
            unsafe { counter.cast::<u64>().write(0) };
            context.set_root(Some(counter)).unwrap();
            counter.cast::<u64>()
        }
    };
    // SAFETY: The counter is in the arena, which lives as long as the context, and nobody else
    // uses it.
    let (read, write) = unsafe { (|| counter.read(), |value| counter.write(value)) };
    let mut log = File::options().append(true).create(true).open(log).unwrap();
    let restored = context.restored_epoch();
    writeln!(log, "epoch {restored:?} counter {}", read()).unwrap();
    for _ in 0..commits {
        if read() >= last {
            return;
        }
        write(read() + 1);
        context.commit().unwrap();
    }
    context.wait(0, None).unwrap();
    if let Ok(how) = env::var(THEN) {
        let begun = Instant::now();
        while how == "hang" || begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
            if how == "live" {
                context.alive().unwrap();
            }
        }
        return;
    }
    Command::new("kill")
        .args(["-KILL", &std::process::id().to_string()])
        .status()
        .unwrap();
}

struct Counter {
    dir: tempfile::TempDir,
}

impl Counter {
    fn new() -> Counter {
        Counter {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("chain")
    }

    /// Runs `ckptctl ARGUMENTS -- counter`.
    fn start(&self, arguments: &[&str], last: u64, commits: u64) -> Output {
        self.command(arguments, last, commits).output().unwrap()
    }

    fn command(&self, arguments: &[&str], last: u64, commits: u64) -> Command {
        let mut command = ckptctl(arguments);
        command
            .arg("--")
            .arg(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "counter", "--test-threads=1"])
            .env(LOG, self.dir.path().join("log"))
            .env(LAST, last.to_string())
            .env(COMMITS, commits.to_string());
        command
    }

    fn run(&self, arguments: &[&str], last: u64, commits: u64) -> Output {
        let store = self.store();
        let arguments = [&["run", "--store", store.to_str().unwrap()], arguments].concat();
        self.start(&arguments, last, commits)
    }

    fn restore(&self, epoch: u64, arguments: &[&str], last: u64, commits: u64) -> Output {
        let spec = format!("{}@{epoch}", self.store().display());
        self.start(
            &[&["restore", spec.as_str()], arguments].concat(),
            last,
            commits,
        )
    }

    /// What the program said at each start: the epoch restored and the counter.
    fn starts(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn kinds(&self) -> Vec<Kind> {
        let chain = Chain::open(self.store()).unwrap();
        chain.commits().map(|commit| commit.kind).collect()
    }
}

fn ckptctl(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--preserve-status", LIMIT, env!("CARGO_BIN_EXE_ckptctl")]);
    command.args(arguments).env("CKPT_TRACKER", "compare");
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tool's own lines.
fn told(output: &Output) -> Vec<String> {
    let words = words(output);
    let own = words.lines().filter(|line| line.starts_with("ckptctl: "));
    own.map(str::to_owned).collect()
}

const AGAIN: [&str; 4] = ["--restart", "on-failure", "--backoff", "0s"];

#[test]
fn a_program_that_is_killed_after_every_third_commit_counts_on() {
    let counter = Counter::new();
    // One restart is enough when each brings a commit.
    let output = counter.run(&[&AGAIN[..], &["--max-restarts", "1"]].concat(), 8, 3);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert_eq!(
        counter.starts(),
        [
            "epoch None counter 0",
            "epoch Some(3) counter 3",
            "epoch Some(7) counter 6"
        ]
    );
    let told = told(&output);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains(" was killed by signal 9 (KILL) after "),
        "{told:?}"
    );
    assert!(
        told[0].ends_with(" at epoch 3; starting it again (1 of 1)"),
        "{told:?}"
    );
    assert!(
        told[1].ends_with(" at epoch 7; starting it again (1 of 1)"),
        "{told:?}"
    );
}

#[test]
fn restores_alone_are_no_progress() {
    let counter = Counter::new();
    counter.run(&[], 2, 9);
    let output = counter.run(&[&AGAIN[..], &["--max-restarts", "2"]].concat(), 9, 0);
    assert_eq!(output.status.code(), Some(128 + 9));
    assert_eq!(counter.starts().len(), 1 + 3);
    assert_eq!(counter.kinds()[2..], [Kind::Restore; 3]);
    let told = told(&output);
    assert!(
        told[2]
            .ends_with(" at epoch 5; giving up, 2 restarts brought no new commit: 2 from epoch 2"),
        "{told:?}"
    );
}

#[test]
fn an_older_epoch_is_where_the_program_starts() {
    let counter = Counter::new();
    counter.run(&[], 5, 9);
    let output = counter.restore(2, &[], 4, 9);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(
        counter.starts(),
        ["epoch None counter 0", "epoch Some(2) counter 2"]
    );
    let chain = Chain::open(counter.store()).unwrap();
    assert_eq!(
        chain.find(6).unwrap().parent,
        Some(2),
        "the branch begins at the restored epoch"
    );
    assert_eq!(chain.newest().unwrap().unwrap().epoch, 8);
}

#[test]
fn after_a_restart_the_last_commit_counts_and_not_the_older_epoch() {
    let counter = Counter::new();
    counter.run(&[], 5, 9);
    let output = counter.restore(2, &AGAIN, 4, 1);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(
        counter.starts()[1..],
        [
            "epoch Some(2) counter 2",
            "epoch Some(7) counter 3",
            "epoch Some(9) counter 4"
        ]
    );
}

#[test]
fn a_program_that_died_before_its_restore_is_told_the_older_epoch_again() {
    let counter = Counter::new();
    counter.run(&[], 5, 9);
    let spec = format!("{}@2", counter.store().display());
    let output = ckptctl(&["restore", &spec, "--max-restarts", "2"])
        .args(AGAIN)
        .args(["--", "sh", "-c", "echo $CKPT_RESTORE_EPOCH; exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"2\n2\n2\n");
}

fn damage_newest(store: &Path) {
    let chain = Chain::open(store).unwrap();
    let newest = chain.newest().unwrap().unwrap();
    let path = chain.file_of(newest);
    let mut bytes = fs::read(path).unwrap();
    bytes[newest.offset as usize + 40] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_chain_keeps_a_program_from_being_started() {
    let counter = Counter::new();
    counter.run(&[], 3, 9);
    damage_newest(&counter.store());
    for output in [counter.run(&AGAIN, 9, 9), counter.restore(3, &[], 9, 9)] {
        assert_eq!(output.status.code(), Some(4), "{}", words(&output));
        assert!(words(&output).contains("damaged"), "{}", words(&output));
    }
    assert_eq!(counter.starts().len(), 1);
}

#[test]
fn damage_that_turns_up_ends_the_restarts() {
    let counter = Counter::new();
    counter.run(&[], 3, 9);
    let chain = Chain::open(counter.store()).unwrap();
    let newest = chain.newest().unwrap().unwrap();
    let (path, at) = (chain.file_of(newest), newest.offset + 40);
    let flipped = fs::read(path).unwrap()[at as usize] ^ 1;
    let script = format!(
        r"echo once; printf '\{flipped:03o}' | dd of={} bs=1 seek={at} conv=notrunc status=none; exit 1",
        path.display(),
    );
    let output = ckptctl(&["run", "--store", counter.store().to_str().unwrap()])
        .args(AGAIN)
        .args(["--", "sh", "-c", &script])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", words(&output));
    assert_eq!(output.stdout, b"once\n");
    assert!(
        words(&output).contains("it is not started again"),
        "{}",
        words(&output)
    );
}

#[test]
fn an_older_epoch_is_restored_from_a_chain_whose_newest_is_damaged() {
    let counter = Counter::new();
    counter.run(&[], 3, 9);
    damage_newest(&counter.store());
    let spec = format!("{}@2", counter.store().display());
    let output = ckptctl(&["restore", &spec])
        .args(AGAIN)
        .args(["--", "sh", "-c", "echo $CKPT_RESTORE_EPOCH"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(output.stdout, b"2\n");
}

#[test]
fn a_program_keeps_its_addresses_from_start_to_start() {
    let counter = Counter::new();
    for last in 1..4 {
        // Without the same addresses the library refuses to restore.
        let output = counter.run(&[], last, 9);
        assert!(output.status.success(), "{}", words(&output));
    }
    assert_eq!(counter.starts().len(), 3);
}

#[test]
fn a_crash_loop_goes_back_commit_by_commit_and_ends_with_a_report() {
    let counter = Counter::new();
    counter.run(&[], 3, 9);
    let limits = ["--max-restarts", "5", "--back-after", "2"];
    let output = counter.run(&[&AGAIN[..], &limits].concat(), 9, 0);
    assert_eq!(output.status.code(), Some(128 + 9));
    let counters: Vec<String> = (counter.starts().iter())
        .filter_map(|start| start.split(' ').next_back().map(str::to_owned))
        .collect();
    assert_eq!(counters, ["0", "3", "3", "3", "2", "2", "1"]);
    let told = told(&output);
    assert!(
        told[2].contains(
            "; 2 restarts from epoch 3 brought no new commit, so it goes back to epoch 2; "
        ),
        "{told:?}"
    );
    assert!(
        told[5].ends_with(
            "giving up, 5 restarts brought no new commit: 2 from epoch 3, 2 from epoch 2, 1 from epoch 1"
        ),
        "{told:?}"
    );
}

#[test]
fn without_a_new_commit_back_after_zero_stays_where_it_is() {
    let counter = Counter::new();
    counter.run(&[], 3, 9);
    counter.run(&[&AGAIN[..], &["--max-restarts", "4"]].concat(), 9, 0);
    let starts = counter.starts();
    assert!(
        starts[1..].iter().all(|start| start.ends_with(" 3")),
        "{starts:?}"
    );
}

#[test]
fn a_program_that_hangs_is_killed_and_goes_on_from_its_last_commit() {
    let counter = Counter::new();
    let store = counter.store();
    let watched = [
        "run",
        "--store",
        store.to_str().unwrap(),
        "--watchdog",
        "1s",
    ];
    let output = counter
        .command(&[&watched[..], &AGAIN].concat(), 7, 3)
        .env(THEN, "hang")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let counters: Vec<String> = (counter.starts().iter())
        .filter_map(|start| start.split(' ').next_back().map(str::to_owned))
        .collect();
    assert_eq!(counters, ["0", "3", "6"]);
    let told = told(&output);
    assert!(
        told[0].ends_with(" gave no sign of life for 1.0 s, so it gets signal 6 (ABRT)"),
        "{told:?}"
    );
}

#[test]
fn a_program_that_gives_signs_of_life_is_let_live() {
    let counter = Counter::new();
    let store = counter.store();
    let watched = [
        "run",
        "--store",
        store.to_str().unwrap(),
        "--watchdog",
        "3s",
    ];
    let output = counter
        .command(&[&watched[..], &AGAIN].concat(), 7, 3)
        .env(THEN, "live")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(counter.starts().len(), 1, "{}", words(&output));
}

#[test]
fn without_the_module_a_warm_restart_reads_the_chain_and_says_why() {
    let counter = Counter::new();
    let output = counter.run(&[&AGAIN[..], &["--warm"]].concat(), 5, 3);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(counter.starts()[1], "epoch Some(3) counter 3");
    let told = told(&output);
    assert!(
        told[1].contains("going on ")
            && told[1].ends_with(
                "restored from its chain: an arena without the module ends with its program"
            ),
        "{told:?}"
    );
}

#[test]
fn a_watchdog_without_restarts_is_a_mistake() {
    let output = ckptctl(&["run", "--watchdog", "1s", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
}
