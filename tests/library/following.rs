// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about following a program that goes back, or dies and goes on in its arena. They need the
//! module: `tests/guest.d/45-outside` tries them in the test VM.
//!
//! The program has the same number in all of its pages whenever it commits, and else hardly ever.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Lines;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::pull::Outcome;
use ckptctl::pull::Puller;
use ckptctl::pull::Wish;
use ckptctl::store;
use ckptctl::store::Chain;
use ckptctl::store::Kind;
use ckptctl::sys::abi::CKPT_INFO_KEPT;
use ckptctl::sys::device::ArenaFd;
use ckptctl::sys::device::Device;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::claims::Claim;

/// Those that need the module.
pub const MODULE: &[Claim] = &[
    (
        "who_follows_a_program_that_goes_back_gets_nothing_but_its_commits",
        goes_back,
    ),
    (
        "who_follows_a_program_follows_it_over_its_warm_restarts",
        restarts,
    ),
    (
        "a_program_killed_while_it_goes_back_shows_no_state_in_between",
        killed,
    ),
];

const PAGE: usize = 4096;
const PAGES: usize = 80;

/// A reproducible sequence of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

struct Program {
    context: Context,
    start: *mut u64,
}

impl Program {
    fn open(dir: &Path) -> Program {
        let options = Options::new()
            .dir(dir.join("own"))
            .name("followed")
            .arena_bytes(1 << 28)
            .no_code_pointers();
        let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
        let spec = RegionSpec {
            name: "numbers",
            kind: 1,
            len_bytes: (PAGES * PAGE) as u64,
            reserve_bytes: 0,
        };
        let start = context.region(&spec).unwrap().cast().as_ptr();
        Program { context, start }
    }

    fn put(&self, page: u64, number: u64) {
        assert!(page < PAGES as u64);
        // SAFETY: Within the region, and one thread uses it.
        unsafe {
            self.start
                .add(page as usize * PAGE / 8)
                .write_volatile(number)
        };
    }

    fn put_all(&self, number: u64) {
        (0..PAGES as u64).for_each(|page| self.put(page, number));
    }

    /// The number, when it is the same everywhere.
    fn number(&self) -> u64 {
        // SAFETY: As above.
        let get = |page: usize| unsafe { self.start.add(page * PAGE / 8).read_volatile() };
        let all: BTreeSet<u64> = (0..PAGES).map(get).collect();
        assert_eq!(all.len(), 1, "this is no state that was committed: {all:?}");
        all.into_iter().sum()
    }

    /// Writes here and there, which is no state.
    fn disturb(&self, random: &mut Random) {
        for _ in 0..=random.below(30) {
            self.put(
                random.below(PAGES as u64),
                random.below(1 << 60) | (1 << 61),
            );
        }
    }
}

/// The numbers of all epochs of a chain, each of which must be a state of the program's.
fn numbers(dir: &Path) -> Vec<(u64, u64)> {
    let chain = Chain::open(dir).unwrap();
    let report = chain.verify(|_, _| {}).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let number_of = |epoch: u64| {
        let regions = chain.get(epoch).unwrap().regions;
        let first = regions.iter().find(|region| region.name == "numbers");
        let first = first.map_or(0, |region| region.offset_pages);
        let mut found = vec![0; PAGES];
        let mut loader = chain.load(epoch).unwrap();
        while let Some(run) = loader.next_run().unwrap() {
            for (page, bytes) in (run.pgoff..).zip(run.bytes.chunks_exact(PAGE)) {
                let page = page.checked_sub(first).filter(|page| *page < PAGES as u64);
                if let (Some(page), true) = (page, first > 0) {
                    found[page as usize] = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
                }
            }
        }
        let all: BTreeSet<u64> = found.into_iter().collect();
        assert_eq!(all.len(), 1, "epoch {epoch} was never committed: {all:?}");
        all.into_iter().sum()
    };
    let epochs: Vec<u64> = chain.commits().map(|commit| commit.epoch).collect();
    epochs
        .iter()
        .map(|&epoch| (epoch, number_of(epoch)))
        .collect()
}

fn open_arena(pid: u32) -> (u64, ArenaFd) {
    let device = Device::open().unwrap();
    let all = device.list().unwrap();
    let id = all.iter().find(|info| info.pid as u32 == pid).unwrap().id;
    (id, device.open_arena(id).unwrap())
}

