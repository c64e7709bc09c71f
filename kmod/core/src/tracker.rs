// SPDX-License-Identifier: GPL-2.0-only
//! What to do with a chunk: which pages to arm, which to leave open.
//!
//! A page that was written is told in one of two ways. It can be *armed*: its
//! page-table entries are read-only, the first write of an epoch faults and notes it.
//! Or it can be *open*: it stays writable from commit to commit, and the processor's
//! dirty bits are harvested. A fault is dear; looking at an entry is cheap, but an open
//! page is looked at in every commit, written or not. So pages that are written again
//! and again are kept open, chunks with many faults are opened as a whole, and open
//! pages that stay clean are armed again.
//!
//! Here is only the decision, by a model of what things cost; [`Hardware`] carries out.
//! All sums are in instructions, measured on the pinned kernel (see docs/performance.md);
//! nothing depends on them but speed.

use core::sync::atomic::{AtomicBool, Ordering};

use super::bits::{Bits, CHUNK_PAGES};

/// What a tracker can ask of the machine.
///
/// Implemented by the module over the arena's mappings, and by models in tests.
pub trait Hardware {
    /// What things cost with this hardware.
    fn costs(&self) -> &'static Costs;

    /// Harvests the pages of the chunk that begins at page `first`, as `plan` says, and
    /// returns pages whose entries were dirty. Pages outside the plan may be among them;
    /// pages in `plan.known` may be missing.
    ///
    /// Afterwards, a write to an armed page faults, and a write to a kept page makes its
    /// entry dirty; a write before is told in the answer. Both may be put off until the
    /// commit ends, as nobody can know of the commit before.
    fn harvest(&mut self, first: u64, plan: &Plan) -> Bits;

    /// Those of `pages` that a device or the kernel may be writing right now without
    /// going through a page-table entry. Asked after the harvest.
    fn pinned(&mut self, first: u64, pages: &Bits) -> Bits;
}

/// What is to be done to the pages of a chunk at commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be made read-only and clean.
    pub arm: Bits,
    /// To be made clean. None where the hardware cannot tell which entries are dirty.
    pub keep: Bits,
    /// Pages that are known to have changed, so it need not be found out.
    pub known: Bits,
    /// Kept pages that are dirty are to be armed instead: a snapshot will hold them.
    pub freeze: bool,
}

/// What things cost, in instructions.
#[derive(Debug)]
pub struct Costs {
    /// A write fault, until the program goes on.
    pub fault: u32,
    /// To look into a chunk at commit.
    pub visit: u32,
    /// A pass over a run of entries, beside what the entries cost.
    pub pass: u32,
    /// An entry of a pass.
    pub entry: u32,
    /// To arm a page, beside looking at it.
    pub arm: u32,
    /// To open a page when its whole chunk is opened.
    pub open: u32,
    /// Two runs with at most this many pages between them share a pass.
    pub gap: usize,
    /// Whether open pages can be harvested at all.
    pub opens: bool,
}

impl Costs {
    /// Entries are read straight from the page table; one flush for the whole commit.
    pub const DIRECT: Costs = Costs {
        fault: 2_000,
        visit: 1_500,
        pass: 0,
        entry: 8,
        arm: 70,
        open: 16,
        gap: 0,
        opens: true,
    };

    /// The kernel walks runs of entries: a lock, a walk from the top and a flush for each.
    pub const RANGES: Costs = Costs {
        fault: 2_000,
        visit: 300,
        pass: 1_300,
        entry: 33,
        arm: 120,
        open: 16,
        gap: 32,
        opens: true,
    };

    /// The kernel can only arm page by page.
    pub const PAGES: Costs = Costs {
        fault: 2_000,
        visit: 300,
        pass: 1_050,
        entry: 0,
        arm: 0,
        open: 0,
        gap: 0,
        opens: false,
    };

    /// What looking at these pages costs in a chunk that is looked into.
    fn looking(&self, open: &Bits) -> u32 {
        if self.pass == 0 {
            return self.entry * open.len() as u32;
        }
        spans(open, self.gap).fold(0, |sum, (_, len)| sum + self.pass + self.entry * len as u32)
    }

    /// What harvesting these open pages costs in every commit.
    fn harvest(&self, open: &Bits) -> u32 {
        match open.is_empty() {
            true => 0,
            false => self.visit + self.looking(open),
        }
    }

    /// After how many commits arming `stale` ones of the open pages, and a fault on one of them,
    /// will have cost no more than to have gone on looking at them.
    fn closing(&self, open: &Bits, stale: &Bits) -> u32 {
        if stale.is_empty() {
            return u32::MAX;
        }
        let all = self.harvest(open);
        let saved = all.saturating_sub(self.harvest(&open.minus(stale)));
        let price = self.fault + self.pass + (self.arm + self.open) * stale.len() as u32;
        price
            .checked_div(saved)
            .map_or(u32::MAX, |commits| commits + 1)
    }

