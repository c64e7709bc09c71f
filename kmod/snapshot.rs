// SPDX-License-Identifier: GPL-2.0-only
//! A snapshot: pages of an arena as they were at a commit.
//!
//! Its pages are frozen: no page-table entry of them is writable. The first write to a
//! frozen page copies it aside for every snapshot that still needs it, and thaws it. So a
//! snapshot's page is either in the arena, frozen, or a copy.

use core::sync::atomic::fence;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use crate::arena::Arena;
use crate::mm::barrier::Barrier;
use crate::mm::barrier::WriteGuard;
use crate::mm::copies::Copies;
use crate::mm::copies::PageCopy;
use crate::mm::heap::KernelHeap;
use crate::mm::wait::Thread;
use crate::subscription::stale;
use crate::tracking::bits::Bits;
use crate::tracking::bits::SharedBits;
use crate::tracking::bits::CHUNK_PAGES;
use crate::tracking::ranges::Gather;
use crate::tracking::ranges::Range;
use crate::tracking::slot::Slot;
use crate::uapi;

/// The pages of one chunk that a snapshot holds.
///
/// Changed with the arena's list of snapshots locked; pages leave `wanted` only with the
/// snapshot's `reading` held, too.
struct Held {
    first: u64,
    wanted: SharedBits,
    /// Those of `wanted` that are copies.
    copied: SharedBits,
    copies: Slot<Copies, KernelHeap>,
}

impl Held {
    fn frozen(&self) -> Bits {
        self.wanted.load().minus(&self.copied.load())
    }
}

/// What a snapshot is made of, while its commit collects it.
pub(crate) struct Draft {
    chunks: KVVec<Held>,
    pages: u64,
}

impl Draft {
    /// Nothing yet, with room for some chunks.
    pub(crate) fn new(chunks: usize) -> Result<Self> {
        Ok(Draft {
            chunks: KVVec::with_capacity(chunks, GFP_KERNEL)?,
            pages: 0,
        })
    }

    /// Adds the pages of a chunk behind all others.
    pub(crate) fn add(&mut self, first: u64, pages: &Bits) -> Result {
        let held = Held {
            first,
            wanted: SharedBits::new(pages),
            copied: SharedBits::new(&Bits::default()),
            copies: Slot::new(),
        };
        self.chunks.push(held, GFP_KERNEL)?;
        self.pages += pages.len() as u64;
        Ok(())
    }

    /// Chunks.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Pages in all.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }
}

/// A snapshot.
#[pin_data]
pub(crate) struct Snapshot {
    pub(crate) epoch: u64,
    pub(crate) since: u64,
    /// Pages it was made with.
    pub(crate) pages: u64,
    /// How many of them may be copied aside at the same time; so many are charged.
    pub(crate) reserve: u64,
    /// Ascending.
    chunks: KVVec<Held>,
    held: AtomicU64,
    copied: AtomicU64,
    /// Rather than make a writer wait it ends.
    yields: bool,
    ended: AtomicBool,
    /// Held while pages are handed over or taken out.
    #[pin]
    reading: Barrier,
    /// The thread to which pages are being handed over, or zero.
    reader: AtomicUsize,
}

/// What somebody wants of a snapshot.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// The pages stamped after this epoch.
    pub(crate) since: u64,
    /// How many of them may be copied aside; zero for all.
    pub(crate) reserve: u64,
    /// When no more may be, it ends. Else the writer waits.
    pub(crate) yields: bool,
}

/// Where pages are handed over to.
pub(crate) struct Buffer {
    /// Address in user space.
    pub(crate) at: usize,
    /// Pages that fit.
    pub(crate) pages: u64,
}

/// What was handed over.
pub(crate) struct Gathered {
    /// Runs.
    pub(crate) count: u32,
    /// Pages.
    pub(crate) pages: u64,
    /// Where to go on, if there is more.
    pub(crate) more: Option<u64>,
}

