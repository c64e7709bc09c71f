// SPDX-License-Identifier: GPL-2.0-only
//! An arena: its pages, which of them changed, and its epochs.

use core::ops::ControlFlow;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

use kernel::iov::IovIterDest;
use kernel::new_mutex;
use kernel::page::PAGE_SHIFT;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::poll::PollCondVar;
use kernel::sync::Arc;
use kernel::sync::Mutex;

use crate::charge::Charge;
use crate::mm::areas::Areas;
use crate::mm::barrier::Barrier;
use crate::mm::clock;
use crate::mm::control::ControlPage;
use crate::mm::fault::Outcome;
use crate::mm::file::read_zeros;
use crate::mm::folio::Folio;
use crate::mm::folio::FolioRef;
use crate::mm::folio::FolioTable;
use crate::mm::heap::KernelHeap;
use crate::mm::mapping;
use crate::mm::mapping::Mapping;
use crate::mm::owner::Owner;
use crate::mm::program::Program;
use crate::mm::wait::Event;
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::subscription::Subscription;
use crate::tracking::chunk::Chunk;
use crate::tracking::index::Index;
use crate::tracking::index::Walk;
use crate::tracking::index::MAX_PAGES;
use crate::tracking::ranges::Gather;
use crate::tracking::ranges::Range;
use crate::tracking::tracker::Tracker;
use crate::uapi;

mod commit;
mod consumers;
mod faults;
mod frozen;
mod handover;

type ArenaChunk = Chunk<FolioTable, KernelHeap>;

const _: () = assert!(uapi::CKPT_ARENA_MAX_BYTES >> PAGE_SHIFT <= MAX_PAGES);

