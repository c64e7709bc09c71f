// SPDX-License-Identifier: GPL-2.0-only
//! An arena: its pages, which of them changed, and its epochs.

use core::ops::ControlFlow;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use kernel::iov::IovIterDest;
use kernel::page::PAGE_SHIFT;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::poll::PollCondVar;
use kernel::sync::Arc;
use kernel::time::Instant;
use kernel::time::Monotonic;

use crate::charge::Charge;
use crate::mm::barrier::Barrier;
use crate::mm::clock;
use crate::mm::fault::Fault;
use crate::mm::fault::Faults;
use crate::mm::fault::Outcome;
use crate::mm::file::read_zeros;
use crate::mm::folio::Folio;
use crate::mm::folio::FolioRef;
use crate::mm::folio::FolioTable;
use crate::mm::heap::KernelHeap;
use crate::mm::mapping::Mapping;
use crate::mm::mapping::Noting;
use crate::mm::owner::Owner;
use crate::stats::Stats;
use crate::tracking::bits::Bits;
use crate::tracking::chunk::Chunk;
use crate::tracking::index::Index;
use crate::tracking::index::Walk;
use crate::tracking::index::MAX_PAGES;
use crate::tracking::ranges::Gather;
use crate::tracking::ranges::Range;
use crate::tracking::tracker::Hardware;
use crate::tracking::tracker::Tracker;
use crate::uapi;

const _: () = assert!(uapi::CKPT_ARENA_MAX_BYTES >> PAGE_SHIFT <= MAX_PAGES);

/// Last epoch there can be.
pub(crate) const EPOCH_MAX: u64 = i64::MAX as u64;

/// Chunks that a delta looks into before it lets a waiting commit pass.
const WALK_BUDGET: u32 = 64;

/// A name, NUL-terminated.
pub(crate) type Name = [u8; uapi::CKPT_NAME_MAX as usize];

/// What an arena is made with, checked.
pub(crate) struct Geometry {
    /// Bytes, a multiple of the page size.
    pub(crate) len_bytes: u64,
    /// Epoch before the first commit.
    pub(crate) epoch: u64,
    /// For people.
    pub(crate) name: Name,
    /// Not to be opened by id.
    pub(crate) private: bool,
}

/// What a commit did.
pub(crate) struct Committed {
    /// The epoch closed.
    pub(crate) epoch: u64,
    /// Pages stamped with it.
    pub(crate) pages: u64,
    /// Time for which writers were held up.
    pub(crate) ns: u64,
}

/// A run of pages owned by the module.
///
/// # Invariants
///
/// A writable page-table entry of one of its pages exists only while the page is noted:
/// both change together under `barrier`. Pages, once there, stay until the arena goes.
#[pin_data(PinnedDrop)]
pub(crate) struct Arena {
    /// Never used again while the module is loaded.
    pub(crate) id: u64,
    geometry: Geometry,
    created_ns: u64,
    /// Faults hold it for reading while they note a page and open its entry; a commit holds
    /// it for writing.
    #[pin]
    barrier: Barrier,
    /// Before `mapping`: its pages belong to that.
    index: Index<FolioTable, KernelHeap>,
    mapping: Mapping,
    epoch: AtomicU64,
    committed_ns: AtomicU64,
    #[pin]
    charge: Charge,
    stats: Stats,
    /// Told of every commit.
    #[pin]
    committed: PollCondVar,
}

impl Arena {
    /// An arena of the calling process, behind an address space of its own.
    pub(crate) fn create(id: u64, geometry: Geometry, mapping: Mapping) -> Result<Arc<Self>> {
        let arena = Arc::pin_init(Self::new(id, geometry, mapping), GFP_KERNEL)?;
        // SAFETY: The arena does not move, and takes its pages out of the mapping first thing
        // when it is dropped.
        unsafe { arena.mapping.tell::<Self>(&*arena) };
        Ok(arena)
    }

    fn new(id: u64, geometry: Geometry, mapping: Mapping) -> impl PinInit<Self, Error> {
        let epoch = geometry.epoch;
        try_pin_init!(Self {
            id,
            geometry,
            created_ns: clock::boottime_ns(),
            barrier <- Barrier::new(),
            index: Index::new(Tracker::armed()),
            mapping,
            epoch: AtomicU64::new(epoch),
            committed_ns: AtomicU64::new(0),
            charge <- Charge::new(),
            stats: Stats::default(),
            committed <- kernel::new_poll_condvar!("ckpt::Arena::committed"),
        })
    }

    /// Pages of the arena, with memory or not.
    pub(crate) fn len_pages(&self) -> u64 {
        self.geometry.len_bytes >> PAGE_SHIFT
    }