impl Snapshot {
    /// A snapshot of what was collected.
    pub(crate) fn new(epoch: u64, terms: Terms, draft: Draft, reserve: u64) -> impl PinInit<Self> {
        let Draft { chunks, pages } = draft;
        let Terms { since, yields, .. } = terms;
        let total = pages;
        pin_init!(Self {
            epoch,
            since,
            pages,
            reserve,
            chunks,
            held: AtomicU64::new(total),
            copied: AtomicU64::new(0),
            yields,
            ended: AtomicBool::new(false),
            reading <- Barrier::new(c"ckpt::Snapshot::reading", kernel::static_lock_class!()),
            reader: AtomicUsize::new(0),
        })
    }

    fn find(&self, page: u64) -> Option<&Held> {
        let first = page & !(CHUNK_PAGES as u64 - 1);
        let at = self
            .chunks
            .binary_search_by_key(&first, |held| held.first)
            .ok()?;
        Some(&self.chunks[at])
    }

    /// The pages of a chunk that must not be written. With the list locked.
    pub(crate) fn frozen(&self, first: u64) -> Bits {
        match self.has_ended() {
            true => Bits::default(),
            false => self.find(first).map_or(Bits::default(), Held::frozen),
        }
    }

    /// Whether it is not what it was any more.
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// `ESTALE` if it has ended before its time.
    pub(crate) fn check(&self) -> Result {
        match self.has_ended() {
            true => Err(stale()),
            false => Ok(()),
        }
    }

    /// Ends it before its time, if it may: pages can be written that it needs. They stay frozen
    /// for nothing, until their next write. With the list locked.
    pub(crate) fn yield_to_writers(&self) -> bool {
        if self.yields {
            self.ended.store(true, Ordering::SeqCst);
        }
        self.yields
    }

    /// Whether a page has to be copied aside for this before it is written. With the list
    /// locked, as the next three.
    pub(crate) fn needs(&self, page: u64) -> bool {
        let index = page as usize % CHUNK_PAGES;
        !self.has_ended()
            && self
                .find(page)
                .is_some_and(|held| held.wanted.contains(index) && !held.copied.contains(index))
    }

    /// Whether one more page may be copied aside, or must be, and there is a place for it.
    /// `ENOMEM` when the place could not be made.
    pub(crate) fn has_room(&self, page: u64, must: bool) -> Result<bool> {
        if self.copied.load(Ordering::Relaxed) >= self.reserve && !must {
            return Ok(false);
        }
        if let Some(held) = self.find(page) {
            held.copies.get_or_fill().map_err(|_| ENOMEM)?;
        }
        Ok(true)
    }

