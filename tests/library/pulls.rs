// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about pulling a program's commits from outside. They need the module:
//! `tests/guest.d/45-outside` tries them in the test VM.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use ckptctl::pull::Outcome;
use ckptctl::pull::Puller;
use ckptctl::pull::Wish;
use ckptctl::store;
use ckptctl::store::Chain;
use ckptctl::sys::consumers::Level;
use ckptctl::sys::control::ControlPage;
use ckptctl::sys::device::ArenaFd;
use ckptctl::sys::device::Device;
use ckptctl::sys::memory::Mapping;

use crate::claims::Claim;

const PAGE: usize = 4096;
const PAGES: usize = 600;

/// Those that need the module.
pub const MODULE: &[Claim] = &[
    ("a_bare_program_is_pulled_as_it_was_at_its_commits", pulled),
    ("two_pull_at_once_and_each_has_what_it_pulled", two),
    ("a_puller_that_is_killed_goes_on_where_it_stopped", killed),
    ("a_puller_follows_until_the_program_ends", followed),
    ("a_program_is_restored_from_what_was_pulled_of_it", restored),
    ("a_directory_of_another_arena_is_refused", another),
    ("a_program_that_does_not_commit_is_named", silent),
];

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

/// A program that knows nothing but an arena and commits.
struct Bare {
    arena: ArenaFd,
    id: u64,
    map: Mapping,
    control: ControlPage,
    /// First words of all pages, by epoch.
    images: Mutex<BTreeMap<u64, Vec<u64>>>,
    stop: AtomicBool,
}

