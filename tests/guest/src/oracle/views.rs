// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The oracle for snapshots that are taken while writers never stop.
//!
//! Lanes and numbers are those of `threads`. A consumer commits with a snapshot of
//! what changed after its cursor, lets it hand over its pages in random pieces, and
//! puts them over the copy that it has: its *view* of the arena as of that commit.
//! However the threads interleave:
//!
//! - What was stored before the commit was called is in the view. So a page that the
//!   snapshot lacks, or shows too early, is found out.
//! - What was stored after the commit returned is not in it.
//! - A page shows one moment: a writer that fills its lane from the front has never
//!   left a newer number behind an older one.
//! - A page that is handed over twice is the same twice.
//! - When all is quiet, the view is the arena, byte by byte.
//!
//! Where the kernel writes by itself, the second to fourth are not promised: such a
//! page is in the snapshot as the kernel leaves it.

use std::collections::HashMap;

use super::threads::LANES;
use super::threads::Lanes;
use super::threads::Tracked;
use crate::device::PAGE;
use crate::rng::Rng;

/// Words of a lane.
const LANE_WORDS: usize = PAGE / LANES / 8;

/// The content of a page, in words.
pub type Words = [u64; PAGE / 8];

/// Pages that were handed over, and where to go on when there is more.
pub type Handed = (Vec<(usize, Words)>, Option<u64>);

/// What snapshots can be made of.
pub trait Frozen: Tracked {
    /// An open snapshot; dropping it closes it.
    type Snapshot;
    /// Closes the epoch with a snapshot of what changed after `since`.
    ///
    /// Few copies may be made when `tight`, so that writers have to wait.
    fn commit_with_snapshot(
        &self,
        since: u64,
        tight: bool,
    ) -> Result<(u64, Self::Snapshot), String>;
    /// Hands over pages at or after `start`.
    fn gather(
        &self,
        snapshot: &Self::Snapshot,
        start: u64,
        most: usize,
        thaw: bool,
    ) -> Result<Handed, String>;
    /// The content of a page as it is now.
    fn words(&self, page: usize) -> Words;
    /// Whether nothing but stores of programs writes there.
    fn is_exact(&self) -> bool;
}

/// What consumers without findings saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Viewed {
    /// Snapshots made.
    pub snapshots: usize,
    /// Pages that came out of them.
    pub pages: usize,
    /// Pages handed over twice and compared.
    pub twice: usize,
    /// Snapshots closed before all was taken.
    pub given_up: usize,
}

/// Takes snapshots, and compares what they show with what was there.
pub struct Consumer<'a, T> {
    tracked: &'a T,
    since: u64,
    view: Vec<Words>,
    viewed: Viewed,
    rng: Rng,
}

impl<'a, T: Frozen> Consumer<'a, T> {
    /// A consumer of something on which nothing was written yet.
    pub fn new(tracked: &'a T, seed: u64) -> Self {
        Self {
            tracked,
            since: 0,
            view: vec![[0; PAGE / 8]; tracked.pages()],
            viewed: Viewed::default(),
            rng: Rng::new(seed),
        }
    }

    /// What was seen so far.
    pub fn viewed(&self) -> Viewed {
        self.viewed
    }

    /// Makes one snapshot and checks all that it shows.
    pub fn step(&mut self) -> Result<(), String> {
        let pages = self.tracked.pages();
        let before: Vec<Lanes> = (0..pages).map(|page| self.tracked.lanes(page)).collect();
        let done: Lanes = std::array::from_fn(|lane| self.tracked.done(lane));
        let tight = self.rng.chance(1, 3);
        let (epoch, snapshot) = self.tracked.commit_with_snapshot(self.since, tight)?;
        let after: Vec<Lanes> = (0..pages).map(|page| self.tracked.lanes(page)).collect();
        if epoch <= self.since {
            return Err(format!("epoch {epoch} after {}", self.since));
        }
        self.viewed.snapshots += 1;
        if self.rng.chance(1, 16) {
            // Closed, or partly taken and closed: the cursor stays, so the next has it all.
            if self.rng.chance(1, 2) {
                self.tracked.gather(&snapshot, 0, 3, true)?;
            }
            self.viewed.given_up += 1;
            return Ok(());
        }
        let mut told = vec![false; pages];
        for (page, words) in self.take(&snapshot)? {
            told[page] = true;
            self.view[page] = words;
        }
        drop(snapshot);
        for page in 0..pages {
            let shown = if told[page] {
                "shown as"
            } else {
                "not in it, was"
            };
            let context = format!(
                "snapshot of epoch {epoch} since {}: page {page}",
                self.since
            );
            for (lane, &done) in done.iter().enumerate().take(LANES) {
                let number = self.view[page][lane * LANE_WORDS];
                let (least, most) = (before[page][lane], after[page][lane]);
                if number < least && least <= done {
                    return Err(format!(
                        "UNFORGIVABLE: {context} lane {lane} had {least} before the commit, \
                         {shown} {number}"
                    ));
                }
                if told[page] && self.tracked.is_exact() && number > most {
                    return Err(format!(
                        "UNFORGIVABLE: {context} lane {lane} had {most} after the commit, \
                         {shown} {number}"
                    ));
                }
            }
            if told[page] && self.tracked.is_exact() && !is_one_moment(&self.view[page]) {
                return Err(format!(
                    "UNFORGIVABLE: {context} shows more than one moment: {:x?}",
                    self.view[page]
                ));
            }
        }
        self.since = epoch;
        Ok(())
    }

