// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The oracle for writers that never stop while another thread commits.
//!
//! Every page has lanes, and every lane one writer, who only ever stores larger
//! numbers there. The watcher commits, takes the delta, and keeps a replica. It
//! asks for what must hold however the threads interleave:
//!
//! Let the replica's copy of a page have been made after commit *j* returned,
//! and the page be in no delta from *j + 1* to *k*. Whatever was stored after
//! the copy and before commit *k* was called belongs to one of those epochs. So
//! nothing was: the page, read before commit *k* was called, equals the copy.
//!
//! A store that happens during a commit may be told by it or by the next, and
//! neither choice can make this fail.
//!
//! Some writers ask the kernel to store for them, and the kernel tells of it only
//! afterwards: such a write takes time, and is at the same time as any commit
//! meanwhile. For these a number counts once the call that stored it has
//! returned.

/// Lanes of a page.
pub const LANES: usize = 8;

/// The numbers in the lanes of a page.
pub type Lanes = [u64; LANES];

/// What is watched. Errors are words for people.
pub trait Tracked: Sync {
    /// How many pages it has.
    fn pages(&self) -> usize;
    /// The numbers in a page's lanes, as they are now.
    fn lanes(&self, page: usize) -> Lanes;
    /// The last number in a lane whose write is over. Only for writes that take time.
    fn done(&self, _lane: usize) -> u64 {
        u64::MAX
    }
    /// Closes the epoch and returns its number.
    fn commit(&self) -> Result<u64, String>;
    /// The pages that changed after an epoch.
    fn delta(&self, since: u64) -> Result<Vec<usize>, String>;
}

/// What a watch without findings saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Commits made.
    pub commits: usize,
    /// Pages told, over all of them.
    pub told: usize,
    /// Pages that were not told and compared, over all of them.
    pub compared: usize,
}

/// Commits, and compares what is told with what is there.
pub struct Watcher<'a, T> {
    tracked: &'a T,
    since: u64,
    replica: Vec<Lanes>,
    seen: Seen,
}