fn goes_back(dir: &Path) {
    const ROUNDS: u64 = 150;
    let chain = dir.join("pulled");
    let program = Program::open(dir);
    let (_, arena) = open_arena(process::id());
    let (interrupt, end) = UnixStream::pair().unwrap();
    let mut committed = BTreeSet::new();
    thread::scope(|scope| {
        let pulling = scope.spawn(|| {
            let opened = Puller::open(arena, &chain, store::Options::default());
            let mut puller = opened.unwrap_or_else(|error| panic!("{error}")).0;
            loop {
                let wish = Wish {
                    ask: false,
                    timeout: Duration::from_secs(60),
                    interrupt: interrupt.as_fd(),
                };
                match puller.pull(&wish).unwrap() {
                    Outcome::Pulled(_) => {}
                    other => return assert_eq!(other, Outcome::Interrupted),
                }
            }
        });
        let mut random = Random(0xf0110);
        for round in 1..=ROUNDS {
            program.put_all(round);
            committed.insert((program.context.commit().unwrap().epoch, round));
            program.disturb(&mut random);
            // To the last one, or to one of some.
            let epochs: Vec<_> = committed.iter().rev().take(5).copied().collect();
            let (to, number) = epochs[random.below(epochs.len() as u64) as usize];
            let to = if random.below(2) == 0 { to } else { 0 };
            let report = program.context.rollback(to).unwrap();
            let number = if to == 0 { round } else { number };
            assert_eq!(program.number(), number);
            committed.insert((report.epoch, number));
        }
        // Wakes the puller, which has its turn first if there is a commit for it.
        program.context.wait(0, None).unwrap();
        drop(end);
        pulling.join().unwrap();
    });
    let pulled = numbers(&chain);
    for it in &pulled {
        assert!(committed.contains(it), "epoch {} is {}", it.0, it.1);
    }
    eprintln!("# {} of {} were pulled", pulled.len(), committed.len());
    assert!(pulled.len() > 20, "{} epochs are too few", pulled.len());
    program.context.close().unwrap();
}

/// Set in the program that `ckptctl run` starts: how it lives.
const LIFE: &str = "CKPT_TEST_FOLLOWED";

/// A program under `ckptctl run --warm`.
struct Supervised {
    tool: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    /// What the tool says.
    words: PathBuf,
}

impl Supervised {
    fn start(dir: &Path, life: &str, backoff: &str) -> Supervised {
        let words = dir.join("words");
        let mut tool = Command::new("ckptctl")
            .args(["run", "--restart", "on-failure", "--warm"])
            .args(["--max-restarts", "2", "--backoff", backoff, "--store"])
            .arg(dir.join("own"))
            .arg("--")
            .arg(env::current_exe().unwrap())
            .args(env::args_os().skip(1))
            .env(LIFE, life)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&words).unwrap())
            .spawn()
            .unwrap();
        Supervised {
            stdin: tool.stdin.take(),
            stdout: BufReader::new(tool.stdout.take().unwrap()).lines(),
            tool,
            words,
        }
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// The numbers of the next line.
    fn hear(&mut self) -> Vec<u64> {
        let Some(line) = self.stdout.next() else {
            panic!("it ended: {}", fs::read_to_string(&self.words).unwrap())
        };
        let line = line.unwrap();
        line.split(' ').map(|word| word.parse().unwrap()).collect()
    }

    fn ask(&mut self, what: &str) -> Vec<u64> {
        self.tell(what);
        self.hear()
    }

    /// Waits for its end; how many times it went on warm.
    fn end(mut self) -> usize {
        drop(self.stdin.take());
        let status = self.tool.wait().unwrap();
        let words = fs::read_to_string(&self.words).unwrap();
        assert!(status.success(), "{words}");
        assert!(!words.contains("restored from its chain"), "{words}");
        words.matches("put back in").count()
    }
}

/// Also when a claim fails: its program would go on in the chain of the next one.
impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

fn die() -> ! {
    kill(Pid::from_raw(process::id() as i32), Signal::SIGKILL).unwrap();
    unreachable!("it was killed")
}

/// Says its pid, and does what it is told.
fn obey(dir: &Path) {
    let program = Program::open(dir);
    let mut number = program.number();
    println!("{} {number}", process::id());
    let mut random = Random(0x0bee);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let when_asked = line.strip_prefix("when asked ");
        while when_asked.is_some() && !program.context.pending() {
            thread::yield_now();
        }
        match when_asked.unwrap_or(&line) {
            "commit" => {
                number += 1;
                program.put_all(number);
                println!("{} {number}", program.context.commit_sync().unwrap().epoch);
            }
            "die" => {
                program.disturb(&mut random);
                die();
            }
            "end" => return program.context.close().unwrap(),
            other => panic!("{other}"),
        }
    }
}

/// The tool, with one of its verbs.
fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new("ckptctl");
    command.args(arguments);
    command
}

