// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about every tracker. On the host `ckptctl/tests/trackers.rs` tries them with those that
//! the machine has, in the test VM `tests/guest.d/40-library` does, with all.

mod adopting;
mod pages;
mod random;
mod restoring;
mod snapshots;
mod threads;
mod writes;

use std::io;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ckptctl::Error;
use ckptctl::track;
use ckptctl::track::Choice;
use ckptctl::track::Frozen;
use ckptctl::track::Geometry;
use ckptctl::track::PageRange;
use ckptctl::track::Snapshot;
use ckptctl::track::Tracker;

pub const PAGE: usize = 4096;
pub const WORDS: usize = PAGE / 8;

/// A claim, and what tries it, with a folder for files.
pub type Claim = (&'static str, fn(Choice, &Path));

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Claim> {
    [
        writes::CLAIMS,
        pages::CLAIMS,
        random::CLAIMS,
        snapshots::CLAIMS,
        threads::CLAIMS,
        restoring::CLAIMS,
        adopting::CLAIMS,
    ]
    .into_iter()
    .flatten()
}

/// Tries all claims; each has a folder of its own below the one given.
pub fn try_all(choice: Choice, dir: &Path) {
    for (name, claim) in all() {
        print!("{choice:?}: {name}");
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        let begun = Instant::now();
        claim(choice, &dir);
        println!(" ({} ms)", begun.elapsed().as_millis());
    }
}

/// Says that something was not tried. The harness of tests does not hold this back.
pub fn skip(what: &str, why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {what}: {why}");
}

/// Why this machine does not have a tracker.
pub fn lacks(choice: Choice) -> Option<Error> {
    track::open(choice, &geometry(1, 0)).err()
}

/// Arenas of claims that are tried side by side are at different addresses.
fn geometry(pages: usize, epoch: u64) -> Geometry {
    static NEXT: AtomicU64 = AtomicU64::new(3 << 44);
    Geometry {
        name: "claims".into(),
        base: NEXT.fetch_add(1 << 32, Ordering::Relaxed),
        len_bytes: (pages * PAGE) as u64,
        epoch,
    }
}

/// A reproducible sequence of numbers.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// A tracker, all pages of whose arena are used, unless a claim says otherwise.
pub struct Subject {
    pub tracker: Box<dyn Tracker>,
    pub used: Vec<PageRange>,
}

impl Subject {
    pub fn new(choice: Choice, pages: usize) -> Subject {
        Subject::behind(choice, pages, 0)
    }

    /// One whose first commit is behind an epoch.
    pub fn behind(choice: Choice, pages: usize, epoch: u64) -> Subject {
        let geometry = geometry(pages, epoch);
        let mut tracker =
            track::open(choice, &geometry).unwrap_or_else(|error| panic!("{choice:?}: {error}"));
        tracker.reserve(pages as u64).unwrap();
        Subject {
            tracker,
            used: std::iter::once(0..pages as u64).collect(),
        }
    }

    pub fn pages(&self) -> usize {
        self.tracker.mapping().len_bytes() / PAGE
    }

    /// Address of a page.
    pub fn page(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages());
        // SAFETY: Within the mapping.
        unsafe { self.tracker.mapping().base().as_ptr().add(page * PAGE) }
    }

    /// The words of all pages, which live as long as the tracker: claims see to that.
    pub fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: The mapping is this long and aligned; words may have any value, and whoever
        // writes otherwise than through them does so when nobody else does.
        unsafe { std::slice::from_raw_parts(self.page(0).cast(), self.pages() * WORDS) }
    }

    /// Writes the first word of a page.
    pub fn put(&self, page: usize, value: u64) {
        self.words()[page * WORDS].store(value, Ordering::Relaxed);
    }

    /// What the arena holds.
    pub fn image(&self) -> Vec<u64> {
        let words = self.words().iter();
        words.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    pub fn commit(&mut self) -> u64 {
        self.tracker.commit(&self.used).unwrap().epoch
    }

    /// Commits with a snapshot that nobody has to wait for.
    pub fn freeze(&mut self, since: u64) -> (u64, Box<dyn Snapshot>) {
        let frozen = self
            .tracker
            .commit_with_snapshot(&self.used, since, true)
            .unwrap();
        match frozen {
            Frozen::Made(committed, snapshot) => (committed.epoch, snapshot),
            Frozen::Refused(why) => panic!("no snapshot: {why}"),
        }
    }

    /// The pages that changed after an epoch.
    pub fn delta(&mut self, since: u64) -> Vec<usize> {
        let ranges = self.tracker.delta(since).unwrap();
        for pair in ranges.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{ranges:?} do not ascend");
        }
        let pages: Vec<usize> = ranges
            .into_iter()
            .flatten()
            .map(|page| page as usize)
            .collect();
        assert!(pages.iter().all(|&page| page < self.pages()));
        pages
    }
}

/// What somebody has of an arena who asks for the pages that changed since he last asked.
pub struct Mirror {
    pub cursor: u64,
    words: Vec<u64>,
}

impl Mirror {
    pub fn new(subject: &Subject) -> Mirror {
        Mirror {
            cursor: 0,
            words: vec![0; subject.pages() * WORDS],
        }
    }

    /// Takes over what changed up to the last commit, as it is now.
    pub fn pull(&mut self, subject: &mut Subject, epoch: u64) {
        let words = subject.words();
        for page in subject.delta(self.cursor) {
            let mine = self.words[page * WORDS..].iter_mut();
            for (mine, word) in mine.zip(&words[page * WORDS..][..WORDS]) {
                *mine = word.load(Ordering::Relaxed);
            }
        }
        self.cursor = epoch;
    }

    /// Takes over a snapshot of what changed since the cursor, in steps of so many pages.
    pub fn gather(&mut self, snapshot: &mut dyn Snapshot, epoch: u64, step_pages: usize) {
        let mut buffer = vec![0; step_pages * PAGE];
        let (mut runs, mut next, mut count) = (Vec::new(), 0, 0);
        loop {
            snapshot.gather(&mut buffer, &mut runs).unwrap();
            if runs.is_empty() {
                break;
            }
            let pages: Vec<u64> = runs.iter().cloned().flatten().collect();
            assert!(pages.len() <= step_pages);
            for (page, bytes) in pages.iter().zip(buffer.chunks_exact(PAGE)) {
                assert!(*page >= next, "pages do not ascend");
                (next, count) = (page + 1, count + 1);
                let words = &mut self.words[*page as usize * WORDS..][..WORDS];
                for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
                    *word = u64::from_ne_bytes(bytes.try_into().unwrap());
                }
            }
        }
        assert_eq!(count, snapshot.pages());
        self.cursor = epoch;
    }

    /// Fails unless it is what was to be.
    pub fn assert_is(&self, image: &[u64], what: &str) {
        if let Some(at) = (0..image.len()).find(|&at| image[at] != self.words[at]) {
            panic!(
                "{what}: page {} was missed: word {} is {}, not {}",
                at / WORDS,
                at % WORDS,
                self.words[at],
                image[at]
            );
        }
    }
}
