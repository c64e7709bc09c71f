// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which epochs a compaction keeps.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use super::super::chain::Chain;
use super::super::error::StoreError;
use super::super::record::CommitInfo;

/// Which epochs are to be kept. What must be kept besides, because other records build on it,
/// is kept anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// This many of the newest, whatever branch they are on; with 0, one.
    pub last: u64,
    /// The newest of every such span of time, which are counted from 1970 on.
    pub every: Option<Duration>,
    /// The spans matter for commits that are not older than this; `None`: for all.
    pub within: Option<Duration>,
}

impl Default for Keep {
    /// The newest epoch.
    fn default() -> Keep {
        Keep {
            last: 1,
            every: None,
            within: None,
        }
    }
}

impl Keep {
    /// The epochs to be kept of ascending commits; `now_ns` is the wall clock.
    fn select<'a>(
        &self,
        commits: impl DoubleEndedIterator<Item = &'a CommitInfo>,
        now_ns: u64,
    ) -> BTreeSet<u64> {
        let oldest_ns = match self.within {
            None => 0,
            Some(within) => now_ns.saturating_sub(nanoseconds(within)),
        };
        let mut spans = BTreeSet::new();
        let mut kept = BTreeSet::new();
        for (commit, place) in commits.rev().zip(0..) {
            let of_span = self.every.is_some_and(|every| {
                let span = commit.time_ns / nanoseconds(every).max(1);
                commit.time_ns >= oldest_ns && spans.insert(span)
            });
            if place < self.last.max(1) || of_span {
                kept.insert(commit.epoch);
            }
        }
        kept
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What becomes of the epochs of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Epochs in the segments that a base will stand for that are kept, each with the nearest kept
    /// epoch that it descends from.
    pub kept: BTreeMap<u64, Option<u64>>,
    /// Epochs in these segments that are not, ascending.
    pub dropped: Vec<u64>,
}

/// Decides about the epochs in the segments up to number `through`; everything behind stays.
///
/// # Errors
///
/// [`StoreError::Damaged`] when something that is to be kept cannot be restored.
pub(super) fn decide(
    chain: &Chain,
    keep: &Keep,
    now_ns: u64,
    through: u64,
) -> Result<Decision, StoreError> {
    // Refuses when the end is damaged: which epochs are the newest is not known then.
    chain.newest()?;
    let mut wanted = keep.select(chain.commits(), now_ns);
    // Of a record whose header is lost, the footer or those that build on it may still tell the
    // epoch.
    let oldest_of_last = chain.commits().nth_back(keep.last.max(1) as usize - 1);
    for damage in chain.damage() {
        let unknown = |epoch: &u64| {
            chain.find(*epoch).is_none() && oldest_of_last.is_none_or(|last| *epoch > last.epoch)
        };
        if damage.lost.iter().any(unknown) {
            return Err(chain.damaged(damage.clone()));
        }
    }
    let inside = |info: &CommitInfo| info.segment <= through;
    for commit in chain.commits().filter(|commit| !inside(commit)) {
        wanted.remove(&commit.epoch);
        if let Some(parent) = commit.parent.and_then(|parent| chain.find(parent)) {
            // What cannot be restored needs nothing.
            if commit.restorable && inside(parent) {
                wanted.insert(parent.epoch);
            }
        }
    }
    let mut needed = BTreeSet::new();
    for epoch in wanted.clone() {
        // Names what is damaged, if anything is.
        chain.restorable(epoch)?;
        for record in chain.lineage(epoch) {
            let first_time = needed.insert(record.info.epoch);
            let parent = record.info.parent.and_then(|parent| chain.find(parent));
            // Pages beyond a smaller arena come back when it grows again, so what has them
            // stays.
            if let Some(parent) = parent {
                if parent.arena_len_pages > record.info.arena_len_pages {
                    wanted.insert(parent.epoch);
                }
            }
            if !first_time {
                break;
            }
        }
    }
    let mut kept = BTreeMap::new();
    for &epoch in &wanted {
        let mut ancestors = chain.lineage(epoch).skip(1).map(|record| record.info.epoch);
        kept.insert(epoch, ancestors.find(|ancestor| wanted.contains(ancestor)));
    }
    let dropped = chain
        .commits()
        .filter(|commit| inside(commit) && !wanted.contains(&commit.epoch))
        .map(|commit| commit.epoch)
        .collect();
    Ok(Decision { kept, dropped })
}

#[cfg(test)]
mod tests {
    use super::super::super::format::Kind;
    use super::*;

    fn commits(times_s: &[u64]) -> Vec<CommitInfo> {
        (1..)
            .zip(times_s)
            .map(|(epoch, time_s)| CommitInfo {
                epoch,
                parent: None,
                kind: Kind::Commit,
                generation: [0; 16],
                time_ns: time_s * 1_000_000_000,
                pause_ns: 0,
                arena_base: 0,
                arena_len_pages: 0,
                page_shift: 12,
                data_pages: 0,
                zero_pages: 0,
                shared_pages: 0,
                unchanged_pages: 0,
                stored_bytes: 0,
                segment: 1,
                offset: 0,
                hash: [0; 32],
                compacted: false,
                restorable: true,
            })
            .collect()
    }

    fn select(keep: &Keep, times_s: &[u64], now_s: u64) -> Vec<u64> {
        let commits = commits(times_s);
        let kept = keep.select(commits.iter(), now_s * 1_000_000_000);
        kept.into_iter().collect()
    }

    const TIMES: [u64; 8] = [1, 30, 59, 60, 130, 135, 170, 400];

    #[test]
    fn the_newest_are_kept_and_one_at_least() {
        let keep = |last| Keep {
            last,
            ..Keep::default()
        };
        assert_eq!(select(&keep(0), &TIMES, 500), [8]);
        assert_eq!(select(&keep(1), &TIMES, 500), [8]);
        assert_eq!(select(&keep(3), &TIMES, 500), [6, 7, 8]);
        assert_eq!(select(&keep(u64::MAX), &TIMES, 500).len(), 8);
    }

    #[test]
    fn of_each_span_of_time_the_newest_is_kept() {
        let keep = Keep {
            every: Some(Duration::from_secs(60)),
            ..Keep::default()
        };
        assert_eq!(select(&keep, &TIMES, 500), [3, 4, 7, 8]);
        let within = Keep {
            within: Some(Duration::from_secs(440)),
            ..keep.clone()
        };
        assert_eq!(select(&within, &TIMES, 500), [4, 7, 8]);
        let kept: Vec<u64> = vec![59, 60, 170, 400];
        assert_eq!(
            select(&keep, &kept, 500),
            [1, 2, 3, 4],
            "a second time, nothing goes"
        );
    }
}
