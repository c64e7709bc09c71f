// SPDX-License-Identifier: GPL-2.0-only
//! Closing an epoch, with a snapshot of what changed or without.

use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::Instant;
use kernel::time::Monotonic;

use super::Arena;
use super::Committed;
use super::EPOCH_MAX;
use crate::mm::barrier::WriteGuard;
use crate::mm::clock;
use crate::mm::direct::Direct;
use crate::mm::direct::OwnMap;
use crate::mm::mapping;
use crate::mm::mapping::Work;
use crate::snapshot::Draft;
use crate::snapshot::Snapshot;
use crate::snapshot::Terms;
use crate::subscription::Subscription;
use crate::tracking::bits::Bits;
use crate::tracking::index::Harvested;
use crate::tracking::tracker::Costs;
use crate::tracking::tracker::Hardware;
use crate::tracking::tracker::Plan;
use crate::uapi;

/// A snapshot that a commit is to make, and room for its list of chunks.
struct Wanted {
    terms: Terms,
    draft: Draft,
}

/// Who learns of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// All who wait for one, or look.
    Everybody,
    /// The caller: see `CKPT_COMMIT_QUIET`.
    Nobody,
}

impl Arena {
    /// Closes the epoch: see `CKPT_IOC_COMMIT`.
    pub(crate) fn commit(&self, told: Told) -> Result<Committed> {
        Ok(self.commit_with(told, None)?.0)
    }

    /// Closes the epoch and freezes what changed after `since`: see `CKPT_COMMIT_SNAPSHOT`.
    ///
    /// The caller sees to it that the snapshot is [released](Arena::release).
    pub(crate) fn commit_with_snapshot(
        &self,
        told: Told,
        since: u64,
        reserve: u64,
    ) -> Result<(Committed, Arc<Snapshot>)> {
        let terms = Terms {
            since,
            reserve,
            yields: false,
        };
        // Made before anybody has to wait.
        let draft = self.draft()?;
        let (committed, snapshot) = self.commit_with(told, Some(Wanted { terms, draft }))?;
        Ok((committed, snapshot.ok_or(ENOMEM)??))
    }

    fn draft(&self) -> Result<Draft> {
        Draft::new(self.draft_len.load(Ordering::Relaxed) as usize)
    }

    fn commit_with(
        &self,
        told: Told,
        own: Option<Wanted>,
    ) -> Result<(Committed, Option<Result<Arc<Snapshot>>>)> {
        let map = OwnMap::lock(&self.areas)?;
        let guard = self.barrier.write_killable()?;
        let begun = Instant::<Monotonic>::now();
        let epoch = self.next_epoch()?;
        if let Some(wanted) = &own {
            if wanted.terms.since > self.epoch() {
                return Err(ERANGE);
            }
            // None is added before the barrier is released.
            let mut snapshots = self.snapshots.lock();
            if snapshots.len() >= uapi::CKPT_SNAPSHOTS_MAX as usize {
                return Err(EBUSY);
            }
            snapshots.reserve(1, GFP_KERNEL)?;
        }
        let subscriptions = match told {
            Told::Everybody => self.take_subscriptions(),
            // They wait for the next one, whose snapshots begin at their cursors.
            Told::Nobody => KVec::new(),
        };
        let freezes = own.is_some() || !subscriptions.is_empty();
        let mut entries = Entries::begin(self, map.as_ref());
        let harvested = self.index.harvest(epoch, freezes, &mut entries);
        let snapshot = own.map(|wanted| self.freeze(epoch, wanted, &mut entries));
        let made = self.freeze_for(epoch, &subscriptions, &mut entries);
        let committed = self.close(epoch, told, &harvested, entries, begun, guard);
        if !subscriptions.is_empty() {
            self.settle(&subscriptions, made);
        }
        Ok((committed, snapshot))
    }

    /// Freezes what a snapshot is to hold, and puts it on the list.
    fn freeze(
        &self,
        epoch: u64,
        wanted: Wanted,
        entries: &mut Entries<'_>,
    ) -> Result<Arc<Snapshot>> {
        let Wanted { terms, mut draft } = wanted;
        // Pages that were frozen for nothing are thawed by their next write.
        self.index
            .freeze(terms.since, entries, |first, pages| draft.add(first, pages))?;
        self.open_snapshot(epoch, terms, draft)
    }

    /// As above, for those who wait for a commit. One for each of them, as far as there is
    /// memory for the list.
    fn freeze_for(
        &self,
        epoch: u64,
        subscriptions: &[Arc<Subscription>],
        entries: &mut Entries<'_>,
    ) -> KVec<Result<Arc<Snapshot>>> {
        let mut all = KVec::new();
        if subscriptions.is_empty() || all.reserve(subscriptions.len(), GFP_KERNEL).is_err() {
            return all;
        }
        for subscription in subscriptions {
            let terms = Terms {
                since: subscription.since,
                reserve: subscription.reserve,
                yields: true,
            };
            let room = {
                let mut snapshots = self.snapshots.lock();
                match snapshots.len() >= uapi::CKPT_SNAPSHOTS_MAX as usize {
                    true => Err(EBUSY),
                    false => snapshots.reserve(1, GFP_KERNEL).map_err(Error::from),
                }
            };
            let made = room
                .and_then(|()| self.draft())
                .and_then(|draft| self.freeze(epoch, Wanted { terms, draft }, entries));
            // There is room.
            let _ = all.push_within_capacity(made);
        }
        all
    }

