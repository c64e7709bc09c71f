// SPDX-License-Identifier: GPL-2.0-only
//! An arena: its pages, which of them changed, and its epochs.

use core::ops::ControlFlow;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use kernel::iov::IovIterDest;
use kernel::new_mutex;
use kernel::page::PAGE_SHIFT;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::poll::PollCondVar;
use kernel::sync::Arc;
use kernel::sync::Mutex;
use kernel::time::Instant;
use kernel::time::Monotonic;

use crate::charge::Charge;
use crate::mm::areas::Areas;
use crate::mm::barrier::Barrier;
use crate::mm::barrier::WriteGuard;
use crate::mm::clock;
use crate::mm::copies::PageCopy;
use crate::mm::direct::Direct;
use crate::mm::direct::OwnMap;
use crate::mm::fault::Fault;
use crate::mm::fault::Faults;
use crate::mm::fault::Outcome;
use crate::mm::file::read_zeros;
use crate::mm::folio::Folio;
use crate::mm::folio::FolioRef;
use crate::mm::folio::FolioTable;
use crate::mm::heap::KernelHeap;
use crate::mm::mapping;
use crate::mm::mapping::Mapping;
use crate::mm::mapping::Noting;
use crate::mm::mapping::Work;
use crate::mm::owner::Owner;
use crate::mm::wait::Event;
use crate::mm::wait::Seen;
use crate::mm::wait::Thread;
use crate::snapshot::Draft;
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::tracking::bits::Bits;
use crate::tracking::bits::CHUNK_PAGES;
use crate::tracking::chunk::Chunk;
use crate::tracking::index::Harvested;
use crate::tracking::index::Index;
use crate::tracking::index::Walk;
use crate::tracking::index::MAX_PAGES;
use crate::tracking::ranges::Gather;
use crate::tracking::ranges::Range;
use crate::tracking::tracker::Costs;
use crate::tracking::tracker::Hardware;
use crate::tracking::tracker::Plan;
use crate::tracking::tracker::Tracker;
use crate::uapi;

type ArenaChunk = Chunk<FolioTable, KernelHeap>;

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
            barrier <- Barrier::new(c"ckpt::Arena::barrier", kernel::static_lock_class!()),
            index: Index::new(Tracker::new(crate::policy())),
            mapping,
            areas <- Areas::new(),
            snapshots <- new_mutex!(KVec::new()),
            thawed <- Event::new(),
            draft_len: AtomicU64::new(0),
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
    fn copy_aside(
        &self,
        chunk: &ArenaChunk,
        pgoff: u64,
        copy: PageCopy,
        must: bool,
    ) -> Result<Aside> {
        let snapshots = self.snapshots.lock();
        let mut copies = 0;
        for snapshot in snapshots.iter().filter(|one| one.needs(pgoff)) {
            if !snapshot.has_room(pgoff, must)? {
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
            tracker: tracker_in_use(self.index.tracker()),
            page_shift: PAGE_SHIFT as u32,
            name: self.geometry.name,
        }
    }

    /// The facts of `struct ckpt_stats`.
    pub(crate) fn stats(&self) -> uapi::ckpt_stats {
        let (resident_pages, charged_pages) = self.charge.pages();
        let (open_pages, open_chunks) = self.index.open();
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

/// What came of a page that had to be copied aside.
enum Aside {
    Done,
    /// Not before a consumer thaws something.
    Later,
    /// The consumer is the one that waits.
    Never,
}

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

fn tracker_in_use(tracker: &Tracker) -> u32 {
    match tracker.adapts() && mapping::ADAPTS {
        true => uapi::CKPT_TRACKER_ADAPTIVE,
        false => uapi::CKPT_TRACKER_ARMED,
    }
}