    /// The writers have stopped: the next view is the arena.
    pub fn finish(mut self) -> Result<Viewed, String> {
        let since = self.since;
        while self.since == since {
            self.step()?;
        }
        for page in 0..self.tracked.pages() {
            let now = self.tracked.words(page);
            if now != self.view[page] {
                let at = (0..now.len()).find(|word| now[*word] != self.view[page][*word]);
                return Err(format!(
                    "UNFORGIVABLE: when all was quiet page {page} differs from the view, first \
                     in word {at:?}"
                ));
            }
        }
        Ok(self.viewed)
    }

    // All pages of a snapshot, in random pieces; some of them twice.
    fn take(&mut self, snapshot: &T::Snapshot) -> Result<HashMap<usize, Words>, String> {
        let mut all = HashMap::new();
        let mut start = 0;
        // From somewhere first, without taking anything out.
        if self.rng.chance(1, 2) {
            let from = self.rng.below(self.tracked.pages()) as u64;
            let most = self.rng.between(1, 8);
            let (pages, _) = self.tracked.gather(snapshot, from, most, false)?;
            all.extend(pages);
        }
        loop {
            let most = *self.rng.pick(&[1, 4, 32, 256]);
            let thaw = self.rng.chance(3, 4);
            let (pages, next) = self.tracked.gather(snapshot, start, most, thaw)?;
            for (page, words) in pages {
                let first = *all.entry(page).or_insert(words);
                if first != words && self.tracked.is_exact() {
                    return Err(format!(
                        "UNFORGIVABLE: page {page} of a snapshot is not the same twice"
                    ));
                }
                self.viewed.pages += 1;
            }
            match next {
                Some(next) if next > start => start = next,
                Some(next) => return Err(format!("goes on at {next} after {start}")),
                None => break,
            }
        }
        // What was not thawed is still there, whatever was written meanwhile.
        let (pages, _) = self.tracked.gather(snapshot, 0, 64, false)?;
        for (page, words) in pages {
            self.viewed.twice += 1;
            if all.get(&page) != Some(&words) && self.tracked.is_exact() {
                return Err(format!(
                    "UNFORGIVABLE: page {page} of a snapshot is not the same twice"
                ));
            }
        }
        Ok(all)
    }
}

