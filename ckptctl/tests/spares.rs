// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two hosts, as far as one machine can have two: a program, its spare, and the tool between them.

use std::env;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ckptctl::Context;
use ckptctl::Error;
use ckptctl::Options;
use ckptctl::When;
use ckptctl::replication::known_term;
use ckptctl::store::Chain;
use ckptctl::store::CommitId;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Where the program writes what it has to say.
const LOG: &str = "SPARES_LOG";

/// What takes longer will never come.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The program: adds 1 to the number in its state and commits, for ever, and says each number once it
/// is safe. Started by the tests below.
#[test]
#[ignore = "it is the program that the other tests start"]
fn program() {
    let Some(path) = env::var_os(LOG) else { return };
    let mut log = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    let of_hook = log.try_clone().unwrap();
    let options = Options::new().arena_bytes(1 << 24).no_code_pointers();
    let options = options.hook(When::AfterTakeover, move |context, _| {
        let term = context.takeover_term().unwrap_or(0);
        writeln!(&of_hook, "takeover {term}").unwrap();
        0
    });
    let context = Context::open(options).unwrap();
    let counter = match context.root().unwrap() {
        Some(counter) => counter.cast::<u64>(),
        None => {
            let counter = context.allocate(8, 8).unwrap().cast::<u64>();
            // SAFETY: The block is new, and as large and aligned as a counter.
            unsafe { counter.write(0) };
            context.set_root(Some(counter.cast())).unwrap();
            counter
        }
    };
    // SAFETY: The counter is in the arena, which lives as long as the context, and nobody else
    // uses it.
    let (read, write) = unsafe { (|| counter.read(), |value| counter.write(value)) };
    writeln!(log, "pid {} begins with {}", std::process::id(), read()).unwrap();
    loop {
        write(read() + 1);
        context.commit().unwrap();
        while let Err(error) = context.wait(0, Some(LOOK)) {
            assert!(matches!(error, Error::TimedOut { .. }), "{error}");
            if context.pending() {
                context.commit().unwrap();
            }
        }
        writeln!(log, "safe {}", read()).unwrap();
        // So that it is not all that the machine does.
        thread::sleep(Duration::from_millis(2));
    }
}

/// A host: a chain's directory and what the program there has said.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        Host {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("chain")
    }

    fn newest(&self) -> CommitId {
        let chain = Chain::open(self.store()).unwrap();
        chain.newest().unwrap().unwrap().id()
    }

    /// What the program said, whole lines only.
    fn said(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].lines().map(str::to_owned).collect()
    }

    fn all(&self, prefix: &str) -> Vec<u64> {
        let said = self.said();
        let of_this = said.iter().filter_map(|line| line.strip_prefix(prefix));
        of_this
            .map(|rest| rest.split(' ').next_back().unwrap().parse().unwrap())
            .collect()
    }

    /// The last number that the program called safe.
    fn safe(&self) -> u64 {
        self.all("safe ").last().copied().unwrap_or(0)
    }

    /// With which numbers the program has begun, one for each start.
    fn begun(&self) -> Vec<u64> {
        self.all("pid ")
    }

    fn pid(&self) -> Pid {
        let said = self.said();
        let last = said.iter().rev().find_map(|line| line.strip_prefix("pid "));
        Pid::from_raw(last.unwrap().split(' ').next().unwrap().parse().unwrap())
    }

    fn wait(&self, what: &str, until: impl Fn(&Host) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !until(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.said());
            thread::sleep(LOOK);
        }
    }

    /// A verb that runs the program on this host.
    fn start(&self, arguments: &[&str]) -> Tool {
        let mut command = ckptctl();
        command
            .arg(arguments[0])
            .arg("--store")
            .arg(self.store())
            .args(&arguments[1..])
            .arg("--")
            .arg(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "program", "--test-threads=1"])
            .env(LOG, self.dir.path().join("log"));
        Tool::start(command)
    }

    /// A spare, and where it listens.
    fn spare(&self, arguments: &[&str]) -> (Tool, String) {
        let common = ["spare", "--listen", "127.0.0.1:0"];
        let tool = self.start(&[&common[..], arguments].concat());
        let word = tool.word("spare of ");
        let address = word.split(" on ").nth(1).unwrap();
        let address = address.split(',').next().unwrap().to_owned();
        (tool, address)
    }

    /// A verb on this host's chain.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = ckptctl();
        command.arg(arguments[0]).arg(self.store());
        command.args(&arguments[1..]).output().unwrap()
    }

    /// The host's power fails: supervisor and program are gone at once.
    fn dies(&self, tool: Tool) {
        kill(tool.pid(), Signal::SIGKILL).unwrap();
        // Its supervisor's end may have been quicker.
        let _ = kill(self.pid(), Signal::SIGKILL);
        tool.end();
    }
}

