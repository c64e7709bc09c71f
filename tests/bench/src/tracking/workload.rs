// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pages the epochs of a run change, in the order in which they are written.

/// A run: one list of pages for each epoch.
pub struct Run {
    /// Its name in the results.
    pub workload: &'static str,
    /// What distinguishes it from others of that name.
    pub pattern: &'static str,
    /// Pages that an epoch changes, or about.
    pub dirty: u64,
    /// The epochs.
    pub epochs: Vec<Vec<u64>>,
}

/// Numbers of a fixed sequence.
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// The next, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// So many of all pages, in random order.
    pub fn pages(&mut self, all: u64, some: u64) -> Vec<u64> {
        let mut pages: Vec<u64> = (0..all).collect();
        for last in (1..pages.len()).rev() {
            pages.swap(last, self.below(last as u64 + 1) as usize);
        }
        pages.truncate(some as usize);
        pages
    }
}

/// Changed pages of the grid: 0.01, 0.1, 1, 10 and 50 % of 256 MiB.
const GRID: [u64; 5] = [6, 65, 655, 6_553, 32_768];
/// Changed pages of the fresh sets: 0.1, 1, 10 and 50 %.
const FRESH: [u64; 4] = [65, 655, 6_553, 32_768];
/// Pages of a hot set: 5 %.
const HOT: u64 = 3_276;
/// Rare writes beside it: 0.1 %.
const RARE: u64 = 65;

/// The same pages again and again.
pub fn settled(all: u64, pattern: &'static str, dirty: u64, epochs: usize) -> Run {
    // One permutation for all sizes, of which each is a prefix.
    let pages = match pattern {
        "random" => Numbers::new(1).pages(all, dirty),
        _ => (0..dirty).collect(),
    };
    Run {
        workload: pattern,
        pattern,
        dirty,
        epochs: vec![pages; epochs],
    }
}

/// The grid: its last epoch counts.
pub fn grid(all: u64) -> Vec<Run> {
    ["random", "sequential"]
        .into_iter()
        .flat_map(|pattern| GRID.map(|dirty| settled(all, pattern, dirty, 6)))
        .collect()
}

/// New random pages in every epoch.
pub fn fresh(all: u64) -> Vec<Run> {
    let mut numbers = Numbers::new(2);
    FRESH
        .map(|dirty| Run {
            workload: "fresh",
            pattern: "random",
            dirty,
            epochs: (0..20).map(|_| numbers.pages(all, dirty)).collect(),
        })
        .into()
}

/// A hot set that moves every ten epochs.
pub fn moving(all: u64) -> Vec<Run> {
    let mut numbers = Numbers::new(3);
    let sequential = (0..60u64).map(|epoch| {
        let first = epoch / 10 * 9_000;
        (first..first + HOT).map(|page| page % all).collect()
    });
    let sets: Vec<_> = (0..6).map(|_| numbers.pages(all, HOT)).collect();
    let random = (0..60).map(|epoch| sets[epoch / 10].clone());
    let run = |pattern, epochs| Run {
        workload: "moving",
        pattern,
        dirty: HOT,
        epochs,
    };
    vec![
        run("sequential", sequential.collect()),
        run("random", random.collect()),
    ]
}

/// A hot set, and rare writes anywhere.
pub fn mix(all: u64) -> Vec<Run> {
    let mut numbers = Numbers::new(4);
    let run = |pattern, hot: Vec<u64>, numbers: &mut Numbers| {
        let epochs = (0..40).map(|_| {
            let mut pages = hot.clone();
            pages.extend((0..RARE).map(|_| numbers.below(all)));
            pages.sort_unstable();
            pages.dedup();
            pages
        });
        Run {
            workload: "mix",
            pattern,
            dirty: HOT + RARE,
            epochs: epochs.collect(),
        }
    };
    let hot = numbers.pages(all, HOT);
    vec![
        run("sequential", (1_000..1_000 + HOT).collect(), &mut numbers),
        run("random", hot, &mut numbers),
    ]
}

/// A few pages, scattered over all.
pub fn size(all: u64) -> Vec<Run> {
    [65, 655]
        .map(|dirty| Run {
            workload: "size",
            ..settled(all, "random", dirty, 6)
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_epoch_writes_each_page_once_and_within_the_memory() {
        let all = 65_536;
        let all_runs = [grid(all), fresh(all), moving(all), mix(all), size(all)];
        for run in all_runs.iter().flatten() {
            for epoch in &run.epochs {
                let set: BTreeSet<_> = epoch.iter().collect();
                assert_eq!(set.len(), epoch.len(), "{} {}", run.workload, run.dirty);
                assert!(epoch.iter().all(|&page| page < all));
                assert!(epoch.len() as u64 <= run.dirty);
            }
        }
    }

    #[test]
    fn smaller_random_sets_of_the_grid_are_parts_of_larger_ones() {
        let runs = grid(65_536);
        for pair in runs[..5].windows(2) {
            let (small, large) = (&pair[0].epochs[0], &pair[1].epochs[0]);
            assert_eq!(small[..], large[..small.len()]);
        }
    }
}
