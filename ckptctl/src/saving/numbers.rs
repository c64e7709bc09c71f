// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which epochs are closed, on their way, durable, given up. Pure: who waits for what is the
//! queue's.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::error::Error;

/// What holds of an epoch.
pub(super) enum Fate {
    /// Nobody has committed it yet.
    Future,
    /// It, or a later one that has what it had, will be durable or given up.
    OnItsWay,
    /// It, or a later one that has what it had, is durable, and hooks have been told.
    Durable,
    /// It was given up, for this reason.
    GivenUp(Arc<Error>),
}

/// The epochs of a context.
///
/// # Invariants
///
/// `told <= saved <= queued <= closed`. `saved == queued` when nothing is on its way. Without a
/// failure `queued == closed`.
#[derive(Clone)]
pub(super) struct Numbers {
    /// The newest epoch that was closed.
    closed: u64,
    /// Everything up to here is in the chain or on its way there: the cursor of the next
    /// snapshot.
    queued: u64,
    /// Everything up to here is in the chain: the cursor after a failure.
    saved: u64,
    /// As `saved`, and the hooks have been told.
    told: u64,
    /// The durable epoch that the next record builds on; there may be none.
    parent: Option<u64>,
    /// Commits on their way.
    in_flight: usize,
    /// Why what is between `saved` and `closed` was given up, if it was.
    failure: Option<Arc<Error>>,
    /// Failures so far.
    failures: u64,
    /// Epochs that were not saved when the state went back, and where to.
    taken_back: Vec<(RangeInclusive<u64>, Arc<Error>)>,
}

impl Numbers {
    /// Of a context whose arena begins behind epoch `highest`, with the state of `parent`.
    pub(super) fn new(highest: u64, parent: Option<u64>) -> Numbers {
        Numbers {
            closed: highest,
            queued: highest,
            saved: highest,
            told: highest,
            parent,
            in_flight: 0,
            failure: None,
            failures: 0,
            taken_back: Vec::new(),
        }
    }

    pub(super) fn closed(&self) -> u64 {
        self.closed
    }

    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    pub(super) fn saved(&self) -> u64 {
        self.saved
    }

    /// The newest durable epoch of which hooks have been told.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    pub(super) fn parent(&self) -> Option<u64> {
        self.parent
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Why the newest commits were given up, if they were and nothing was saved since.
    pub(super) fn failure(&self) -> Option<&Arc<Error>> {
        self.failure.as_ref()
    }

    /// What the next commit builds on: durable, or on its way to be.
    pub(super) fn newest(&self) -> Option<u64> {
        match self.queued > self.saved {
            true => Some(self.queued),
            false => self.parent,
        }
    }

    pub(super) fn fate(&self, epoch: u64) -> Fate {
        let mut lost = self.taken_back.iter();
        if let Some((_, why)) = lost.find(|(epochs, _)| epochs.contains(&epoch)) {
            return Fate::GivenUp(Arc::clone(why));
        }
        if epoch <= self.told {
            return Fate::Durable;
        }
        if epoch > self.closed {
            return Fate::Future;
        }
        match &self.failure {
            // A failure gives up all that is on its way, so what is now began later.
            Some(error) if self.in_flight == 0 => Fate::GivenUp(Arc::clone(error)),
            _ => Fate::OnItsWay,
        }
    }

    /// An epoch was closed, with a snapshot since `since`, when there had been `failures`
    /// failures. False if it is given up at once: a failure since then has made what it builds
    /// on unsaved.
    pub(super) fn push(&mut self, epoch: u64, since: u64, failures: u64) -> bool {
        self.closed = epoch;
        if failures != self.failures {
            return false;
        }
        debug_assert_eq!(since, self.queued);
        self.queued = epoch;
        self.in_flight += 1;
        true
    }

    /// The oldest on its way is durable.
    pub(super) fn save(&mut self, epoch: u64) {
        self.saved = epoch;
        self.parent = Some(epoch);
        self.failure = None;
    }

    /// The hooks of the oldest on its way have been told.
    pub(super) fn tell(&mut self, epoch: u64) {
        self.told = epoch;
        self.in_flight -= 1;
    }

    /// The oldest on its way could not be saved. All are given up; how many that is.
    pub(super) fn fail(&mut self, error: Arc<Error>) -> usize {
        self.queued = self.saved;
        self.failure = Some(error);
        self.failures += 1;
        std::mem::take(&mut self.in_flight)
    }

    /// The state is that of epoch `to` again and has the number `epoch`, which is durable unless
    /// there is an error. Nothing is on its way.
    pub(super) fn go_back(&mut self, epoch: u64, to: u64, error: Option<Arc<Error>>) {
        if self.saved < self.closed {
            let why = Arc::new(Error::TakenBack { to });
            self.taken_back.push((self.saved + 1..=self.closed, why));
        }
        self.closed = epoch;
        match error {
            None => {
                self.save(epoch);
                (self.queued, self.told) = (epoch, epoch);
            }
            Some(error) => {
                self.fail(error);
            }
        }
    }