// Lanes are filled from the front, with growing numbers.
fn is_one_moment(words: &Words) -> bool {
    words
        .chunks_exact(LANE_WORDS)
        .all(|lane| lane.is_sorted_by(|front, behind| front >= behind))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::*;

    const PAGES: usize = 12;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Bug {
        None,
        /// Now and then a page that changed is missing.
        LosesAPage,
        /// A page is shown as it is when it is handed over.
        ShowsLater,
        /// The end of a page is shown as it is when it is handed over.
        ShowsHalfLater,
        /// A page is shown as it was at the commit before.
        ShowsEarlier,
    }

    // Memory whose writers stop while a snapshot copies all of it.
    struct Stopping {
        memory: Vec<Vec<AtomicU64>>,
        running: std::sync::RwLock<()>,
        state: Mutex<State>,
        bug: Bug,
    }

    struct State {
        epoch: u64,
        copy: Vec<Words>,
        stamps: Vec<u64>,
    }

    struct Copied {
        pages: Vec<usize>,
        content: Vec<Words>,
    }

    impl Stopping {
        fn new(bug: Bug) -> Self {
            let page = || (0..PAGE / 8).map(|_| AtomicU64::new(0)).collect();
            Self {
                memory: (0..PAGES).map(|_| page()).collect(),
                running: std::sync::RwLock::new(()),
                state: Mutex::new(State {
                    epoch: 0,
                    copy: vec![[0; PAGE / 8]; PAGES],
                    stamps: vec![0; PAGES],
                }),
                bug,
            }
        }

        fn write(&self, page: usize, lane: usize, number: u64) {
            for word in 0..LANE_WORDS {
                let _running = self.running.read().unwrap();
                self.memory[page][lane * LANE_WORDS + word].store(number, Ordering::SeqCst);
            }
        }
    }

    impl Tracked for Stopping {
        fn pages(&self) -> usize {
            PAGES
        }

        fn lanes(&self, page: usize) -> Lanes {
            std::array::from_fn(|lane| self.memory[page][lane * LANE_WORDS].load(Ordering::SeqCst))
        }

        fn commit(&self) -> Result<u64, String> {
            self.commit_with_snapshot(0, false).map(|(epoch, _)| epoch)
        }

        fn delta(&self, _: u64) -> Result<Vec<usize>, String> {
            Ok(Vec::new())
        }
    }

    impl Frozen for Stopping {
        type Snapshot = Copied;

        fn commit_with_snapshot(&self, since: u64, _: bool) -> Result<(u64, Copied), String> {
            let _stopped = self.running.write().unwrap();
            let state = &mut *self.state.lock().unwrap();
            state.epoch += 1;
            let mut earlier = Vec::new();
            for page in 0..PAGES {
                let now = self.words(page);
                earlier.push(state.copy[page]);
                if now != state.copy[page] {
                    let lost = self.bug == Bug::LosesAPage && state.epoch % 10 == 0;
                    state.stamps[page] = if lost { 0 } else { state.epoch };
                    state.copy[page] = now;
                }
            }
            let pages: Vec<_> = (0..PAGES)
                .filter(|page| state.stamps[*page] > since)
                .collect();
            let content = match self.bug {
                Bug::ShowsEarlier if state.epoch % 10 == 0 => earlier,
                _ => state.copy.clone(),
            };
            Ok((state.epoch, Copied { pages, content }))
        }

        fn gather(
            &self,
            snapshot: &Copied,
            start: u64,
            most: usize,
            _: bool,
        ) -> Result<Handed, String> {
            let mut left = snapshot
                .pages
                .iter()
                .copied()
                .filter(|page| *page as u64 >= start);
            let pages: Vec<_> = left
                .by_ref()
                .take(most)
                .map(|page| {
                    let mut words = snapshot.content[page];
                    let now = self.words(page);
                    match self.bug {
                        Bug::ShowsLater => words = now,
                        Bug::ShowsHalfLater => words[1..].copy_from_slice(&now[1..]),
                        _ => {}
                    }
                    (page, words)
                })
                .collect();
            Ok((pages, left.next().map(|page| page as u64)))
        }

        fn words(&self, page: usize) -> Words {
            std::array::from_fn(|word| self.memory[page][word].load(Ordering::SeqCst))
        }

        fn is_exact(&self) -> bool {
            true
        }
    }

    fn consume(bug: Bug) -> Result<Viewed, String> {
        let tracked = Stopping::new(bug);
        let stop = AtomicBool::new(false);
        let (outcome, consumer) = std::thread::scope(|scope| {
            for lane in 0..2 {
                let (tracked, stop) = (&tracked, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::new(lane as u64);
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        tracked.write(rng.below(PAGES), lane, number);
                        for _ in 0..rng.below(2000) {
                            std::hint::spin_loop();
                        }
                    }
                });
            }
            let mut consumer = Consumer::new(&tracked, 1);
            let mut outcome = Ok(());
            while outcome.is_ok() && consumer.viewed().pages < 3000 {
                outcome = consumer.step();
            }
            stop.store(true, Ordering::Relaxed);
            (outcome, consumer)
        });
        outcome.and_then(|()| consumer.finish())
    }

    #[test]
    fn right_snapshots_pass_however_threads_interleave() {
        let viewed = consume(Bug::None).unwrap();
        assert!(viewed.twice > 0 && viewed.given_up > 0, "{viewed:?}");
    }

    #[test]
    fn snapshots_that_show_something_else_are_found_out() {
        for bug in [
            Bug::LosesAPage,
            Bug::ShowsLater,
            Bug::ShowsHalfLater,
            Bug::ShowsEarlier,
        ] {
            let finding = consume(bug).unwrap_err();
            assert!(finding.contains("UNFORGIVABLE"), "{bug:?}: {finding}");
        }
    }
}