    /// Takes a copy of a page that it [needs](Snapshot::needs), after it said that it has
    /// room.
    pub(crate) fn keep(&self, page: u64, copy: PageCopy) {
        let index = page as usize % CHUNK_PAGES;
        let Some(held) = self.find(page) else {
            return;
        };
        if let Some(copies) = held.copies.get() {
            copies.put(index, copy);
            held.copied.insert(&Bits::range(index, index + 1));
            self.copied.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether pages are being handed over to this thread.
    pub(crate) fn is_read_by(&self, thread: Thread) -> bool {
        self.reader.load(Ordering::Relaxed) == thread.as_usize()
    }

    /// Takes pages `from .. to` out, and tells `thaw` of those of each chunk that were
    /// frozen. With the list locked, and the snapshot held for reading or closed.
    pub(crate) fn take_out(&self, from: u64, to: u64, mut thaw: impl FnMut(u64, &Bits)) {
        let at = self
            .chunks
            .partition_point(|held| held.first + CHUNK_PAGES as u64 <= from);
        for held in &self.chunks[at..] {
            if held.first >= to {
                break;
            }
            let end = (to - held.first).min(CHUNK_PAGES as u64);
            let range = Bits::range(from.saturating_sub(held.first) as usize, end as usize);
            let out = held.wanted.load().and(&range);
            if out.is_empty() {
                continue;
            }
            let copied = held.copied.load().and(&out);
            thaw(held.first, &out.minus(&copied));
            held.wanted.remove(&out);
            held.copied.remove(&copied);
            if let Some(copies) = held.copies.get() {
                copies.remove(&copied);
            }
            self.held.fetch_sub(out.len() as u64, Ordering::Relaxed);
            self.copied
                .fetch_sub(copied.len() as u64, Ordering::Relaxed);
        }
    }

    /// Keeps others from having pages handed over or taken out. `EINTR` when a fatal signal
    /// comes first.
    pub(crate) fn read(&self) -> Result<Reading<'_>> {
        let guard = self.reading.write_killable()?;
        self.reader
            .store(Thread::current().as_usize(), Ordering::Relaxed);
        Ok(Reading {
            snapshot: self,
            _guard: guard,
        })
    }

    /// The facts of `struct ckpt_snapshot`.
    pub(crate) fn facts(&self, arena: &Arena) -> uapi::ckpt_snapshot {
        uapi::ckpt_snapshot {
            size: size_of::<uapi::ckpt_snapshot>() as u32,
            flags: 0,
            arena_id: arena.id,
            epoch: self.epoch,
            since: self.since,
            pages: self.pages,
            held_pages: self.held.load(Ordering::Relaxed),
            copied_pages: self.copied.load(Ordering::Relaxed),
            reserve_pages: self.reserve,
        }
    }
}

/// A snapshot whose pages nobody else takes out.
pub(crate) struct Reading<'a> {
    snapshot: &'a Snapshot,
    _guard: WriteGuard<'a>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.snapshot.reader.store(0, Ordering::Relaxed);
    }
}

impl Reading<'_> {
    /// Hands over the pages at or after `start`, at most `capacity` runs of them. Each run
    /// goes to `give`, the content into the buffer, if there is one.
    ///
    /// No lock is held while user memory is written, except that of this.
    pub(crate) fn gather<F>(
        &self,
        arena: &Arena,
        start: u64,
        capacity: u32,
        buffer: Option<&Buffer>,
        mut give: F,
    ) -> Result<Gathered>
    where
        F: FnMut(Range) -> Result,
    {
        let chunks = &self.snapshot.chunks;
        let mut gather = Gather::new(capacity);
        let mut done = 0;
        let mut more = None;
        let at = chunks.partition_point(|held| held.first + CHUNK_PAGES as u64 <= start);
        'chunks: for held in &chunks[at..] {
            let skip = start.saturating_sub(held.first) as usize;
            let pages = held.wanted.load().and(&Bits::range(skip, CHUNK_PAGES));
            for index in pages.iter() {
                let page = held.first + index as u64;
                let mut given = Ok(());
                let full = buffer.is_some_and(|buffer| done == buffer.pages);
                if full || gather.put(page, 1, |run| given = give(run)).is_break() {
                    more = Some(page);
                    break 'chunks;
                }
                given?;
                self.snapshot.check()?;
                if let Some(buffer) = buffer {
                    let to = buffer.at.wrapping_add(done as usize * PAGE_SIZE);
                    hand_over(arena, held, page, to as *mut c_void)?;
                    done += 1;
                }
            }
        }
        gather.finish().map_or(Ok(()), &mut give)?;
        // Known before the first page is written that it needed. So if it is not known now, all
        // that was handed over is right.
        fence(Ordering::SeqCst);
        self.snapshot.check()?;
        Ok(Gathered {
            count: gather.given(),
            pages: gather.pages(),
            more,
        })
    }
}

/// Writes a page of a snapshot to user space.
fn hand_over(arena: &Arena, held: &Held, page: u64, to: *mut c_void) -> Result {
    let index = page as usize % CHUNK_PAGES;
    let copy = || held.copies.get()?.write_to(index, to);
    if let Some(done) = copy() {
        return done;
    }
    arena.page(page).ok_or(EIO)?.write_to(to)?;
    // A writer makes the copy known before he writes. So if there is none even now, what was
    // read above was not written meanwhile.
    fence(Ordering::SeqCst);
    copy().unwrap_or(Ok(()))
}
