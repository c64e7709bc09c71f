// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tracking has to reach, beside PAGEMAP_SCAN and beside itself with less thought; and saves
//! and restores, beside the bare compressor and the disk.

use std::path::Path;

use anyhow::Result;
use anyhow::bail;
use serde_json::Value;

use crate::record::number;
use crate::record::read;
use crate::record::text;

struct Judge {
    /// Of tracking.
    results: Vec<Value>,
    missed: u32,
    looked: u32,
}

/// Prints each requirement with its figure. Whether all are met.
pub fn run(folder: &Path) -> Result<bool> {
    let mut judge = Judge {
        results: read(folder, "tracking")?,
        missed: 0,
        looked: 0,
    };
    let store = read(folder, "store")?;
    if judge.results.is_empty() && store.is_empty() {
        bail!(
            "{} has neither tracking.json nor store.json: run make bench",
            folder.display()
        );
    }
    if !judge.results.is_empty() {
        judge.tracking();
    }
    if !store.is_empty() {
        judge.store(&store);
    }
    println!("{} of {} met", judge.looked - judge.missed, judge.looked);
    Ok(judge.missed == 0 && judge.looked != 0)
}

impl Judge {
    fn tracking(&mut self) {
        self.grid();
        self.changing();
        self.idle();
        self.size();
        self.snapshot();
    }

    /// The default compression has to reach most of what is possible; others are for those who
    /// want something else.
    fn store(&mut self, results: &[Value]) {
        for what in ["save", "restore"] {
            let name = format!("{what} with lz4, of compressor and disk");
            let one = results
                .iter()
                .find(|one| text(one, "what") == what && text(one, "compression") == "lz4");
            match one.and_then(|one| number(one, "median_of_slower")) {
                Some(reached) => self.require_least(&name, reached, 0.8),
                None => self.missing(&name),
            }
        }
    }

    fn require_least(&mut self, what: &str, figure: f64, least: f64) {
        self.looked += 1;
        let met = figure >= least;
        self.missed += u32::from(!met);
        let verdict = if met { "ok" } else { "MISSED" };
        println!("{verdict:<7} {what}: {figure:.3}, at least {least:.3}");
    }

    fn require(&mut self, what: &str, figure: f64, most: f64) {
        self.looked += 1;
        let met = figure <= most;
        self.missed += u32::from(!met);
        let verdict = if met { "ok" } else { "MISSED" };
        println!("{verdict:<7} {what}: {figure:.3}, at most {most:.3}");
    }

    fn missing(&mut self, what: &str) {
        self.looked += 1;
        self.missed += 1;
        println!("MISSED  {what}: not measured");
    }

    /// The result of a mechanism that has all the `like` of another.
    fn of(&self, mechanism: &str, like: &Value) -> Option<f64> {
        let same = |key| move |one: &&Value| one.get(key) == like.get(key);
        self.results
            .iter()
            .filter(|one| text(one, "mechanism") == mechanism)
            .filter(same("workload"))
            .filter(same("pattern"))
            .filter(same("arena_pages"))
            .find(same("dirty_pages"))
            .and_then(|one| number(one, "total_instructions"))
    }

    fn ours(&self, workloads: &[&str]) -> Vec<Value> {
        let wanted = |one: &&Value| {
            text(one, "mechanism") == "module" && workloads.contains(&text(one, "workload"))
        };
        self.results.iter().filter(wanted).cloned().collect()
    }

    fn grid(&mut self) {
        let (mut sum, mut cells) = (0.0, 0);
        for one in self.ours(&["random", "sequential"]) {
            let what = format!(
                "{} {} of pagemap_scan",
                text(&one, "workload"),
                one["dirty_pages"]
            );
            match (
                number(&one, "total_instructions"),
                self.of("pagemap_scan", &one),
            ) {
                (Some(ours), Some(theirs)) => {
                    self.require(&what, ours / theirs, 0.5);
                    sum += (ours / theirs).ln();
                    cells += 1;
                }
                _ => self.missing(&what),
            }
        }
        if cells == 10 {
            self.require("geometric mean over the grid", (sum / 10.0).exp(), 0.1);
        } else {
            self.missing("geometric mean over the ten cells");
        }
    }