    /// The same steps in one, for a commit that was saved without being on its way: nothing
    /// else is.
    pub(super) fn save_now(&mut self, epoch: u64, error: Option<Arc<Error>>) {
        let pushed = self.push(epoch, self.queued, self.failures);
        debug_assert!(pushed);
        match error {
            None => self.save(epoch),
            Some(error) => {
                self.fail(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use super::*;

    /// Numbers, and what they are about: a commit that is being made, those on their way, and
    /// what the chain has.
    #[derive(Clone)]
    struct World {
        numbers: Numbers,
        /// The tracker's last epoch.
        epoch: u64,
        /// What a commit saw before it closed its epoch: cursor and failures.
        committing: Option<(u64, u64)>,
        /// Epochs of snapshots, and since when they have what changed.
        jobs: VecDeque<(u64, u64)>,
        /// The state that the last record of the chain stands for.
        in_chain: u64,
        /// It is that of the first job, hooks have not been told yet.
        telling: bool,
        /// Epochs that were left, and not saved, when the state went back, which it does once.
        left: Option<RangeInclusive<u64>>,
    }

    const IN_FLIGHT_MAX: usize = 3;

    fn error() -> Arc<Error> {
        Arc::new(Error::System {
            doing: "save",
            source: io::ErrorKind::StorageFull.into(),
        })
    }

    impl World {
        fn check(&self) {
            let numbers = &self.numbers;
            assert!(numbers.told <= numbers.saved && numbers.saved <= numbers.queued);
            assert!(numbers.queued <= numbers.closed && numbers.closed == self.epoch);
            assert_eq!(numbers.saved, self.in_chain);
            assert_eq!(numbers.in_flight, self.jobs.len());
            let last = self.jobs.back().map_or(self.in_chain, |job| job.0);
            assert_eq!(numbers.queued, last);
            for epoch in 1..=self.epoch + 1 {
                if self.left.iter().any(|left| left.contains(&epoch)) {
                    assert!(matches!(numbers.fate(epoch), Fate::GivenUp(_)), "{epoch}");
                    continue;
                }
                let told = epoch <= self.in_chain && !(self.telling && epoch > numbers.told);
                let right = match numbers.fate(epoch) {
                    Fate::Durable => told,
                    Fate::Future => epoch > self.epoch,
                    // Something on its way brings it, so nobody waits for ever.
                    Fate::OnItsWay => !told && self.jobs.iter().any(|job| job.0 >= epoch),
                    Fate::GivenUp(_) => !told && self.jobs.is_empty(),
                };
                assert!(right, "epoch {epoch}");
            }
        }

        /// Everything that can happen next.
        fn next(&self) -> Vec<World> {
            let mut worlds = Vec::new();
            let mut with = |change: &dyn Fn(&mut World)| {
                let mut world = self.clone();
                change(&mut world);
                world.check();
                worlds.push(world);
            };
            match self.committing {
                None if self.jobs.len() < IN_FLIGHT_MAX => {
                    with(&|world| {
                        let seen = (world.numbers.queued(), world.numbers.failures());
                        world.committing = Some(seen);
                    });
                }
                None => {}
                Some((since, failures)) => with(&|world| {
                    world.committing = None;
                    world.epoch += 1;
                    if world.numbers.push(world.epoch, since, failures) {
                        world.jobs.push_back((world.epoch, since));
                    }
                }),
            }
            // Without anything on its way, a commit can be saved synchronously.
            if self.committing.is_none() && self.jobs.is_empty() {
                with(&|world| {
                    world.epoch += 1;
                    world.numbers.save_now(world.epoch, None);
                    // The delta is since what is saved.
                    world.jobs.push_back((world.epoch, world.in_chain));
                    world.in_chain = world.epoch;
                    world.telling = true;
                });
                with(&|world| {
                    world.epoch += 1;
                    world.numbers.save_now(world.epoch, Some(error()));
                });
            }
            if self.committing.is_none() && self.jobs.is_empty() && self.left.is_none() {
                for error in [None, Some(error())] {
                    with(&|world| {
                        world.left = Some(world.in_chain + 1..=world.epoch);
                        // One to learn what changed, one with what was put back.
                        world.epoch += 2;
                        let to = world.in_chain;
                        world.numbers.go_back(world.epoch, to, error.clone());
                        if error.is_none() {
                            world.in_chain = world.epoch;
                        }
                    });
                }
            }
            match self.jobs.front() {
                Some(&(epoch, _)) if self.telling => with(&|world| {
                    world.jobs.pop_front();
                    world.telling = false;
                    world.numbers.tell(epoch);
                }),
                Some(&(epoch, since)) => {
                    with(&|world| {
                        // What the record does not have, its parent must.
                        assert!(since <= world.in_chain, "a delta since {since}");
                        assert!(
                            world.numbers.parent() == Some(world.in_chain) || world.in_chain == 0
                        );
                        world.in_chain = epoch;
                        world.telling = true;
                        world.numbers.save(epoch);
                    });
                    with(&|world| {
                        assert_eq!(world.numbers.fail(error()), world.jobs.len());
                        world.jobs.clear();
                    });
                }
                None => {}
            }
            worlds
        }
    }

    #[test]
    fn whatever_happens_in_whatever_order_a_record_builds_on_all_that_it_does_not_have() {
        let mut worlds = vec![(
            World {
                numbers: Numbers::new(0, None),
                epoch: 0,
                committing: None,
                jobs: VecDeque::new(),
                in_chain: 0,
                telling: false,
                left: None,
            },
            0,
        )];
        let mut seen = 0u64;
        while let Some((world, steps)) = worlds.pop() {
            seen += 1;
            // There would be too many with one more thing that can happen.
            let enough = if world.left.is_some() { 11 } else { 16 };
            if steps < enough {
                worlds.extend(world.next().into_iter().map(|next| (next, steps + 1)));
            }
        }
        assert!(seen > 10_000, "{seen} are too few to be all");
    }
}