fn ckptctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    for name in ["CKPT_STORE", "CKPT_WAIT_FOR", "CKPT_TAKEOVER"] {
        command.env_remove(name);
    }
    command.env("CKPT_TRACKER", "compare");
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tool, running.
struct Tool {
    child: Child,
    words: Receiver<String>,
}

impl Tool {
    fn start(mut command: Command) -> Tool {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let (sender, words) = mpsc::channel();
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Tool { child, words }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The next line that the tool says with this in it.
    fn word(&self, with: &str) -> String {
        self.word_of(&[with])
    }

    /// The next line that the tool says with any of these in it.
    fn word_of(&self, with: &[&str]) -> String {
        let mut heard = Vec::new();
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.words.recv_timeout(left) {
                Ok(line) if with.iter().any(|with| line.contains(with)) => return line,
                Ok(line) => heard.push(line),
                Err(_) => panic!("it never said {with:?}, but {heard:?}"),
            }
        }
    }

    /// Waits for its end; how that was, and what it had still to say.
    fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(LOOK);
        };
        let words = self.words.iter().map(|line| line + "\n").collect();
        (status, words)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Its program gets SIGTERM with that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes certificates for two hosts, of an authority of their own; their directories.
fn certificates(dir: &tempfile::TempDir, service: &str) -> [String; 2] {
    let pki = dir.path().join("pki");
    let made = ckptctl().args(["pki", "init"]).arg(&pki).output().unwrap();
    assert!(made.status.success(), "{}", words(&made));
    ["west", "east"].map(|node| {
        let mut command = ckptctl();
        command.args(["pki", "issue"]).arg(&pki).arg(node);
        command.args(["--service", service, "--address", "127.0.0.1"]);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", words(&made));
        pki.join(node).to_str().unwrap().to_owned()
    })
}

fn takes_over_with_all_that_was_safe(of_west: &[&str], of_east: &[&str]) {
    let (west, east) = (Host::new(), Host::new());
    let (spare, address) = east.spare(of_east);
    let arguments = [
        "run",
        "--replicate-to",
        &address,
        "--wait-for",
        "replicated",
    ];
    let primary = west.start(&[&arguments[..], of_west].concat());
    west.wait("the primary works", |west| west.safe() >= 20);
    west.dies(primary);
    spare.word_of(&["has closed the link", "is gone"]);
    let safe = west.safe();
    let promoted = east.run(&["promote"]);
    assert!(promoted.status.success(), "{}", words(&promoted));
    assert!(
        words(&promoted).contains("in term 2"),
        "{}",
        words(&promoted)
    );
    east.wait("the spare works", |east| east.safe() > safe);
    assert!(east.begun()[0] >= safe, "{:?} {safe}", east.begun());
}

#[test]
fn a_spare_that_is_promoted_goes_on_with_all_that_was_safe() {
    let plain = |node| ["--plain", "--node", node];
    takes_over_with_all_that_was_safe(&plain("west"), &plain("east"));
}

#[test]
fn so_it_does_with_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let [west, east] = certificates(&dir, "counter");
    let with = |pki| ["--service", "counter", "--pki", pki];
    takes_over_with_all_that_was_safe(&with(&west), &with(&east));
}