    fn changing(&mut self) {
        let runs = self.ours(&["fresh", "moving", "mix"]);
        if runs.len() != 8 {
            self.missing("fresh, moving and mix");
        }
        for one in runs {
            let Some(ours) = number(&one, "total_instructions") else {
                continue;
            };
            let name = format!(
                "{} {} {}",
                text(&one, "workload"),
                text(&one, "pattern"),
                one["dirty_pages"]
            );
            match self.of("pagemap_scan", &one) {
                Some(theirs) => {
                    self.require(&format!("{name} of pagemap_scan"), ours / theirs, 1.0)
                }
                None => self.missing(&format!("{name} of pagemap_scan")),
            }
            match (self.of("module-armed", &one), self.of("module-open", &one)) {
                (Some(armed), Some(open)) => {
                    let what = format!("{name} of the better of armed and open");
                    self.require(&what, ours / armed.min(open), 1.2);
                }
                _ => self.missing(&format!("{name} of armed and open")),
            }
        }
    }

    fn idle(&mut self) {
        for pages in [65_536, 1_048_576] {
            let what = format!("idle commit, {} MiB", pages / 256);
            let idle = self.ours(&["idle"]);
            let worst = idle
                .iter()
                .filter(|one| one["arena_pages"] == pages)
                .filter_map(|one| {
                    Some(number(one, "commit_instructions")? - number(one, "delta_instructions")?)
                })
                .reduce(f64::max);
            match worst {
                Some(cost) => self.require(&what, cost, 3_000.0),
                None => self.missing(&what),
            }
        }
    }

    fn size(&mut self) {
        for dirty in [65, 655] {
            let cost = |pages| {
                self.ours(&["size"])
                    .iter()
                    .find(|one| one["arena_pages"] == pages && one["dirty_pages"] == dirty)
                    .and_then(|one| number(one, "commit_instructions"))
            };
            let what = format!("commit and delta of {dirty} pages, 4 GiB to 256 MiB");
            match (cost(65_536), cost(1_048_576)) {
                (Some(small), Some(large)) => self.require(&what, large / small, 1.5),
                _ => self.missing(&what),
            }
        }
    }

    fn snapshot(&mut self) {
        let all = self.ours(&["snapshot"]);
        if all.len() != 4 {
            self.missing("snapshots");
        }
        for one in all {
            let name = format!("{} {}", text(&one, "pattern"), one["dirty_pages"]);
            let key = |key| number(&one, key).unwrap_or(f64::NAN);
            let (pages, plain) = (key("dirty_pages"), key("plain_commit_instructions"));
            self.require(
                &format!("commit with snapshot, {name}, of 1.3 plain commits + 150 per page"),
                key("commit_instructions") / (1.3 * plain + 150.0 * pages),
                1.0,
            );
            self.require(
                &format!("faults per later write, {name}"),
                key("later_write_faults") / pages,
                1.0,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn missed(results: &[Value]) -> u32 {
        let mut judge = Judge {
            results: Vec::new(),
            missed: 0,
            looked: 0,
        };
        judge.store(results);
        judge.missed
    }

    #[test]
    fn saves_and_restores_have_to_reach_four_fifths_with_the_default_compression() {
        let one = |what: &str, compression: &str, reached: f64| json!({"what": what, "compression": compression, "median_of_slower": reached});
        let save = one("save", "lz4", 0.81);
        assert_eq!(missed(&[save.clone(), one("restore", "lz4", 0.8)]), 0);
        assert_eq!(missed(&[save.clone(), one("restore", "lz4", 0.79)]), 1);
        assert_eq!(missed(&[save, one("restore", "zstd:3", 0.9)]), 1);
    }
}