    /// What opening a whole chunk costs: the price of trying.
    fn opening(&self) -> u32 {
        self.pass + self.open * CHUNK_PAGES as u32
    }
}

/// How pages are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By what it costs.
    Adaptive,
    /// Every page armed by every commit. To compare with.
    Armed,
    /// Every page that was ever written stays open. To compare with.
    Open,
}

/// What a tracker remembers of a chunk between commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Open pages.
    pub open: Bits,
    /// Pages that changed since the time of watching began.
    pub seen: Bits,
    /// Commits since then.
    pub watched: u32,
    /// After how many watching begins anew.
    pub window: u32,
    /// After how many it is looked whether pages are stale.
    pub due: u32,
    /// Commits since the last one that found a change here.
    pub idle: u32,
    /// What faults cost more, so far, than having had the chunk open would have.
    pub regret: u32,
}

impl History {
    /// Begins to watch anew.
    fn watch(&mut self, window: u32) {
        self.seen = Bits::default();
        self.watched = 0;
        self.window = window;
        self.due = 2;
    }
}

/// The chunk at a commit.
pub struct Epoch {
    /// Pages noted since the commit before.
    pub noted: Bits,
    /// Those of them that changed in one of the two epochs before as well, and not for the
    /// first time then.
    pub again: Bits,
    /// Pages that were ever written.
    pub ever: Bits,
    /// Write faults since the commit before, but those on pages that will be left open.
    pub faults: u32,
    /// The regret, and what all faults since have cost.
    pub spent: u32,
    /// A snapshot will hold what changed.
    pub freeze: bool,
}

/// What came of one chunk at commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Pages that may have changed.
    pub changed: Bits,
    /// Those of them that may still be changing: noted for the next commit, too.
    pub again: Bits,
    /// Pages left open that were not before.
    pub kept: u32,
    /// Pages armed because they had stayed clean.
    pub closed: u32,
}

/// For so many commits open pages are watched at first, before it begins anew: else a page
/// that was written once would count as seen for ever.
const WINDOW_MIN: u32 = 16;

/// Each time that nothing was worth closing it takes twice as long, up to this.
const WINDOW_MAX: u32 = 64;

/// How much more often pages must have been found clean when others of their chunk were not.
const DOUBT: u32 = 3;

/// How much less often when no page of the chunk was written.
const SURE: u32 = 2;

/// The tracking policy of an arena.
pub struct Tracker {
    policy: Policy,
    /// Whether the last commit could read page tables directly.
    direct: AtomicBool,
    /// Whether it could harvest open pages at all.
    harvests: AtomicBool,
}

impl Tracker {
    /// A tracker with a policy.
    pub const fn new(policy: Policy) -> Self {
        Tracker {
            policy,
            direct: AtomicBool::new(true),
            harvests: AtomicBool::new(true),
        }
    }

    /// Whether the policy ever leaves a page open.
    pub fn adapts(&self) -> bool {
        self.policy != Policy::Armed
    }

    /// Whether the open pages of a chunk stay as they are at the next commit, if nothing was
    /// noted. All but `open`, `seen` and `regret` of the history are looked at.
    pub fn is_settled(&self, history: &History) -> bool {
        let next = history.watched + 1;
        // Pages that are written are not stale, and it takes a while to doubt the others.
        let live = next < history.due || history.idle == 0;
        self.policy == Policy::Open || (live && next < history.window)
    }

    /// Told by a commit which hardware it has.
    pub fn uses(&self, costs: &'static Costs) {
        self.direct.store(costs.pass == 0, Ordering::Relaxed);
        self.harvests.store(costs.opens, Ordering::Relaxed);
    }