    /// Hands snapshots to those who waited for them. Everything is flushed.
    fn settle(&self, subscriptions: &[Arc<Subscription>], made: KVec<Result<Arc<Snapshot>>>) {
        let mut made = made.into_iter();
        for subscription in subscriptions {
            let unwanted = subscription.settle(made.next().unwrap_or(Err(ENOMEM)));
            if let Some(snapshot) = unwanted {
                self.release(&snapshot);
            }
        }
        self.committed.notify_all();
    }

    fn next_epoch(&self) -> Result<u64> {
        match self.epoch.load(Ordering::Relaxed) {
            epoch if epoch >= EPOCH_MAX => Err(EOVERFLOW),
            epoch => Ok(epoch + 1),
        }
    }

    /// The end of a commit: makes the epoch known and lets writers go on.
    fn close(
        &self,
        epoch: u64,
        told: Told,
        harvested: &Harvested,
        entries: Entries<'_>,
        begun: Instant<Monotonic>,
        guard: WriteGuard<'_>,
    ) -> Committed {
        // Flushes.
        entries.end();
        if told == Told::Everybody {
            // Before the epoch is known: who sees that and requests a commit means the next one.
            self.control.fields().pending.store(0, Ordering::Relaxed);
        }
        self.epoch.store(epoch, Ordering::Release);
        if told == Told::Everybody {
            self.control.fields().epoch.store(epoch, Ordering::Release);
            self.committed_ns
                .store(clock::boottime_ns(), Ordering::Relaxed);
        }
        let ns = begun.elapsed().as_nanos() as u64;
        drop(guard);
        self.stats.commit(harvested, ns);
        if told == Told::Everybody {
            self.committed.notify_all();
            self.progress.tell();
        }
        Committed {
            epoch,
            pages: harvested.changed,
            ns,
        }
    }

    /// Puts a snapshot on the list, with the barrier held for writing.
    fn open_snapshot(&self, epoch: u64, terms: Terms, draft: Draft) -> Result<Arc<Snapshot>> {
        let pages = draft.pages();
        let wanted = match terms.reserve {
            0 => pages,
            some => some.min(pages),
        };
        let granted = self.charge.borrow(wanted);
        let mut made = Err(ENOMEM);
        if granted != 0 || wanted == 0 {
            self.draft_len.store(draft.len() as u64, Ordering::Relaxed);
            made = Arc::pin_init(Snapshot::new(epoch, terms, draft, granted), GFP_KERNEL);
        }
        let mut snapshots = self.snapshots.lock();
        let made = made.and_then(|snapshot| {
            snapshots
                .push_within_capacity(snapshot.clone())
                .map_err(|_| ENOMEM)?;
            Ok(snapshot)
        });
        drop(snapshots);
        match &made {
            Ok(_) => self.stats.snapshot(pages),
            Err(_) => self.charge.give_back(granted),
        }
        made
    }
}

/// The page-table entries of an arena's pages. Used with the barrier held for writing.
struct Entries<'a> {
    arena: &'a Arena,
    direct: Option<Direct<'a>>,
    work: Work,
    direct_harvests: u64,
}

impl<'a> Entries<'a> {
    fn begin(arena: &'a Arena, map: Option<&'a OwnMap>) -> Self {
        Entries {
            arena,
            direct: map.and_then(|map| Direct::begin(map, &arena.mapping, &arena.areas)),
            work: Work::default(),
            direct_harvests: 0,
        }
    }

    /// Flushes what has to be.
    fn end(mut self) {
        let stats = &self.arena.stats;
        if let Some(direct) = &mut self.direct {
            direct.flush();
            self.arena.areas.set_spare(direct.spare());
            stats.flushes.add(direct.flushes);
        }
        stats.rearmed_spans.add(self.work.passes);
        stats.rearmed_pages.add(self.work.entries);
        stats.flushes.add(self.work.passes);
        stats.direct_harvests.add(self.direct_harvests);
    }
}

impl Hardware for Entries<'_> {
    fn costs(&self) -> &'static Costs {
        match self.direct {
            Some(_) => &Costs::DIRECT,
            None => mapping::COSTS,
        }
    }

    fn harvest(&mut self, first: u64, plan: &Plan) -> Bits {
        if let Some(direct) = &mut self.direct {
            self.direct_harvests += 1;
            return direct.harvest(first, plan);
        }
        let arena = self.arena;
        arena
            .mapping
            .harvest(first, plan, |pgoff| arena.page(pgoff), &mut self.work)
    }

    fn pinned(&mut self, first: u64, pages: &Bits) -> Bits {
        let mut pinned = Bits::default();
        let possible = self.direct.as_ref().is_none_or(Direct::may_be_pinned);
        let table = self
            .arena
            .index
            .get(first)
            .and_then(|chunk| chunk.payload());
        if let (true, Some(table)) = (possible, table) {
            for page in pages.iter() {
                let folio = table.get(page as u64);
                if folio.is_some_and(|folio| folio.maybe_dma_pinned()) {
                    pinned.insert(page);
                }
            }
        }
        pinned
    }
}