pub(crate) use commit::Told;
pub(crate) use consumers::Level;

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
/// A writable page-table entry of one of its pages exists only while the page is noted or
/// open, and none of a page that is frozen: both change together under `barrier`. Pages,
/// once there, stay until the arena goes.
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
    #[pin]
    areas: Areas,
    /// Those open. Only a commit adds to it, and to the frozen pages of the index, which are
    /// those that a snapshot here needs.
    #[pin]
    snapshots: Mutex<KVec<Arc<Snapshot>>>,
    /// Told when pages were thawed.
    #[pin]
    thawed: Event,
    /// Chunks of the last snapshot: what the next one makes room for.
    draft_len: AtomicU64,
    epoch: AtomicU64,
    committed_ns: AtomicU64,
    #[pin]
    charge: Charge,
    #[pin]
    program: Program,
    /// Descriptors that keep it for a program to come.
    keepers: AtomicU32,
    stats: Stats,
    /// Those who wait for the next commit, and how many they are.
    #[pin]
    subscriptions: Mutex<KVec<Arc<Subscription>>>,
    subscribed: AtomicUsize,
    control: ControlPage,
    /// Told when an epoch was closed or acknowledged.
    #[pin]
    progress: Event,
    /// Told of every commit and every request for one.
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
        let begun = geometry.epoch;
        try_pin_init!(Self {
            id,
            geometry,
            created_ns: clock::boottime_ns(),
            barrier <- Barrier::new(c"ckpt::Arena::barrier", kernel::static_lock_class!()),
            index: Index::new(Tracker::new(crate::policy())),
            mapping,
            areas <- Areas::new(),
            snapshots <- new_mutex!(KVec::new()),
            thawed <- Event::new(),
            draft_len: AtomicU64::new(0),
            epoch: AtomicU64::new(begun),
            committed_ns: AtomicU64::new(0),
            charge <- Charge::new(),
            program <- Program::current(),
            keepers: AtomicU32::new(0),
            stats: Stats::default(),
            subscriptions <- new_mutex!(KVec::new()),
            subscribed: AtomicUsize::new(0),
            control: ControlPage::new(begun)?,
            progress <- Event::new(),
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

    /// The last epoch that was closed, quietly or not, or the one that the arena began with.
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

    /// A page, if it has memory.
    pub(crate) fn page(&self, pgoff: u64) -> Option<FolioRef<'_>> {
        self.index.get(pgoff)?.payload()?.get(pgoff)
    }

    /// A page, given memory now if it has none.
    fn page_or_new(&self, pgoff: u64) -> Result<FolioRef<'_>, Outcome> {
        if let Some(folio) = self.page(pgoff) {
            return Ok(folio);
        }
        let chunk: &ArenaChunk = self.index.chunk(pgoff).map_err(|_| Outcome::NO_MEMORY)?;
        let table = chunk.payload().ok_or(Outcome::NO_MEMORY)?;
        let folio = Folio::new(&self.mapping, pgoff).map_err(|_| Outcome::NO_MEMORY)?;
        // What comes back is of no use: another fault on the same page was faster.
        self.charge
            .install(table, pgoff, folio)
            .map_err(|_| Outcome::REFUSED)?;
        table.get(pgoff).ok_or(Outcome::NO_MEMORY)
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
        F: FnMut(&[Range]) -> Result,
    {
        self.stats.deltas.add(1);
        if self.index.newest() <= since {
            return Ok(None);
        }
        let mut ready = KVec::<Range>::with_capacity(READY_RANGES, GFP_KERNEL)?;
        let mut from = start;
        loop {
            let mut full = false;
            let guard = self.barrier.read();
            let mut walk = Walk {
                since,
                budget: WALK_BUDGET,
                found: |first, len| {
                    // One place is for the run that is given out at the end.
                    if ready.len() + 1 >= ready.capacity() {
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
            let more = match paused {
                ControlFlow::Break(at) if !full => {
                    give(&ready)?;
                    ready.clear();
                    from = at;
                    continue;
                }
                ControlFlow::Break(at) => Some(at),
                ControlFlow::Continue(()) => None,
            };
            if let Some(last) = gather.finish() {
                let _ = ready.push_within_capacity(last);
            }
            give(&ready)?;
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
        let flag = |is_so, flag| if is_so { flag } else { 0 };
        uapi::ckpt_info {
            size: size_of::<uapi::ckpt_info>() as u32,
            flags: flag(self.geometry.private, uapi::CKPT_INFO_PRIVATE)
                | flag(self.is_kept(), uapi::CKPT_INFO_KEPT),
            id: self.id,
            len_bytes: self.len_bytes(),
            epoch: self.told_epoch(),
            resident_pages: self.charge.pages().0,
            changed_pages: self.index.noted(),
            created_ns: self.created_ns,
            committed_ns: self.committed_ns.load(Ordering::Relaxed),
            uid: self.owner().uid(),
            pid: self.program.pid(),
            tracker: tracker_in_use(self.index.tracker()),
            page_shift: PAGE_SHIFT as u32,
            name: self.geometry.name,
        }
    }

    /// The facts of `struct ckpt_stats`.
    pub(crate) fn stats(&self) -> uapi::ckpt_stats {
        let (resident_pages, charged_pages) = self.charge.pages();
        let (open_pages, open_chunks) = self.index.open();
        // With the control page.
        let own = (size_of::<Self>() + PAGE_SIZE) as u64;
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
            open_pages,
            open_chunks,
            chunks: self.index.chunks(),
            chunk_openings: stats.chunk_openings.get(),
            kept_pages: stats.kept_pages.get(),
            closed_pages: stats.closed_pages.get(),
            direct_harvests: stats.direct_harvests.get(),
            harvested_ptes: stats.harvested_ptes.get(),
            flushes: stats.flushes.get(),
            snapshots: stats
                .snapshots_made
                .get()
                .saturating_sub(stats.snapshots_closed.get()),
            snapshots_made: stats.snapshots_made.get(),
            frozen_pages: stats.frozen_pages.get(),
            copied_pages: stats.copied_pages.get(),
            copy_waits: stats.copy_waits.get(),
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

fn tracker_in_use(tracker: &Tracker) -> u32 {
    match tracker.adapts() && mapping::ADAPTS {
        true => uapi::CKPT_TRACKER_ADAPTIVE,
        false => uapi::CKPT_TRACKER_ARMED,
    }
}