    /// Size in bytes.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.geometry.len_bytes
    }

    /// The address space.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Who made it.
    pub(crate) fn owner(&self) -> &Owner {
        self.charge.owner()
    }

    /// Whether the calling process may open it.
    pub(crate) fn lets_in(&self) -> bool {
        self.owner().lets_in(self.geometry.private)
    }

    /// The last commit, or the epoch the arena began with.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What is told of every commit.
    pub(crate) fn committed(&self) -> &PollCondVar {
        &self.committed
    }

    /// Charges so that `pages` pages in all can get memory.
    pub(crate) fn reserve(&self, pages: u64) -> Result<u64> {
        if pages > self.len_pages() {
            return Err(EINVAL);
        }
        self.charge.reserve(pages)
    }

    fn page(&self, pgoff: u64) -> Option<FolioRef<'_>> {
        self.index.get(pgoff)?.payload()?.get(pgoff)
    }

    /// A page, given memory now if it has none.
    fn page_or_new(&self, pgoff: u64) -> Result<FolioRef<'_>, Outcome> {
        if let Some(folio) = self.page(pgoff) {
            return Ok(folio);
        }
        let chunk: &Chunk<FolioTable, KernelHeap> =
            self.index.chunk(pgoff).map_err(|_| Outcome::NO_MEMORY)?;
        let table = chunk.payload().ok_or(Outcome::NO_MEMORY)?;
        let folio = Folio::new(&self.mapping, pgoff).map_err(|_| Outcome::NO_MEMORY)?;
        // What comes back is of no use: another fault on the same page was faster.
        self.charge
            .install(table, pgoff, folio)
            .map_err(|_| Outcome::REFUSED)?;
        table.get(pgoff).ok_or(Outcome::NO_MEMORY)
    }

    /// Closes the epoch: see `CKPT_IOC_COMMIT`.
    pub(crate) fn commit(&self) -> Result<Committed> {
        let guard = self.barrier.write_killable()?;
        let begun = Instant::<Monotonic>::now();
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch >= EPOCH_MAX {
            return Err(EOVERFLOW);
        }
        let epoch = epoch + 1;
        let harvested = self.index.harvest(epoch, &mut Entries { arena: self });
        self.epoch.store(epoch, Ordering::Release);
        self.committed_ns
            .store(clock::boottime_ns(), Ordering::Relaxed);
        let ns = begun.elapsed().as_nanos() as u64;
        drop(guard);
        self.stats.commit(harvested.changed, ns);
        self.committed.notify_all();
        Ok(Committed {
            epoch,
            pages: harvested.changed,
            ns,
        })
    }

    /// Tells `give` the pages at or after `start` stamped after `since`, at most
    /// `capacity` runs of them. Returns where to go on, if there is more.
    ///
    /// `give` is called without any lock held, so it may touch user memory.
    pub(crate) fn delta<F>(
        &self,
        since: u64,
        start: u64,
        gather: &mut Gather,
        mut give: F,
    ) -> Result<Option<u64>>
    where
        F: FnMut(Range) -> Result,
    {
        self.stats.deltas.add(1);
        let mut ready = KVec::<Range>::with_capacity(READY_RANGES, GFP_KERNEL)?;
        let mut from = start;
        loop {
            let mut full = false;
            let guard = self.barrier.read();
            let mut walk = Walk {
                since,
                budget: WALK_BUDGET,
                found: |first, len| {
                    if ready.len() == ready.capacity() {
                        return ControlFlow::Break(first);
                    }
                    let put = gather.put(first, len, |done| {
                        // Cannot fail: there was room.
                        let _ = ready.push_within_capacity(done);
                    });
                    full = put.is_break();
                    put
                },
            };
            let paused = self.index.changed_since(from, &mut walk);
            drop(guard);
            for done in ready.drain_all() {
                give(done)?;
            }
            let more = match paused {
                ControlFlow::Break(at) if !full => {
                    from = at;
                    continue;
                }
                ControlFlow::Break(at) => Some(at),
                ControlFlow::Continue(()) => None,
            };
            gather.finish().map_or(Ok(()), &mut give)?;
            return Ok(more);
        }
    }

    /// Reads the content as it is now.
    pub(crate) fn read(&self, pos: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        let mut done = 0;
        while !to.is_empty() {
            let pos = pos + done as u64;
            if pos >= self.len_bytes() {
                break;
            }
            let offset = pos as usize % PAGE_SIZE;
            let len = to.len().min(PAGE_SIZE - offset);
            let copied = match self.page(pos >> PAGE_SHIFT) {
                Some(folio) => folio.copy_to(offset, len, to),
                None => read_zeros(len, to),
            };
            done += copied;
            if copied < len {
                if done == 0 {
                    return Err(EFAULT);
                }
                break;
            }
        }
        Ok(done)
    }

    /// The facts of `struct ckpt_info`.
    pub(crate) fn info(&self) -> uapi::ckpt_info {
        let private = match self.geometry.private {
            true => uapi::CKPT_INFO_PRIVATE,
            false => 0,
        };
        uapi::ckpt_info {
            size: size_of::<uapi::ckpt_info>() as u32,
            flags: private,
            id: self.id,
            len_bytes: self.len_bytes(),
            epoch: self.epoch(),
            resident_pages: self.charge.pages().0,
            changed_pages: self.index.noted(),
            created_ns: self.created_ns,
            committed_ns: self.committed_ns.load(Ordering::Relaxed),
            uid: self.owner().uid(),
            pid: self.owner().pid(),
            tracker: uapi::CKPT_TRACKER_ARMED,
            page_shift: PAGE_SHIFT as u32,
            name: self.geometry.name,
        }
    }

    /// The facts of `struct ckpt_stats`.
    pub(crate) fn stats(&self) -> uapi::ckpt_stats {
        let (resident_pages, charged_pages) = self.charge.pages();
        let own = size_of::<Self>() as u64;
        let stats = &self.stats;
        uapi::ckpt_stats {
            size: size_of::<uapi::ckpt_stats>() as u32,
            flags: 0,
            resident_pages,
            charged_pages,
            bytes_held: (resident_pages << PAGE_SHIFT) + self.index.bytes_held() + own,
            read_faults: stats.read_faults.get(),
            write_faults: stats.write_faults.get(),
            late_notes: stats.late_notes.get(),
            commits: stats.commits.get(),
            committed_pages: stats.committed_pages.get(),
            rearmed_spans: stats.rearmed_spans.get(),
            rearmed_pages: stats.rearmed_pages.get(),
            commit_ns: stats.commit_ns.get(),
            commit_ns_max: stats.commit_ns_max(),
            commit_ns_last: stats.commit_ns_last(),
            deltas: stats.deltas.get(),
            open_pages: 0,
            open_chunks: 0,
            chunks: 0,
            chunk_openings: 0,
            kept_pages: 0,
            closed_pages: 0,
            direct_harvests: 0,
            harvested_ptes: 0,
            flushes: 0,
            snapshots: 0,
            snapshots_made: 0,
            frozen_pages: 0,
            copied_pages: 0,
            copy_waits: 0,
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Arena {
    fn drop(self: Pin<&mut Self>) {
        // Nothing maps the arena any more. After this nobody can note a page either, so the
        // index can go.
        self.index.each_payload(FolioTable::detach);
    }
}

/// Runs that a delta gathers under the barrier before it hands them on.
const READY_RANGES: usize = 128;

impl Faults for Arena {
    fn fault(&self, fault: &Fault<'_>) -> Outcome {
        let pgoff = fault.pgoff();
        let folio = match self.page_or_new(pgoff) {
            Ok(folio) => folio,
            Err(outcome) => return outcome,
        };
        if !fault.is_write() {
            self.stats.read_faults.add(1);
            return fault.insert(folio, false);
        }
        self.stats.write_faults.add(1);
        // The note and the entry change in one step as a commit sees it: else a commit in
        // between would take the note, arm the page, and miss what is written after.
        let _guard = self.barrier.read();
        self.index.note(pgoff);
        fault.insert(folio, true)
    }

    fn make_writable(&self, fault: &Fault<'_>) -> Outcome {
        self.stats.write_faults.add(1);
        // As above. The kernel must not change the entry itself once this returns, so the
        // outcome says that nothing is left to do.
        let _guard = self.barrier.read();
        self.index.note(fault.pgoff());
        fault.make_writable()
    }
}

impl Noting for Arena {
    fn note_late(&self, pgoff: u64) {
        if self.index.note(pgoff) {
            self.stats.late_notes.add(1);
        }
    }
}

/// The page-table entries of an arena's pages. Used with the barrier held for writing.
struct Entries<'a> {
    arena: &'a Arena,
}

impl Hardware for Entries<'_> {
    fn rearm(&mut self, first: u64, len: u64) -> Bits {
        self.arena.stats.rearmed_spans.add(1);
        self.arena.stats.rearmed_pages.add(len);
        self.arena
            .mapping
            .rearm(first, len, |pgoff| self.arena.page(pgoff))
    }

    fn pinned(&mut self, page: u64) -> bool {
        self.arena
            .page(page)
            .is_some_and(|folio| folio.maybe_dma_pinned())
    }
}
