// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about programs whose threads say when they work on the state.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use ckptctl::When;

use super::claims::Claim;

/// Those that hold anywhere.
pub const ANYWHERE: &[Claim] = &[(
    "what_threads_keep_true_inside_is_true_in_every_epoch",
    invariant,
)];

const PAGES: usize = 60;
const WORDS: usize = 512;
const THREADS: usize = 4;

fn open(dir: &Path, restore: Restore) -> (Context, &'static [AtomicU64]) {
    let options = Options::new()
        .dir(dir.join("chain"))
        .name("safe points")
        .base(7 << 44)
        .arena_bytes(1 << 28)
        .no_code_pointers()
        .restore(restore);
    let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
    let spec = RegionSpec {
        name: "pairs",
        kind: 1,
        len_bytes: (PAGES * WORDS * 8) as u64,
        reserve_bytes: 0,
    };
    let region = context.region(&spec).unwrap();
    // SAFETY: The region is this long and aligned, words may have any value, and nobody uses
    // them when the context is closed.
    let words = unsafe { std::slice::from_raw_parts(region.cast().as_ptr(), PAGES * WORDS) };
    (context, words)
}

/// Where a thread counts in a page: once at the front and, later, once at the end.
fn pair(words: &[AtomicU64], page: usize, thread: usize) -> [&AtomicU64; 2] {
    let page = &words[page * WORDS..][..WORDS];
    [&page[thread], &page[WORDS - 1 - thread]]
}

fn count(word: &AtomicU64) {
    // Nobody else counts here.
    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What a thread does while others commit: the counts of all pairs but one are equal at any time,
/// and of all when it is outside.
fn work(context: &Context, words: &[AtomicU64], thread: usize, stop: &AtomicBool) {
    let point = context.safe_point().unwrap();
    let mut page = thread;
    while !stop.load(Ordering::Relaxed) {
        point.enter().unwrap();
        // Three counts are a whole.
        for _ in 0..3 {
            page = (page * 7 + 3 + thread) % PAGES;
            let [first, last] = pair(words, page, thread);
            count(first);
            let nested = context.enter().unwrap();
            thread::yield_now();
            drop(nested);
            count(last);
        }
        point.leave().unwrap();
    }
}

/// Stops threads, also when a claim fails: the others wait for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fails unless all pairs are whole; the work done.
fn examine(words: &[AtomicU64], epoch: u64) -> u64 {
    let mut sum = 0;
    for thread in 0..THREADS {
        let mut done = 0;
        for page in 0..PAGES {
            let [first, last] = pair(words, page, thread).map(|word| word.load(Ordering::Relaxed));
            assert_eq!(first, last, "epoch {epoch}, page {page}, thread {thread}");
            done += first;
        }
        assert_eq!(done % 3, 0, "epoch {epoch}: thread {thread} was inside");
        sum += done;
    }
    sum
}

fn invariant(dir: &Path) {
    let (context, words) = open(dir, Restore::Newest);
    let words_of_hook = words;
    let hook = move |_: &Context, epoch: u64| {
        examine(words_of_hook, epoch);
        0
    };
    context
        .hook(When::BeforeCommit, std::sync::Arc::new(hook))
        .unwrap();
    let stop = AtomicBool::new(false);
    let mut epochs = Vec::new();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for thread in 0..THREADS {
            let (context, stop) = (&context, &stop);
            scope.spawn(move || work(context, words, thread, stop));
        }
        for round in 0..60 {
            let report = match round % 8 {
                7 => context.commit_sync(),
                _ => context.commit(),
            };
            epochs.push(report.unwrap_or_else(|error| panic!("{error}")).epoch);
            // At most so fast that threads get in between.
            thread::yield_now();
        }
    });
    context.close().unwrap();
    let mut before = 0;
    for epoch in epochs {
        let (context, words) = open(dir, Restore::Epoch(epoch));
        let done = examine(words, epoch);
        assert!(done >= before, "epoch {epoch} has less than the one before");
        before = done;
        context.close().unwrap();
    }
    assert!(before > 0, "nobody worked");
}
