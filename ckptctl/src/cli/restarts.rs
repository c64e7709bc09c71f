// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether and when a program that failed is started again.

use std::time::Duration;

use clap::ValueEnum;

use super::times::Backoff;

/// A run that lasted this long is no reason to wait longer before the next.
const LONG: Duration = Duration::from_secs(10);

/// What `--restart` can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Leave it at one run
    Never,
    /// Start it again when a signal killed it or it ended with another code than 0
    OnFailure,
}

/// The options, for every verb that starts a program.
#[derive(clap::Args)]
pub struct RestartArgs {
    /// When to start the program again, from its last durable commit
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Restart::Never)]
    restart: Restart,
    /// Give up after so many restarts in a row without a new commit; 0 gives up at once
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_restarts: u32,
    /// After so many restarts in a row from the same commit without a new one, go back to the
    /// commit before it: what it has is lost then, which may be what makes the program fail. 0 never does
    #[arg(long, value_name = "N", default_value_t = 0)]
    back_after: u32,
    /// Wait before a restart: MIN at first, twice as long each time, at most MAX. It is MIN
    /// again after a new commit, and after a run of 10 s or more
    #[arg(long, value_name = "MIN[..MAX]", default_value = "100ms..30s", value_parser = Backoff::parse)]
    backoff: Backoff,
}

/// A run that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// How long it lasted.
    pub lasted: Duration,
    /// It committed something that its chain did not have.
    pub committed: bool,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start again, after a wait. This is restart `number` of those without a new commit.
    Again {
        wait: Duration,
        number: u32,
        /// So many restarts from the same commit were in vain, which is enough to go back further.
        in_vain: Option<u32>,
    },
    /// Leave it.
    GiveUp,
}

/// Counts failures.
#[derive(Debug)]
pub struct Restarts {
    backoff: Backoff,
    max: u32,
    back_after: u32,
    without_commit: u32,
    /// Restarts from the same commit; 0 behind a new one, and when it goes back.
    from_same: u32,
    /// From which commits there were how many restarts since the last new one, in their order.
    tried: Vec<(Option<u64>, u32)>,
    wait: Duration,
}

impl Restarts {
    /// `None` when there shall be none.
    pub fn new(args: &RestartArgs) -> Option<Restarts> {
        (args.restart == Restart::OnFailure).then(|| Restarts::up_to(args.max_restarts, args))
    }

    /// The same for who stays in any case: none then.
    pub fn or_none(args: &RestartArgs) -> Restarts {
        Restarts::new(args).unwrap_or_else(|| Restarts::up_to(0, args))
    }

    fn up_to(max: u32, args: &RestartArgs) -> Restarts {
        Restarts {
            backoff: args.backoff,
            max,
            back_after: args.back_after,
            from_same: 0,
            tried: Vec::new(),
            without_commit: 0,
            wait: args.backoff.min,
        }
    }

    /// How many restarts in a row without a new commit there can be.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Decides about one more failure.
    pub fn after(&mut self, failure: Failure) -> Verdict {
        if failure.committed {
            self.without_commit = 0;
            self.from_same = 0;
            self.tried.clear();
        }
        if self.without_commit == self.max {
            return Verdict::GiveUp;
        }
        self.without_commit += 1;
        if failure.committed || failure.lasted >= LONG {
            self.wait = self.backoff.min;
        }
        let wait = self.wait;
        self.wait = wait.saturating_mul(2).min(self.backoff.max);
        Verdict::Again {
            wait,
            number: self.without_commit,
            in_vain: (self.back_after > 0 && self.from_same >= self.back_after)
                .then_some(self.from_same),
        }
    }

    /// The next restart is from an earlier commit than the one before.
    pub fn went_back(&mut self) {
        self.from_same = 0;
    }

    /// The next restart is from this commit, if that is known.
    pub fn note(&mut self, from: Option<u64>) {
        self.from_same += 1;
        match self.tried.last_mut() {
            Some((last, count)) if *last == from => *count += 1,
            _ => self.tried.push((from, 1)),
        }
    }

    /// From which commits it was tried, for people; nothing when that is not known.
    pub fn report(&self) -> String {
        let tries = self.tried.iter().filter_map(|(from, count)| {
            let from = (*from)?;
            Some(format!("{count} from epoch {from}"))
        });
        match tries.collect::<Vec<_>>().join(", ") {
            tries if tries.is_empty() => tries,
            tries => format!(": {tries}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Failure = Failure {
        lasted: Duration::from_millis(5),
        committed: false,
    };

    fn restarts(max: u32, backoff: &str) -> Restarts {
        let args = RestartArgs {
            restart: Restart::OnFailure,
            max_restarts: max,
            back_after: 2,
            backoff: Backoff::parse(backoff).expect("a back-off"),
        };
        Restarts::new(&args).expect("restarts")
    }

    fn waits(restarts: &mut Restarts, failures: usize) -> Vec<u64> {
        let wait = |_| match restarts.after(FAST) {
            Verdict::Again { wait, .. } => wait.as_millis() as u64,
            Verdict::GiveUp => panic!("gave up"),
        };
        (0..failures).map(wait).collect()
    }

    #[test]
    fn each_wait_is_twice_the_last_up_to_the_longest() {
        let mut restarts = restarts(9, "100ms..700ms");
        assert_eq!(waits(&mut restarts, 5), [100, 200, 400, 700, 700]);
    }

    #[test]
    fn a_commit_makes_the_next_wait_the_shortest_and_the_count_one() {
        let mut restarts = restarts(3, "100ms");
        waits(&mut restarts, 3);
        let verdict = restarts.after(Failure {
            committed: true,
            ..FAST
        });
        let wait = Duration::from_millis(100);
        assert_eq!(
            verdict,
            Verdict::Again {
                wait,
                number: 1,
                in_vain: None
            }
        );
    }

    #[test]
    fn a_long_run_makes_the_next_wait_the_shortest_but_is_counted() {
        let mut restarts = restarts(3, "100ms");
        waits(&mut restarts, 2);
        let verdict = restarts.after(Failure {
            lasted: LONG,
            ..FAST
        });
        let wait = Duration::from_millis(100);
        assert_eq!(
            verdict,
            Verdict::Again {
                wait,
                number: 3,
                in_vain: None
            }
        );
        assert_eq!(restarts.after(FAST), Verdict::GiveUp);
    }

    #[test]
    fn what_was_in_vain_is_counted_for_each_commit() {
        let mut restarts = restarts(9, "0s");
        let mut in_vain = |from, committed| {
            let failure = Failure { committed, ..FAST };
            let Verdict::Again { in_vain, .. } = restarts.after(failure) else {
                panic!("gave up")
            };
            if in_vain.is_some() {
                restarts.went_back();
            }
            restarts.note(Some(from));
            (in_vain, restarts.report())
        };
        in_vain(8, true);
        assert_eq!(in_vain(8, false), (None, ": 2 from epoch 8".into()));
        assert_eq!(
            in_vain(7, false),
            (Some(2), ": 2 from epoch 8, 1 from epoch 7".into())
        );
        assert_eq!(in_vain(7, false).0, None);
        assert_eq!(in_vain(9, true), (None, ": 1 from epoch 9".into()));
    }

    #[test]
    fn no_restart_is_allowed_when_the_limit_is_zero() {
        assert_eq!(restarts(0, "1s").after(FAST), Verdict::GiveUp);
    }
}
