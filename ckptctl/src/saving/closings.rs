// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which durable epoch has what was there before it was known which epoch would have it. Pure.

use std::collections::VecDeque;

/// The attempts to close an epoch, numbered from 1, and which of them became durable.
///
/// What a thread has written before it asks for [`Closings::next`] is in every epoch that is
/// closed by that attempt or a later one.
#[derive(Default)]
pub(super) struct Closings {
    /// Attempts that have begun.
    begun: u64,
    /// Epochs on their way, and the attempts that closed them, both ascending.
    on_their_way: VecDeque<(u64, u64)>,
    /// The attempt that closed the newest durable epoch, 0 before any.
    durable: u64,
}

impl Closings {
    /// The next attempt.
    pub(super) fn next(&self) -> u64 {
        self.begun + 1
    }

    /// The attempt that closed the newest durable epoch, 0 before any.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// An epoch is about to be closed.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
    }

    /// The attempt that began last has closed this epoch.
    pub(super) fn closed(&mut self, epoch: u64) {
        self.on_their_way.push_back((epoch, self.begun));
    }

    /// This epoch is durable, and has what those before it had.
    pub(super) fn tell(&mut self, epoch: u64) {
        while let Some(&(of, attempt)) = self.on_their_way.front() {
            if of > epoch {
                break;
            }
            self.durable = attempt;
            self.on_their_way.pop_front();
        }
    }

    /// All that are on their way are given up: a later one will have what they had.
    pub(super) fn fail(&mut self) {
        self.on_their_way.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_an_attempt_is_durable_with_the_epoch_that_it_closed() {
        let mut closings = Closings::default();
        let before = closings.next();
        closings.begin();
        let meanwhile = closings.next();
        closings.closed(7);
        assert!(closings.durable() < before);
        closings.tell(7);
        assert!(before <= closings.durable() && closings.durable() < meanwhile);
    }

    #[test]
    fn an_attempt_that_closed_nothing_is_made_up_for_by_the_next() {
        let mut closings = Closings::default();
        let before = closings.next();
        closings.begin();
        closings.begin();
        closings.closed(1);
        closings.tell(1);
        assert!(before <= closings.durable());
    }

    #[test]
    fn what_was_given_up_is_durable_with_a_later_epoch_and_not_before() {
        let mut closings = Closings::default();
        let before = closings.next();
        closings.begin();
        closings.closed(1);
        closings.begin();
        closings.closed(2);
        closings.fail();
        assert!(closings.on_their_way.is_empty() && closings.durable() < before);
        let later = closings.next();
        closings.begin();
        closings.closed(3);
        closings.tell(3);
        assert!(before <= closings.durable() && later <= closings.durable());
    }

    #[test]
    fn epochs_become_durable_one_after_the_other() {
        let mut closings = Closings::default();
        let attempts = [11, 12, 13].map(|epoch| {
            let attempt = closings.next();
            closings.begin();
            closings.closed(epoch);
            attempt
        });
        closings.tell(12);
        assert_eq!(closings.durable(), attempts[1]);
        assert_eq!(closings.on_their_way.len(), 1);
    }
}