impl<'a, T: Tracked> Watcher<'a, T> {
    /// A watcher of something on which no commit was made yet.
    pub fn new(tracked: &'a T) -> Self {
        Self {
            tracked,
            since: 0,
            replica: vec![[0; LANES]; tracked.pages()],
            seen: Seen::default(),
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Makes one commit and checks its delta.
    pub fn step(&mut self) -> Result<(), String> {
        let pages = self.tracked.pages();
        let before: Vec<Lanes> = (0..pages).map(|page| self.tracked.lanes(page)).collect();
        // After the lanes: what is over now, and was there then, was over before the commit.
        let done: Lanes = std::array::from_fn(|lane| self.tracked.done(lane));
        let epoch = self.tracked.commit()?;
        if epoch <= self.since {
            return Err(format!("epoch {epoch} after {}", self.since));
        }
        let mut told = vec![false; pages];
        for page in self.tracked.delta(self.since)? {
            told[page] = true;
        }
        for page in 0..pages {
            if told[page] {
                self.replica[page] = self.tracked.lanes(page);
                self.seen.told += 1;
            } else if lost(&self.replica[page], &before[page], &done) {
                return Err(format!(
                    "UNFORGIVABLE: page {page} changed before commit {epoch} and was reported \
                     clean since {}: lanes were {:?}, are {:?}",
                    self.since, self.replica[page], before[page]
                ));
            } else {
                self.seen.compared += 1;
            }
        }
        self.since = epoch;
        self.seen.commits += 1;
        Ok(())
    }

    /// The writers have stopped: after one more commit everything must agree.
    pub fn finish(mut self) -> Result<Seen, String> {
        self.step()?;
        for page in 0..self.tracked.pages() {
            let lanes = self.tracked.lanes(page);
            if lanes != self.replica[page] {
                return Err(format!(
                    "UNFORGIVABLE: when all was quiet page {page} differs from the replica: \
                     lanes are {lanes:?}, the replica has {:?}",
                    self.replica[page]
                ));
            }
        }
        Ok(self.seen)
    }
}

// Whether a write that was over is missing in the copy.
fn lost(copy: &Lanes, now: &Lanes, done: &Lanes) -> bool {
    (0..LANES).any(|lane| copy[lane] != now[lane] && now[lane] <= done[lane])
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::rng::Rng;

    const PAGES: usize = 32;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Bug {
        None,
        /// A page that changes is passed over, now and then.
        PassesOver,
        /// What changes while a commit is under way is counted as seen.
        LosesTheRace,
    }

    // Memory that is compared with a copy at every commit.
    struct Comparing {
        memory: Vec<[AtomicU64; LANES]>,
        state: Mutex<State>,
        bug: Bug,
    }

    struct State {
        epoch: u64,
        copy: Vec<Lanes>,
        stamps: Vec<u64>,
        rng: Rng,
    }

    impl Comparing {
        fn new(bug: Bug) -> Self {
            Self {
                memory: (0..PAGES).map(|_| Default::default()).collect(),
                state: Mutex::new(State {
                    epoch: 0,
                    copy: vec![[0; LANES]; PAGES],
                    stamps: vec![0; PAGES],
                    rng: Rng::new(1),
                }),
                bug,
            }
        }
    }

    impl Tracked for Comparing {
        fn pages(&self) -> usize {
            PAGES
        }

        fn lanes(&self, page: usize) -> Lanes {
            std::array::from_fn(|lane| self.memory[page][lane].load(Ordering::Relaxed))
        }

        fn commit(&self) -> Result<u64, String> {
            let state = &mut *self.state.lock().unwrap();
            state.epoch += 1;
            for page in 0..PAGES {
                let mut now = self.lanes(page);
                if now == state.copy[page] {
                    continue;
                }
                let passed_over = self.bug == Bug::PassesOver && state.rng.chance(1, 50);
                if !passed_over {
                    state.stamps[page] = state.epoch;
                }
                if self.bug == Bug::LosesTheRace && state.rng.chance(1, 20) {
                    // A writer gets in between the comparison and the copy.
                    let lane = state.rng.below(LANES - 1);
                    self.memory[page][LANES - 1].fetch_add(lane as u64 + 1, Ordering::Relaxed);
                    state.stamps[page] = state.epoch - 1;
                    now = self.lanes(page);
                }
                state.copy[page] = now;
            }
            Ok(state.epoch)
        }

        fn delta(&self, since: u64) -> Result<Vec<usize>, String> {
            let state = self.state.lock().unwrap();
            Ok((0..PAGES)
                .filter(|page| state.stamps[*page] > since)
                .collect())
        }
    }

    fn watch(bug: Bug) -> Result<Seen, String> {
        let tracked = Comparing::new(bug);
        let stop = AtomicBool::new(false);
        let (outcome, watcher) = std::thread::scope(|scope| {
            for lane in 0..3 {
                let (tracked, stop) = (&tracked, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::new(lane as u64);
                    while !stop.load(Ordering::Relaxed) {
                        let page = rng.below(PAGES);
                        tracked.memory[page][lane].fetch_add(1, Ordering::Relaxed);
                        for _ in 0..rng.below(2000) {
                            std::hint::spin_loop();
                        }
                    }
                });
            }
            let mut watcher = Watcher::new(&tracked);
            let mut outcome = Ok(());
            // Until enough has happened, however the machine schedules.
            while outcome.is_ok() && (watcher.seen().told < 1000 || watcher.seen().compared < 1000)
            {
                outcome = watcher.step();
            }
            stop.store(true, Ordering::Relaxed);
            (outcome, watcher)
        });
        outcome.and_then(|()| watcher.finish())
    }

    #[test]
    fn a_right_tracker_passes_however_threads_interleave() {
        watch(Bug::None).unwrap();
    }

    #[test]
    fn a_tracker_that_loses_writes_is_found_out() {
        for bug in [Bug::PassesOver, Bug::LosesTheRace] {
            let finding = watch(bug).unwrap_err();
            assert!(finding.contains("UNFORGIVABLE"), "{bug:?}: {finding}");
        }
    }
}
