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
use crate::tracking::bits::Bits;
use crate::tracking::index::Harvested;
use crate::tracking::tracker::Costs;
use crate::tracking::tracker::Hardware;
use crate::tracking::tracker::Plan;
use crate::uapi;

impl Arena {
    /// Closes the epoch: see `CKPT_IOC_COMMIT`.
    pub(crate) fn commit(&self) -> Result<Committed> {
        let map = OwnMap::lock(&self.areas)?;
        let guard = self.barrier.write_killable()?;
        let begun = Instant::<Monotonic>::now();
        let epoch = self.next_epoch()?;
        let mut entries = Entries::begin(self, map.as_ref());
        let harvested = self.index.harvest(epoch, false, &mut entries);
        Ok(self.close(epoch, &harvested, entries, begun, guard))
    }

    /// Closes the epoch and freezes what changed after `since`: see `CKPT_COMMIT_SNAPSHOT`.
    ///
    /// The caller sees to it that the snapshot is [released](Arena::release).
    pub(crate) fn commit_with_snapshot(
        &self,
        since: u64,
        reserve: u64,
    ) -> Result<(Committed, Arc<Snapshot>)> {
        // Made before anybody has to wait.
        let mut draft = Draft::new(self.draft_len.load(Ordering::Relaxed) as usize)?;
        let map = OwnMap::lock(&self.areas)?;
        let guard = self.barrier.write_killable()?;
        let begun = Instant::<Monotonic>::now();
        if since > self.epoch() {
            return Err(ERANGE);
        }
        let epoch = self.next_epoch()?;
        {
            // None is added before the barrier is released.
            let mut snapshots = self.snapshots.lock();
            if snapshots.len() >= uapi::CKPT_SNAPSHOTS_MAX as usize {
                return Err(EBUSY);
            }
            snapshots.reserve(1, GFP_KERNEL)?;
        }
        let mut entries = Entries::begin(self, map.as_ref());
        let harvested = self.index.harvest(epoch, true, &mut entries);
        let frozen = self
            .index
            .freeze(since, &mut entries, |first, pages| draft.add(first, pages));
        // Pages that were frozen for nothing are thawed by their next write.
        let snapshot = frozen.and_then(|()| self.open_snapshot(epoch, since, reserve, draft));
        let committed = self.close(epoch, &harvested, entries, begun, guard);
        Ok((committed, snapshot?))
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
        harvested: &Harvested,
        entries: Entries<'_>,
        begun: Instant<Monotonic>,
        guard: WriteGuard<'_>,
    ) -> Committed {
        // Flushes.
        entries.end();
        self.epoch.store(epoch, Ordering::Release);
        self.committed_ns
            .store(clock::boottime_ns(), Ordering::Relaxed);
        let ns = begun.elapsed().as_nanos() as u64;
        drop(guard);
        self.stats.commit(harvested, ns);
        self.committed.notify_all();
        Committed {
            epoch,
            pages: harvested.changed,
            ns,
        }
    }

    /// Puts a snapshot on the list, with the barrier held for writing.
    fn open_snapshot(
        &self,
        epoch: u64,
        since: u64,
        reserve: u64,
        draft: Draft,
    ) -> Result<Arc<Snapshot>> {
        let pages = draft.pages();
        let wanted = match reserve {
            0 => pages,
            some => some.min(pages),
        };
        let granted = self.charge.borrow(wanted);
        let mut made = Err(ENOMEM);
        if granted != 0 || wanted == 0 {
            self.draft_len.store(draft.len() as u64, Ordering::Relaxed);
            made = Arc::pin_init(Snapshot::new(epoch, since, draft, granted), GFP_KERNEL);
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
