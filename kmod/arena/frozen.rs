// SPDX-License-Identifier: GPL-2.0-only
//! Pages that snapshots hold: copying them aside, and thawing them.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::Arena;
use super::ArenaChunk;
use crate::mm::copies::PageCopy;
use crate::mm::wait::Thread;
use crate::snapshot::Snapshot;
use crate::tracking::bits::Bits;
use crate::tracking::bits::CHUNK_PAGES;

/// What came of a page that had to be copied aside.
pub(super) enum Aside {
    Done,
    /// Not before a consumer thaws something.
    Later,
    /// The consumer is the one that waits.
    Never,
}

impl Arena {
    /// Takes pages `from .. to` out of a snapshot, which is held for reading, or closed.
    pub(crate) fn thaw(&self, snapshot: &Arc<Snapshot>, from: u64, to: u64) {
        // A commit freezes pages before its snapshot is on the list.
        let guard = self.barrier.read();
        let snapshots = self.snapshots.lock();
        snapshot.take_out(from, to, |first, pages| {
            let mut thaw = *pages;
            for other in snapshots.iter().filter(|one| !Arc::ptr_eq(one, snapshot)) {
                thaw = thaw.minus(&other.frozen(first));
            }
            if let Some(chunk) = self.index.get(first) {
                chunk.thaw(&thaw);
            }
        });
        drop(snapshots);
        drop(guard);
        self.thawed.tell();
    }

    /// Ends a snapshot.
    pub(crate) fn release(&self, snapshot: &Arc<Snapshot>) {
        self.thaw(snapshot, 0, self.len_pages());
        self.snapshots
            .lock()
            .retain(|one| !Arc::ptr_eq(one, snapshot));
        self.charge.give_back(snapshot.reserve);
        self.stats.snapshots_closed.add(1);
    }

    /// Gives a copy of a page to the snapshots that need one, and thaws the page. The barrier
    /// is held, so no snapshot is added.
    pub(super) fn copy_aside(
        &self,
        chunk: &ArenaChunk,
        pgoff: u64,
        copy: PageCopy,
        must: bool,
    ) -> Result<Aside> {
        let snapshots = self.snapshots.lock();
        let mut copies = 0;
        for snapshot in snapshots.iter().filter(|one| one.needs(pgoff)) {
            let room = snapshot.has_room(pgoff, must);
            if !matches!(room, Ok(true)) && snapshot.yield_to_writers() {
                continue;
            }
            if !room? {
                let own = snapshots
                    .iter()
                    .any(|one| one.is_read_by(Thread::current()));
                return Ok(if own { Aside::Never } else { Aside::Later });
            }
            copies += 1;
        }
        for snapshot in snapshots.iter().filter(|one| one.needs(pgoff)) {
            snapshot.keep(pgoff, copy.clone());
        }
        let page = pgoff as usize % CHUNK_PAGES;
        chunk.thaw(&Bits::range(page, page + 1));
        self.stats.copied_pages.add(copies);
        Ok(Aside::Done)
    }
}