impl Bare {
    fn new(name: &str) -> Bare {
        let arena = Device::open()
            .and_then(|device| device.create(name, (PAGES * PAGE) as u64, 0))
            .unwrap();
        let id = arena.info().unwrap().id;
        let map = Mapping::shared(arena.as_fd(), 0, PAGES * PAGE).unwrap();
        let control = ControlPage::of_arena(&arena).unwrap();
        Bare {
            arena,
            id,
            map,
            control,
            images: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    fn words(&self, page: usize) -> &[AtomicU64] {
        assert!(page < PAGES);
        // SAFETY: Within the mapping, which lives as long as self, and aligned.
        unsafe {
            let at = self.map.base().add(page * PAGE).cast::<AtomicU64>();
            std::slice::from_raw_parts(at.as_ptr(), PAGE / 8)
        }
    }

    /// Writes at random and commits, also when asked, until it is told to stop.
    fn run(&self, seed: u64) {
        let mut random = Random(seed | 1);
        while !self.stop.load(Ordering::Relaxed) {
            for _ in 0..random.below(40) {
                let page = random.below(PAGES as u64) as usize;
                let value = match random.below(6) {
                    0 => 0,
                    _ => random.below(u64::MAX),
                };
                for word in self.words(page) {
                    word.store(value, Ordering::Relaxed);
                }
            }
            let asked = self.control.pending().load(Ordering::Relaxed) != 0;
            if asked || random.below(4) == 0 {
                let image = (0..PAGES).map(|page| self.words(page)[7].load(Ordering::Relaxed));
                let image = image.collect();
                let epoch = self.arena.commit().unwrap().epoch;
                self.images.lock().unwrap().insert(epoch, image);
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Every commit of the chain is what the program was at it; how many there are.
    fn compare(&self, dir: &Path) -> usize {
        let chain = Chain::open(dir).unwrap();
        let report = chain.verify(|_, _| {}).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        let images = self.images.lock().unwrap();
        let mut compared = 0;
        for commit in chain.commits() {
            let image = images.get(&commit.epoch);
            let image = image.unwrap_or_else(|| panic!("epoch {} was not committed", commit.epoch));
            let mut found = vec![0; PAGES];
            let mut loader = chain.load(commit.epoch).unwrap();
            while let Some(run) = loader.next_run().unwrap() {
                for (at, page) in run.bytes.chunks_exact(PAGE).enumerate() {
                    let words: Vec<u64> = page
                        .chunks_exact(8)
                        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
                        .collect();
                    assert!(
                        words.iter().all(|word| *word == words[0]),
                        "page {} of epoch {} is torn",
                        run.pgoff + at as u64,
                        commit.epoch
                    );
                    found[run.pgoff as usize + at] = words[0];
                }
            }
            assert_eq!(&found, image, "epoch {}", commit.epoch);
            compared += 1;
        }
        compared
    }
}

/// While the program runs in a thread.
fn while_it_runs<T>(program: &Bare, seed: u64, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let running = scope.spawn(|| program.run(seed));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        program.stop.store(true, Ordering::Relaxed);
        running.join().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn puller(id: u64, dir: &Path) -> Puller {
    let arena = Device::open()
        .and_then(|device| device.open_arena(id))
        .unwrap();
    let opened = Puller::open(arena, dir, store::Options::default());
    opened.unwrap_or_else(|error| panic!("{error}")).0
}

/// Pulls so many times, and asks for a commit every `nth` time; the epoch of the last.
fn pull(puller: &mut Puller, times: usize, nth: usize) -> u64 {
    let (interrupt, _other) = UnixStream::pair().unwrap();
    let mut last = 0;
    for time in 0..times {
        let wish = Wish {
            ask: time % nth == 0,
            timeout: Duration::from_secs(60),
            interrupt: interrupt.as_fd(),
        };
        match puller.pull(&wish).unwrap_or_else(|error| panic!("{error}")) {
            Outcome::Pulled(pulled) => {
                assert!(pulled.epoch > last, "{pulled:?} after {last}");
                last = pulled.epoch;
            }
            other => panic!("{other:?}"),
        }
    }
    last
}

fn pulled(dir: &Path) {
    let program = Bare::new("bare");
    let chain = dir.join("pulled");
    let last = while_it_runs(&program, 1, || {
        pull(&mut puller(program.id, &chain), 120, 2)
    });
    assert!(program.compare(&chain) > 100);
    let durable = program.arena.wait(last, Level::Durable, Duration::ZERO);
    assert_eq!(durable.unwrap(), Some(last), "acknowledged");
    let stats = program.arena.stats().unwrap();
    assert_eq!(stats.copy_waits, 0, "nobody waits for a puller");
    assert_eq!(stats.snapshots, 0, "snapshots left");
}

fn two(dir: &Path) {
    let program = Bare::new("bare");
    let chains = [dir.join("one"), dir.join("other")];
    while_it_runs(&program, 2, || {
        thread::scope(|scope| {
            for chain in &chains {
                scope.spawn(|| pull(&mut puller(program.id, chain), 60, 2));
            }
        });
    });
    for chain in &chains {
        assert!(program.compare(chain) > 40);
    }
}

fn start(arguments: &[&str], id: u64, chain: &Path, stdout: Stdio) -> Child {
    Command::new("ckptctl")
        .args(["pull", &id.to_string(), "--to"])
        .arg(chain)
        .args(arguments)
        .stdout(stdout)
        .spawn()
        .unwrap()
}

fn killed(dir: &Path) {
    let program = Bare::new("bare");
    let chain = dir.join("killed");
    let mut random = Random(3);
    while_it_runs(&program, 3, || {
        for _ in 0..30 {
            let mut tool = start(&["--follow"], program.id, &chain, Stdio::piped());
            // In the middle of whatever comes after some commits: a line tells of each.
            let lines = BufReader::new(tool.stdout.take().unwrap()).lines();
            let some = random.below(4) as usize;
            assert_eq!(lines.take(some).filter(Result::is_ok).count(), some);
            thread::sleep(Duration::from_micros(random.below(30_000)));
            tool.kill().unwrap();
            tool.wait().unwrap();
        }
        let status = start(&[], program.id, &chain, Stdio::null())
            .wait()
            .unwrap();
        assert!(status.success(), "the last pull: {status}");
    });
    assert!(program.compare(&chain) > 20);
    // Each was built on the one before: nothing was pulled twice.
    let chain = Chain::open(&chain).unwrap();
    let alone = chain.commits().filter(|commit| commit.parent.is_none());
    assert_eq!(alone.count(), 1, "commits that stand alone");
}

// The end of a program is the end of the process that made the arena, so that is another one.
fn followed(dir: &Path) {
    let chain = dir.join("followed");
    // SAFETY: This process has one thread here.
    let child = unsafe { nix::libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let program = Bare::new("to be followed");
        thread::scope(|scope| {
            scope.spawn(|| program.run(4));
            thread::sleep(Duration::from_secs(4));
            program.stop.store(true, Ordering::Relaxed);
        });
        // SAFETY: Ends the child without the parent's exit handlers.
        unsafe { nix::libc::_exit(0) };
    }
    let device = Device::open().unwrap();
    let id = loop {
        let all = device.list().unwrap();
        if let Some(info) = all.iter().find(|info| info.pid == child && info.epoch > 0) {
            break info.id;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut tool = start(&["--follow"], id, &chain, Stdio::null());
    let mut status = 0;
    // SAFETY: Waits for our child.
    let waited = unsafe { nix::libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert_eq!(status, 0, "the program's end");
    assert!(tool.wait().unwrap().success(), "the tool's end");
    assert!(Chain::open(&chain).unwrap().commits().count() > 3);
}

fn restored(dir: &Path) {
    let options = |chain: &Path| {
        let options = Options::new().dir(chain).name("pulled");
        options.base(0x3000_0000_0000).arena_bytes(1 << 28)
    };
    let region = RegionSpec {
        name: "words",
        kind: 5,
        len_bytes: 1 << 20,
        reserve_bytes: 1 << 21,
    };
    let chain = dir.join("pulled");
    let context = Context::open(options(&dir.join("own"))).unwrap();
    let words = context.region(&region).unwrap().cast::<u64>();
    let id = {
        let pid = std::process::id() as i32;
        let all = Device::open().and_then(|device| device.list()).unwrap();
        all.iter().find(|info| info.pid == pid).unwrap().id
    };
    let stop = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        scope.spawn(|| {
            let words = context.region(&region).unwrap().cast::<u64>();
            let mut round = 1;
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: Within the region; only this thread writes it.
                unsafe { words.add(round % (1 << 17)).write(round as u64) };
                if context.pending() {
                    context.commit().unwrap();
                }
                round += 1;
            }
        });
        // This one commits only when it is asked.
        let last = std::panic::catch_unwind(|| pull(&mut puller(id, &chain), 21, 1));
        stop.store(true, Ordering::Relaxed);
        last.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // SAFETY: Nobody writes any more.
    let image = |words: std::ptr::NonNull<u64>| unsafe {
        std::slice::from_raw_parts(words.as_ptr(), 1 << 17).to_vec()
    };
    drop(image(words));
    context.close().unwrap();
    let saved = |chain: &Path| {
        let restore = options(chain).restore(Restore::Epoch(last));
        let context = Context::open(restore).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(context.restored_epoch(), Some(last));
        let words = context.region(&region).unwrap().cast::<u64>();
        let image = image(words);
        context.close().unwrap();
        image
    };
    let own = saved(&dir.join("own"));
    assert!(own.iter().any(|word| *word != 0));
    assert_eq!(
        saved(&chain),
        own,
        "what was pulled is what the program saved itself"
    );
}

fn another(dir: &Path) {
    let program = Bare::new("first");
    let chain = dir.join("pulled");
    while_it_runs(&program, 5, || pull(&mut puller(program.id, &chain), 20, 2));
    let other = Bare::new("second");
    let arena = Device::open()
        .and_then(|device| device.open_arena(other.id))
        .unwrap();
    let error = Puller::open(arena, &chain, store::Options::default())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("pull to a new directory"),
        "{error}"
    );
}

fn silent(dir: &Path) {
    let program = Bare::new("silent");
    let output = Command::new("ckptctl")
        .args(["pull", "silent", "--timeout", "50ms", "--to"])
        .arg(dir.join("pulled"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("silent (arena ") && told.contains("made no commit"),
        "{told}"
    );
    let asked = program.control.pending().load(Ordering::Relaxed);
    assert_eq!(asked, 1, "it was asked");
}