fn restarts(dir: &Path) {
    if env::var_os(LIFE).is_some() {
        return obey(dir);
    }
    // Longer than it takes to see that a program is gone for good.
    let mut program = Supervised::start(dir, "obey", "3s");
    let pid = program.hear()[0];
    let (id, arena) = open_arena(pid as u32);
    let id = id.to_string();
    program.ask("commit");
    let chain = dir.join("pulled");
    let to = chain.to_str().unwrap();
    let mut puller = tool(&["pull", &id, "--follow", "--json", "--to", to]);
    let mut puller = puller.stdout(Stdio::piped()).spawn().unwrap();
    let mut pulled = BufReader::new(puller.stdout.take().unwrap()).lines();
    let mut pulled = || pulled.next().expect("the puller has ended").unwrap();
    program.ask("when asked commit");
    pulled();
    let mut last = pid;
    for _ in 0..2 {
        // Somebody waits for a commit, and the program dies before it makes one.
        let mut waiting = tool(&["commit", &id, "--wait", "--timeout", "60s"]);
        let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
        program.tell("when asked die");
        let info = loop {
            let info = arena.info().unwrap();
            if info.pid == 0 {
                break info;
            }
            thread::yield_now();
        };
        assert_ne!(info.flags & CKPT_INFO_KEPT, 0, "nobody keeps it");
        let shown = tool(&["ps", "--json"]).output().unwrap().stdout;
        let shown = String::from_utf8(shown).unwrap();
        assert!(
            shown.contains("\"pid\": null") && shown.contains("\"kept\": true"),
            "{shown}"
        );
        let pid = program.hear()[0];
        assert_ne!(pid, last);
        last = pid;
        assert_eq!(
            arena.info().unwrap().pid as u64,
            pid,
            "the arena names another"
        );
        assert!(waiting.wait().unwrap().success(), "who waited for a commit");
        // What it goes on from was pulled as well; then one that was asked for by the chain's name.
        pulled();
        let own = dir.join("own");
        let by_chain = tool(&["commit", own.to_str().unwrap()]).output().unwrap();
        assert!(by_chain.status.success(), "{by_chain:?}");
        program.ask("when asked commit");
        pulled();
    }
    let [epoch, number] = program.ask("commit")[..] else {
        panic!("an epoch and a number")
    };
    program.tell("end");
    assert_eq!(program.end(), 2);
    assert!(puller.wait().unwrap().success(), "the puller's end");
    assert_eq!(numbers(&chain).last(), Some(&(epoch, number)));
    // One chain, each commit on the one before.
    let chain = Chain::open(&chain).unwrap();
    let alone = chain.commits().filter(|commit| commit.parent.is_none());
    assert_eq!(alone.count(), 1, "commits that stand alone");
}

/// Commits and goes back without a pause, until there is a file that says to stop.
fn be_restless(dir: &Path) {
    let program = Program::open(dir);
    let mut number = program.number();
    println!("{} {number}", process::id());
    let mut random = Random((u64::from(process::id()) << 20) | 1);
    while !dir.join("stop").exists() {
        number += 1;
        program.put_all(number);
        program.context.commit().unwrap();
        program.disturb(&mut random);
        program.context.rollback(0).unwrap();
        assert_eq!(program.number(), number);
    }
    program.context.close().unwrap();
}

fn killed(dir: &Path) {
    const KILLS: u64 = 25;
    if env::var_os(LIFE).is_some() {
        return be_restless(dir);
    }
    let mut random = Random(0xdead);
    let mut program = Supervised::start(dir, "restless", "0s");
    let mut pid = program.hear()[0];
    let (id, arena) = open_arena(pid as u32);
    let chain = dir.join("pulled");
    let to = chain.to_str().unwrap();
    let mut puller = tool(&["pull", &id.to_string(), "--follow", "--to", to]);
    let mut puller = puller.stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..KILLS {
        // It has brought something new, and is somewhere.
        let before = arena.info().unwrap().epoch;
        while arena.info().unwrap().epoch < before + 5 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_micros(random.below(20_000)));
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        pid = program.hear()[0];
    }
    fs::write(dir.join("stop"), "").unwrap();
    assert_eq!(program.end() as u64, KILLS);
    assert!(puller.wait().unwrap().success(), "the puller's end");
    let pulled = numbers(&chain);
    eprintln!("# {} epochs were pulled", pulled.len());
    assert!(
        pulled.len() as u64 > KILLS,
        "{} epochs are too few",
        pulled.len()
    );
    numbers(&dir.join("own"));
    let own = Chain::open(dir.join("own")).unwrap();
    let count = |kind| own.commits().filter(|commit| commit.kind == kind).count();
    assert!(count(Kind::Rollback) > 0 && count(Kind::Restore) as u64 == KILLS);
}