    fn costs(&self) -> &'static Costs {
        match self.direct.load(Ordering::Relaxed) {
            true => &Costs::DIRECT,
            false => &Costs::RANGES,
        }
    }

    /// What a write fault counts. One on a page that was written `lately` counts less, because
    /// there will not be another: the page is left open.
    pub fn fault_counts(&self, lately: bool) -> u32 {
        let fault = self.costs().fault;
        if lately {
            fault / 2
        } else {
            fault
        }
    }

    /// Whether the chunk of a page should be opened as a whole now, for whose faults so much
    /// was spent before one that counts `cost`.
    pub fn opens(&self, before: u32, cost: u32) -> bool {
        if !self.harvests.load(Ordering::Relaxed) {
            return false;
        }
        match self.policy {
            Policy::Armed => false,
            Policy::Open => true,
            // Each time when as much was spent on faults as opening would have cost: once
            // is enough for one mapping; others of the arena have entries of their own.
            Policy::Adaptive => {
                let times = |spent: u32| spent.checked_div(self.costs().opening());
                times(before.saturating_add(cost)) > times(before)
            }
        }
    }

    /// Harvests the chunk that begins at page `first`.
    ///
    /// An entry that turns out dirty without its page having been noted counts as
    /// changed: better once too often.
    pub fn harvest<W: Hardware>(
        &self,
        first: u64,
        epoch: &Epoch,
        history: &mut History,
        hardware: &mut W,
    ) -> Outcome {
        let costs = hardware.costs();
        let mut outcome = Outcome::default();
        let noted = &epoch.noted;
        let was_open = history.open;
        let opened = self.regret(epoch, history, costs);

        let kept = match self.policy {
            _ if !costs.opens => Bits::default(),
            Policy::Armed => Bits::default(),
            Policy::Open => was_open.or(noted),
            Policy::Adaptive => {
                let stale = match opened {
                    true => Bits::default(),
                    false => self.stale(epoch, history, costs),
                };
                outcome.closed = stale.len() as u32;
                was_open.minus(&stale).or(&epoch.again)
            }
        };
        // What is known to have changed is frozen at once.
        let keep = if epoch.freeze {
            kept.minus(noted)
        } else {
            kept
        };
        let plan = Plan {
            arm: noted.or(&was_open).minus(&keep),
            keep,
            known: *noted,
            freeze: epoch.freeze,
        };
        let dirty = hardware.harvest(first, &plan);
        outcome.changed = noted.or(&dirty);
        let pinned = hardware.pinned(first, &outcome.changed.or(&was_open));
        outcome.changed.union(&pinned);
        outcome.again = pinned;

        let mut open = keep;
        if epoch.freeze {
            open = keep.minus(&outcome.changed);
            // What is only pinned was not dirty, so it is writable still.
            let rest = keep.and(&pinned).minus(&dirty);
            if !rest.is_empty() {
                let plan = Plan {
                    arm: rest,
                    ..Plan::default()
                };
                let late = hardware.harvest(first, &plan);
                outcome.changed.union(&late);
                open = open.minus(&late);
            }
        }
        outcome.kept = open.minus(&was_open).len() as u32;
        history.open = open;
        history.idle += 1;
        if !outcome.changed.is_empty() {
            history.idle = 0;
        }
        if history.watched != 0 {
            history.seen.union(&outcome.changed);
        }
        outcome
    }

    /// Open pages that are to be armed: when looking at them has cost as much as arming
    /// them and a fault would.
    fn stale(&self, epoch: &Epoch, history: &mut History, costs: &Costs) -> Bits {
        if history.open.is_empty() {
            history.watch(WINDOW_MIN);
            return Bits::default();
        }
        history.watched += 1;
        if history.watched >= history.due.min(history.window) {
            let open = history.open.minus(&epoch.noted);
            let needed = costs.closing(&history.open, &open);
            if open == history.open && history.idle.saturating_mul(SURE) >= needed {
                history.watch(WINDOW_MIN);
                return open;
            }
            // Where others are written, these may be next: the writes may only move.
            let stale = open.minus(&history.seen);
            if history.watched >= costs.closing(&history.open, &stale).saturating_mul(DOUBT) {
                history.watch(WINDOW_MIN);
                return stale;
            }
            // If it stays clean from now on.
            let idle = (needed / SURE).saturating_sub(history.idle);
            history.due = history.watched + idle.max(2);
        }
        if history.watched >= history.window {
            history.watch((history.window * 2).clamp(WINDOW_MIN, WINDOW_MAX));
        }
        Bits::default()
    }

    /// Adds up what faults cost more than harvesting all pages would have. Whether the fault
    /// handler opened the chunk, because that had become too much.
    fn regret(&self, epoch: &Epoch, history: &mut History, costs: &Costs) -> bool {
        if epoch.spent == 0 && history.regret == 0 {
            return false;
        }
        let price = costs.opening();
        if epoch.spent >= price {
            history.regret = 0;
            history.watch(WINDOW_MIN);
            return true;
        }
        let all = costs.looking(&epoch.ever.or(&history.open));
        let more = all.saturating_sub(costs.looking(&history.open));
        let fresh = epoch.faults.saturating_mul(costs.fault + costs.arm);
        let regret = history.regret.saturating_add(fresh).saturating_sub(more);
        // Just below the price, so that the next fault opens.
        history.regret = regret.min(price - 1);
        false
    }
}

/// The runs of a set, those with small gaps between them joined.
pub fn spans(bits: &Bits, gap: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut runs = bits.runs().peekable();
    core::iter::from_fn(move || {
        let (first, len) = runs.next()?;
        let mut end = first + len;
        while let Some(&(next, len)) = runs.peek() {
            if next - end > gap {
                break;
            }
            end = next + len;
            runs.next();
        }
        Some((first, end - first))
    })
}

#[cfg(test)]
mod tests;
