// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about commits that are saved while the program goes on, for any tracker. On the host
//! `ckptctl/tests/saving.rs` tries them, in the test VM `tests/guest.d/40-library`, over the module.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::When;
use ckptctl::store::Chain;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

/// A claim, and what tries it with a chain in a folder.
pub type Claim = (&'static str, fn(&Path));

/// Those that hold anywhere.
pub const ANYWHERE: &[Claim] = &[
    (
        "every_epoch_is_what_threads_had_written_when_it_was_committed",
        threads,
    ),
    (
        "pages_of_commits_on_their_way_are_written_over_and_over",
        over_and_over,
    ),
    ("without_descriptors_commits_go_on", descriptors),
    ("a_child_that_lives_on_holds_nobody_up", children),
];

/// Those that want to be prepared by who runs them.
pub const PREPARED: &[Claim] = &[
    ("a_low_limit_of_locked_memory_loses_nothing", low_limit),
    (
        "a_region_grows_into_what_commits_on_their_way_had_charged",
        growth,
    ),
    ("a_full_disk_loses_nothing_once_there_is_room", full_disk),
];

/// A reproducible sequence of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// A program's state: a region of words that threads may write at the same time.
struct State {
    context: Context,
    words: &'static [AtomicU64],
    /// What it was, by epoch.
    images: BTreeMap<u64, Vec<u64>>,
}

impl State {
    fn open(dir: &Path, pages: usize) -> State {
        static BASE: AtomicU64 = AtomicU64::new(1 << 44);
        let options = Options::new()
            .dir(dir.join("chain"))
            .name("saving")
            .base(BASE.fetch_add(1 << 32, Ordering::Relaxed))
            .arena_bytes(1 << 30)
            .no_code_pointers();
        let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
        let spec = RegionSpec {
            name: "words",
            kind: 1,
            len_bytes: (pages * PAGE) as u64,
            reserve_bytes: 4 * (pages * PAGE) as u64,
        };
        let region: NonNull<u8> = context.region(&spec).unwrap();
        // SAFETY: The region is this long and aligned, words may have any value, and the state
        // is not used any more when the context is closed.
        let words = unsafe { std::slice::from_raw_parts(region.cast().as_ptr(), pages * WORDS) };
        State {
            context,
            words,
            images: BTreeMap::new(),
        }
    }

    fn image(&self) -> Vec<u64> {
        let words = self.words.iter();
        words.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Commits while nobody writes, and notes what is committed.
    fn commit(&mut self) -> u64 {
        let image = self.image();
        let report = self.context.commit();
        let epoch = report.unwrap_or_else(|error| panic!("{error}")).epoch;
        self.images.insert(epoch, image);
        epoch
    }

    /// Writes a word of every page.
    fn write_all(&self, value: u64) {
        for (page, words) in self.words.chunks_exact(WORDS).enumerate() {
            words[(page + value as usize) % WORDS].store(value, Ordering::Relaxed);
        }
    }

    /// Closes, and asserts that every epoch of the chain is what was committed, and that none
    /// is missing but those that were never durable.
    fn close(self, dir: &Path, missing: usize) {
        let stats = self.context.stats().unwrap();
        eprintln!("# {stats:?}");
        self.context
            .close()
            .unwrap_or_else(|error| panic!("{error}"));
        let chain = Chain::open(dir.join("chain")).unwrap();
        let report = chain.verify(|_, _| {}).unwrap();
        assert_eq!(report.damage, vec![]);
        assert_eq!(report.restorable.len(), self.images.len() - missing);
        for epoch in report.restorable {
            let image = &self.images[&epoch];
            let table = chain.get(epoch).unwrap().regions;
            let first = table.iter().find(|region| region.name == "words").unwrap();
            let mut restored = vec![0u64; image.len()];
            let mut loader = chain.load(epoch).unwrap();
            while let Some(run) = loader.next_run().unwrap() {
                for (at, page) in run.bytes.chunks_exact(PAGE).enumerate() {
                    let page_of_region = (run.pgoff + at as u64).checked_sub(first.offset_pages);
                    let Some(start) = page_of_region.map(|page| page as usize * WORDS) else {
                        continue;
                    };
                    for (to, from) in restored[start..].iter_mut().zip(page.chunks_exact(8)) {
                        *to = u64::from_ne_bytes(from.try_into().unwrap());
                    }
                }
            }
            let wrong = (0..image.len()).find(|&at| image[at] != restored[at]);
            if let Some(at) = wrong {
                panic!(
                    "epoch {epoch}, word {at}: {} was committed, {} is there",
                    image[at], restored[at]
                );
            }
        }
    }
}

/// Three threads write at full speed, but for the moments of the commits.
fn threads(dir: &Path) {
    let mut state = State::open(dir, 128);
    let words = state.words;
    let writing = RwLock::new(());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 1..=3 {
            let (writing, done) = (&writing, &done);
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
                while !done.load(Ordering::Relaxed) {
                    let _writing = writing.read().unwrap();
                    for _ in 0..200 {
                        // A few pages much, all of them now and then.
                        let limit = if random.below(4) > 0 {
                            words.len() / 8
                        } else {
                            words.len()
                        };
                        words[random.below(limit)].store(random.0, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut random = Random(77);
        for _ in 0..80 {
            let waiting = {
                let _still = writing.write().unwrap();
                let epoch = state.commit();
                (random.below(8) == 0).then_some(epoch)
            };
            if let Some(epoch) = waiting {
                state.context.wait(epoch, None).unwrap();
            }
            // Give the writers their turn: locks are not fair.
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = state.context.stats().unwrap();
    assert_eq!((stats.fallbacks, stats.given_up), (0, 0));
    state.close(dir, 0);
}

/// Every page is written between any two commits, which follow each other without a pause.
fn over_and_over(dir: &Path) {
    let mut state = State::open(dir, 256);
    for value in 1..=60 {
        state.write_all(value);
        state.commit();
    }
    state.write_all(1000);
    let stats = state.context.stats().unwrap();
    assert_eq!((stats.fallbacks, stats.given_up), (0, 0));
    if state.context.tracker() == "module" {
        assert!(
            stats.copied_pages > 0,
            "nothing was written while it was saved"
        );
    }
    state.close(dir, 0);
}

fn descriptors(dir: &Path) {
    let mut state = State::open(dir, 32);
    state.write_all(1);
    state.commit();
    state.context.wait(0, None).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let free = File::open("/dev/null").unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, free.as_raw_fd() as u64, hard).unwrap();
    drop(free);
    for value in 2..=5 {
        state.write_all(value);
        state.commit();
    }
    let fallbacks = state.context.stats().unwrap().fallbacks;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let expected = if state.context.tracker() == "module" {
        4
    } else {
        0
    };
    assert_eq!(fallbacks, expected);
    for value in 6..=9 {
        state.write_all(value);
        state.commit();
    }
    assert_eq!(state.context.stats().unwrap().fallbacks, expected);
    state.close(dir, 0);
}

/// A child that is forked with whatever its parent has on the way, and lives until it is told.
fn fork_child() -> (nix::unistd::Pid, File) {
    let (read, write) = nix::unistd::pipe().unwrap();
    // SAFETY: The child reads from the pipe and ends, with system calls alone.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            drop(write);
            let mut end = [0];
            let _ = File::from(read).read(&mut end);
            // SAFETY: Ends the child.
            unsafe { nix::libc::_exit(0) }
        }
        nix::unistd::ForkResult::Parent { child } => (child, File::from(write)),
    }
}

fn children(dir: &Path) {
    let mut state = State::open(dir, 64);
    let mut children = Vec::new();
    for value in 1..=40 {
        state.write_all(value);
        state.commit();
        if value % 4 == 0 {
            children.push(fork_child());
        }
    }
    state.context.wait(0, None).unwrap();
    let stats = state.context.stats().unwrap();
    assert_eq!((stats.fallbacks, stats.saved), (0, 40));
    for (child, mut pipe) in children {
        pipe.write_all(b"x").unwrap();
        // Those that were forked later have it open, too: what was written is what ends them.
        nix::sys::wait::waitpid(child, None).unwrap();
    }
    state.close(dir, 0);
}

/// RLIMIT_MEMLOCK has room for the state and for a part of it once more.
fn low_limit(dir: &Path) {
    let pages = 64;
    let mut state = State::open(dir, pages);
    for value in 1..=30 {
        state.write_all(value);
        state.commit();
    }
    state.context.wait(0, None).unwrap();
    assert_eq!(
        state.context.stats().unwrap().fallbacks,
        0,
        "writers wait, commits do not"
    );
    // Who has hooks behind commits may write in them, and must not wait for himself.
    let words = state.words;
    let hook = move |_: &Context, epoch: u64| {
        // The last words of pages are written by nobody else.
        words[(epoch as usize % pages) * WORDS + WORDS - 1].store(0, Ordering::Relaxed);
        0
    };
    state
        .context
        .hook(When::AfterCommit, std::sync::Arc::new(hook))
        .unwrap();
    for value in 31..=60 {
        state.write_all(value);
        state.commit();
    }
    assert!(state.context.stats().unwrap().fallbacks > 0);
    state.close(dir, 0);
}

/// RLIMIT_MEMLOCK has room for twice the state.
fn growth(dir: &Path) {
    let pages = 32;
    let mut state = State::open(dir, pages);
    for value in 1..=10 {
        state.write_all(value);
        state.commit();
    }
    let len = state.context.region_len("words").unwrap().unwrap();
    // As much as there is when nothing is on its way.
    state
        .context
        .grow_region("words", len + 28 * PAGE as u64)
        .unwrap_or_else(|error| panic!("{error}"));
    state.write_all(11);
    state.commit();
    state.close(dir, 0);
}

/// The chain is in a file system of its own, of a few MiB, that can be made larger.
fn full_disk(dir: &Path) {
    let mut state = State::open(dir, 128);
    let mut random = Random(5);
    let mut noise = |state: &State| {
        for word in state.words {
            word.store(random.below(usize::MAX) as u64, Ordering::Relaxed);
        }
    };
    let mut given_up = 0;
    for _ in 0..40 {
        noise(&state);
        let image = state.image();
        let epoch = 1 + state.context.stats().unwrap().commits;
        state.images.insert(epoch, image);
        let result = state
            .context
            .commit()
            .and_then(|report| state.context.wait(report.epoch, None));
        if let Err(error) = result {
            assert_eq!(error.errno(), nix::libc::ENOSPC, "{error}");
            given_up += 1;
        }
    }
    assert!(given_up > 10, "{given_up} is too few");
    let larger = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(dir)
        .status();
    assert!(larger.unwrap().success());
    noise(&state);
    state.commit();
    assert_eq!(state.context.stats().unwrap().given_up as usize, given_up);
    state.close(dir, given_up);
}
