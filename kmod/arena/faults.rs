// SPDX-License-Identifier: GPL-2.0-only
//! Faults on an arena's pages, and writes that no fault tells of.

use super::frozen::Aside;
use super::Arena;
use crate::mm::areas::Areas;
use crate::mm::copies::PageCopy;
use crate::mm::fault::Fault;
use crate::mm::fault::Faults;
use crate::mm::fault::Outcome;
use crate::mm::mapping::Noting;
use crate::mm::wait::Seen;

impl Arena {
    /// Serves a write to a page that exists: notes it, and has `entry` make the page-table
    /// entry writable. `wait` is asked to wait for the event when the page is frozen and
    /// cannot be copied aside now; if it `must`, it is copied beyond the reserve.
    fn write(
        &self,
        fault: &Fault<'_>,
        counts: bool,
        must: bool,
        entry: impl Fn() -> Outcome,
        wait: impl FnOnce(Seen) -> Outcome,
    ) -> Outcome {
        let pgoff = fault.pgoff();
        let (Some(chunk), Some(folio)) = (self.index.get(pgoff), self.page(pgoff)) else {
            return Outcome::REFUSED;
        };
        self.stats.write_faults.add(1);
        loop {
            let epoch = self.epoch();
            let copy = match chunk.is_frozen(pgoff) {
                true => match PageCopy::of(folio) {
                    Ok(copy) => Some(copy),
                    Err(_) => return Outcome::NO_MEMORY,
                },
                false => None,
            };
            // The note and the entry change in one step as a commit sees it: else a commit in
            // between would take the note, arm the page, and miss what is written after.
            let guard = self.barrier.read();
            let frozen = chunk.is_frozen(pgoff);
            if frozen {
                // A copy is of the frozen page only if no commit came since: the page could
                // have been thawed, written and frozen again.
                let Some(copy) = copy.filter(|_| self.epoch() == epoch) else {
                    continue;
                };
                let seen = self.thawed.seen();
                match self.copy_aside(chunk, pgoff, copy, must) {
                    Ok(Aside::Done) => {}
                    Ok(Aside::Never) => return Outcome::REFUSED,
                    Ok(Aside::Later) => {
                        drop(guard);
                        self.stats.copy_waits.add(1);
                        return wait(seen);
                    }
                    Err(_) => return Outcome::NO_MEMORY,
                }
            }
            // A frozen page would have faulted in an open chunk, too.
            if counts && !frozen && chunk.count_fault(pgoff, epoch, self.index.tracker()) {
                self.stats.chunk_openings.add(1);
                chunk.opened(&fault.open_chunk(&chunk.frozen()));
            }
            self.index.note(pgoff);
            return entry();
        }
    }
}

impl Faults for Arena {
    fn fault(&self, fault: &Fault<'_>) -> Outcome {
        let pgoff = fault.pgoff();
        let folio = match self.page_or_new(pgoff) {
            Ok(folio) => folio,
            Err(outcome) => return outcome,
        };
        self.areas.move_spare(pgoff);
        if !fault.is_write() {
            self.stats.read_faults.add(1);
            return fault.insert(folio, false);
        }
        self.write(
            fault,
            false,
            // A debugger's access cannot let go of the lock of the memory map, and consumers in
            // that process may need it to go on.
            !fault.can_wait(),
            || fault.insert(folio, true),
            |seen| fault.wait(|patience| self.thawed.wait(seen, patience)),
        )
    }

    fn make_writable(&self, fault: &Fault<'_>) -> Outcome {
        self.write(
            fault,
            true,
            false,
            // The kernel must not change the entry itself once this returns, so the outcome
            // says that nothing is left to do.
            || fault.make_writable(),
            // Here it cannot be known which lock would have to be released for the wait. It
            // can in `fault`, which gets the next try when there is no entry.
            |_| {
                self.mapping.unmap(fault.pgoff(), 1);
                Outcome::AGAIN
            },
        )
    }

    fn areas(&self) -> &Areas {
        &self.areas
    }
}

impl Noting for Arena {
    fn note_late(&self, pgoff: u64) {
        if self.index.note(pgoff) {
            self.stats.late_notes.add(1);
        }
    }
}