#[test]
fn a_spare_of_a_primary_that_lives_takes_over_by_force_only() {
    let (west, east) = (Host::new(), Host::new());
    let (_spare, address) = east.spare(&["--plain"]);
    let arguments = ["run", "--plain", "--replicate-to", &address];
    let _primary = west.start(&[&arguments[..], &["--wait-for", "replicated"]].concat());
    west.wait("the primary works", |west| west.safe() > 0);
    let refused = east.run(&["promote"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        words(&refused).contains("so it lives"),
        "{}",
        words(&refused)
    );
    assert!(east.said().is_empty(), "{:?}", east.said());
    let forced = east.run(&["promote", "--force"]);
    assert!(forced.status.success(), "{}", words(&forced));
    east.wait("the spare works", |east| east.safe() > 0);
}

/// West was the primary and is dead; east has taken over, worked, and is ended.
fn after_a_takeover() -> (Host, Host) {
    let (west, east) = (Host::new(), Host::new());
    let (spare, address) = east.spare(&["--plain"]);
    let primary = west.start(&["run", "--plain", "--replicate-to", &address]);
    primary.word("replicating to");
    west.wait("the primary works", |west| west.safe() > 0);
    // So that west has commits that nobody received.
    kill(spare.pid(), Signal::SIGSTOP).unwrap();
    let safe = west.safe();
    west.wait("the primary works on", |west| west.safe() > safe + 20);
    west.dies(primary);
    kill(spare.pid(), Signal::SIGCONT).unwrap();
    let promoted = east.run(&["promote", "--force"]);
    assert!(promoted.status.success(), "{}", words(&promoted));
    east.wait("the spare works", |east| east.safe() > 0);
    east.dies(spare);
    (west, east)
}

#[test]
fn the_old_primary_is_fenced() {
    let (west, east) = after_a_takeover();
    let newest = east.newest();
    let (_spare, address) = east.spare(&["--plain"]);
    let fenced = west.run(&["replicate", "--to", &address, "--plain", "--once"]);
    assert_eq!(fenced.status.code(), Some(5), "{}", words(&fenced));
    assert!(
        words(&fenced).contains("there is term 2 already"),
        "{}",
        words(&fenced)
    );
    assert_eq!(east.newest(), newest);
}

#[test]
fn the_old_primary_becomes_a_spare_of_the_new_one() {
    let (west, east) = after_a_takeover();
    let ours = west.newest();
    assert_ne!(ours, east.newest());
    let (spare, address) = west.spare(&["--plain"]);
    let sent = east.run(&["replicate", "--to", &address, "--plain", "--once"]);
    assert!(sent.status.success(), "{}", words(&sent));
    drop(spare);
    assert_eq!(west.newest(), east.newest());
    assert_eq!(known_term(&west.store()).unwrap(), 2);
    // What nobody received is still there, beside.
    assert!(Chain::open(west.store()).unwrap().has(ours));
}

#[test]
fn a_program_that_is_moved_goes_on_there_and_is_not_started_here_again() {
    let (west, east) = (Host::new(), Host::new());
    let (_spare, address) = east.spare(&["--plain"]);
    let supervisor = west.start(&["run", "--restart", "on-failure", "--backoff", "0s"]);
    west.wait("the program works", |west| west.safe() >= 5);
    let moved = west.run(&["migrate", "--to", &address, "--plain"]);
    assert!(moved.status.success(), "{}", words(&moved));
    let (status, words) = supervisor.end();
    assert_eq!(status.code(), Some(128 + 9), "{words}");
    assert!(!words.contains("starting it again"), "{words}");
    assert_eq!(west.begun(), [0]);
    let safe = west.safe();
    east.wait("it works there", |east| east.safe() > safe);
    assert!(east.begun()[0] >= safe, "{:?} {safe}", east.begun());
}

#[test]
fn a_program_that_cannot_be_moved_goes_on_here() {
    let west = Host::new();
    let _supervisor = west.start(&["run", "--restart", "on-failure"]);
    west.wait("the program works", |west| west.safe() > 0);
    // A port that nobody listens on: the one who did is gone.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = listener.local_addr().unwrap().to_string();
    drop(listener);
    let refused = west.run(&["migrate", "--to", &nowhere, "--plain"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        words(&refused).contains("no link to"),
        "{}",
        words(&refused)
    );
    let safe = west.safe();
    west.wait("the program goes on", |west| west.safe() > safe);
    assert_eq!(west.begun(), [0]);
}

#[test]
fn a_spare_of_another_service_is_told_and_not_tried_again() {
    let (west, east) = (Host::new(), Host::new());
    let program = west.start(&["run"]);
    west.wait("the program works", |west| west.safe() > 0);
    let (_spare, address) = east.spare(&["--plain", "--service", "queue"]);
    let other = ["--plain", "--once", "--service", "counter"];
    let refused = west.run(&[&["replicate", "--to", &address], &other[..]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let told = words(&refused);
    assert!(told.contains("a spare of service \"queue\""), "{told}");
    drop(program);
}

#[test]
fn certificates_for_another_service_or_of_another_authority_are_refused() {
    let (west, east) = (Host::new(), Host::new());
    let program = west.start(&["run"]);
    west.wait("the program works", |west| west.safe() > 0);
    let dirs = [0, 1, 2].map(|_| tempfile::tempdir().unwrap());
    let [ours, of_east] = certificates(&dirs[0], "counter");
    let [stranger, _] = certificates(&dirs[1], "counter");
    let (spare, address) = east.spare(&["--service", "counter", "--pki", &of_east]);

    let send = |service, pki: &str| {
        let mut command = ckptctl();
        command.arg("replicate").arg(west.store());
        command.args(["--to", &address, "--once", "--service", service]);
        Tool::start({
            command.args(["--pki", pki]);
            command
        })
    };
    // It may be a matter of time, so this one is tried again.
    let tool = send("counter", &stranger);
    tool.word("certificate");
    drop(tool);
    let (status, words) = send("queue", &ours).end();
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("--service queue"), "{words}");
    let (status, words) = send("counter", &ours).end();
    drop((spare, program));
    assert!(status.success(), "{words}");
}

#[test]
fn nothing_is_safe_that_a_spare_which_stands_still_does_not_have() {
    let (west, east) = (Host::new(), Host::new());
    let (spare, address) = east.spare(&["--plain"]);
    let arguments = ["run", "--plain", "--replicate-to", &address];
    let _primary = west.start(&[&arguments[..], &["--wait-for", "replicated"]].concat());
    west.wait("the primary works", |west| west.safe() > 0);
    kill(spare.pid(), Signal::SIGSTOP).unwrap();
    let safe = west.safe();
    for _ in 0..5 {
        let asked = west.run(&["commit", "--wait=durable"]);
        assert!(asked.status.success(), "{}", words(&asked));
    }
    // What the spare had said just before may have been on its way.
    let now = west.safe();
    assert!(now <= safe + 2, "{safe} {now}");
    kill(spare.pid(), Signal::SIGCONT).unwrap();
    west.wait("the spare goes on", |west| west.safe() > now);
}

#[test]
fn a_spare_that_stands_still_delays_nobody_who_does_not_wait_for_it() {
    let (west, east) = (Host::new(), Host::new());
    let (spare, address) = east.spare(&["--plain"]);
    let primary = west.start(&["run", "--plain", "--replicate-to", &address]);
    primary.word("replicating to");
    kill(spare.pid(), Signal::SIGSTOP).unwrap();
    let safe = west.safe();
    west.wait("the primary works", |west| west.safe() > safe + 50);
    kill(spare.pid(), Signal::SIGCONT).unwrap();
}

#[test]
fn a_takeover_is_told_to_the_first_start_alone() {
    let (west, east) = (Host::new(), Host::new());
    let restarts = ["--plain", "--restart", "on-failure", "--backoff", "0s"];
    let (_spare, address) = east.spare(&restarts);
    let arguments = ["run", "--plain", "--replicate-to", &address];
    let primary = west.start(&[&arguments[..], &["--wait-for", "replicated"]].concat());
    west.wait("the primary works", |west| west.safe() > 0);
    west.dies(primary);
    let promoted = east.run(&["promote", "--force"]);
    assert!(promoted.status.success(), "{}", words(&promoted));
    east.wait("the spare works", |east| east.safe() > 0);
    kill(east.pid(), Signal::SIGKILL).unwrap();
    east.wait("it is started again", |east| east.begun().len() == 2);
    assert_eq!(east.all("takeover "), [2]);
    assert!(west.all("takeover ").is_empty());
}
