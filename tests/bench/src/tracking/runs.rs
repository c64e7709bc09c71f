// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs of a workload with a mechanism.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use serde_json::json;

use super::Options;
use super::fork::Fork;
use super::memory;
use super::module::Module;
use super::mprotect::Mprotect;
use super::pagemap_scan::PagemapScan;
use super::soft_dirty::SoftDirty;
use super::workload;
use super::workload::Run;
use crate::record::emit;

/// A way to learn which pages were written.
pub trait Mechanism {
    /// The memory.
    fn base(&self) -> NonNull<u8>;

    /// Ends an epoch: learns which pages were written since the last one, and begins to watch
    /// anew. Calls `found` with each run of them: first page, number. Returns false if it
    /// cannot tell pages. `told` is called when what only commits is done and telling begins.
    fn commit(&mut self, told: &mut dyn FnMut(), found: &mut dyn FnMut(u64, u64)) -> Result<bool>;
}

/// Instructions of an epoch.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// The writes, and what they trigger.
    pub write: u64,
    /// What comes after.
    pub commit: u64,
    /// The part of that which tells the pages.
    pub delta: u64,
}

/// Head of the table.
pub const HEAD: &str =
    "mechanism     workload              changed      write     commit  (telling)      total";

/// Writes, commits, and makes sure that no page was missed.
pub fn epoch(mechanism: &mut dyn Mechanism, pages: &[u64]) -> Result<Cost> {
    let mut runs = Vec::with_capacity(pages.len() + 1024);
    let begun = Instant::now();
    // SAFETY: The pages are in the mechanism's memory.
    unsafe { memory::write(mechanism.base(), pages) };
    let written = Instant::now();
    let mut telling = None;
    let tells = mechanism.commit(&mut || telling = Some(Instant::now()), &mut |first, len| {
        runs.push((first, len));
    })?;
    let done = Instant::now();
    if tells {
        let mut found = BTreeSet::new();
        for (first, len) in runs {
            found.extend(first..first + len);
        }
        if let Some(page) = pages.iter().find(|page| !found.contains(page)) {
            bail!(
                "page {page} was written and is not among the {} told",
                found.len()
            );
        }
    }
    let nanoseconds = |from: Instant, to: Instant| (to - from).as_nanos() as u64;
    Ok(Cost {
        write: nanoseconds(begun, written),
        commit: nanoseconds(written, done),
        delta: telling.map_or(0, |telling| nanoseconds(telling, done)),
    })
}

/// A mechanism by its name, with all its pages written and committed.
fn mechanism(name: &str, pages: u64) -> Result<Box<dyn Mechanism>> {
    let mut mechanism: Box<dyn Mechanism> = match name {
        "module" => Box::new(Module::new(pages)?),
        "pagemap_scan" => Box::new(PagemapScan::new(pages)?),
        "soft_dirty" => Box::new(SoftDirty::new(pages)?),
        "mprotect" => Box::new(Mprotect::new(pages)?),
        "fork" => Box::new(Fork::new(pages)?),
        _ => bail!("no such mechanism: {name}"),
    };
    epoch(&mut *mechanism, &(0..pages).collect::<Vec<_>>())?;
    Ok(mechanism)
}

fn show(name: &str, workload: &str, changed: u64, cost: &Cost) {
    println!(
        "{name:<13} {workload:<20} {changed:>8} {:>10} {:>10} {:>10} {:>10}",
        cost.write,
        cost.commit,
        cost.delta,
        cost.write + cost.commit
    );
}

/// Runs a workload with a mechanism.
pub fn run(workload: &str, name: &str, options: &Options) -> Result<()> {
    let label = if name == "module" {
        &options.label
    } else {
        name
    };
    let pages = options.pages;
    let (runs, whole) = match workload {
        "grid" => (workload::grid(pages), false),
        "size" if name == "module" => (workload::size(pages), false),
        "size" => return Ok(()),
        "fresh" | "moving" | "mix" if !matches!(name, "module" | "pagemap_scan") => return Ok(()),
        "fresh" => (workload::fresh(pages), true),
        "moving" => (workload::moving(pages), true),
        "mix" => (workload::mix(pages), true),
        _ => bail!("no such workload: {workload}"),
    };
    let mut pattern = "";
    let mut held = None;
    for run in &runs {
        // The cells of a pattern share the memory; a run with a history has its own.
        if whole || pattern != run.pattern {
            drop(held.take());
            pattern = run.pattern;
        }
        let mechanism = match &mut held {
            Some(mechanism) => mechanism,
            none => none.insert(mechanism(name, pages)?),
        };
        let cost = match whole {
            true => mean(&mut **mechanism, run)?,
            false => last(&mut **mechanism, run)?,
        };
        let shown = match whole {
            true => format!("{} {}", run.workload, run.pattern),
            false => run.workload.to_string(),
        };
        tell(label, run, &shown, pages, &cost);
    }
    if let (Some(mechanism), false) = (&mut held, whole) {
        idle(label, &mut **mechanism, pages)?;
    }
    Ok(())
}

/// Cost of the last epoch.
fn last(mechanism: &mut dyn Mechanism, run: &Run) -> Result<Cost> {
    let mut cost = Cost::default();
    for pages in &run.epochs {
        cost = epoch(mechanism, pages)?;
    }
    Ok(cost)
}

/// Mean cost of all epochs.
fn mean(mechanism: &mut dyn Mechanism, run: &Run) -> Result<Cost> {
    let mut sum = Cost::default();
    for pages in &run.epochs {
        let cost = epoch(mechanism, pages)?;
        sum.write += cost.write;
        sum.commit += cost.commit;
        sum.delta += cost.delta;
    }
    let epochs = run.epochs.len() as u64;
    Ok(Cost {
        write: sum.write / epochs,
        commit: sum.commit / epochs,
        delta: sum.delta / epochs,
    })
}

fn tell(label: &str, run: &Run, shown: &str, pages: u64, cost: &Cost) {
    show(label, shown, run.dirty, cost);
    emit(
        "tracking",
        &json!({
            "mechanism": label,
            "workload": run.workload,
            "pattern": run.pattern,
            "arena_pages": pages,
            "dirty_pages": run.dirty,
            "epochs": run.epochs.len(),
            "write_instructions": cost.write,
            "commit_instructions": cost.commit,
            "delta_instructions": cost.delta,
            "total_instructions": cost.write + cost.commit,
        }),
    );
}

/// Idle epochs before the one that counts.
const IDLE: usize = 20;

/// An epoch without a write, after some of the kind.
fn idle(label: &str, mechanism: &mut dyn Mechanism, pages: u64) -> Result<()> {
    let run = Run {
        workload: "idle",
        pattern: "idle",
        dirty: 0,
        epochs: vec![Vec::new(); IDLE + 1],
    };
    let cost = last(mechanism, &run)?;
    tell(label, &run, "idle", pages, &cost);
    Ok(())
}
