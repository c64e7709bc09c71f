// SPDX-License-Identifier: GPL-2.0-only
//! The index over an arena's pages: a tree that finds what changed at the cost of
//! what changed.
//!
//! Four levels of 64-way nodes over chunks of 512 pages: 2^33 pages, of which only
//! the touched parts have memory. Every node keeps, for each child, a *mark* (there
//! are notes below) and the *newest* stamp below. So a commit descends to the chunks
//! with notes, a delta to the chunks stamped after its cursor, and both are done at
//! the root when there is nothing.
//!
//! # Concurrency
//!
//! [`Index::note`] may run at any time and in atomic context: the memory it needs was
//! made before, by [`Index::chunk`]. A commit has the index to itself but for notes.
//! The caller sees to that, and to that no delta runs beside a commit.
//!
//! No note is lost between the two. A note sets the page's bit and then the marks on
//! the way up; a commit takes the marks on the way down and then the bits. If the
//! commit took a mark too early to know of the note, the note finds the mark gone and
//! sets it again, and the next commit comes by. If the note found the mark still set,
//! the commit had not taken it yet, will come by, and finds the bit. Both sides use
//! sequentially consistent read-modify-writes for what they write before they look,
//! so at least one of them sees the other.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::bits::Bits;
use super::chunk::Chunk;
use super::slot::{Heap, NoMemory, Slot, Zeroed};
use super::tracker::{Hardware, Tracker};

/// log2 of the children of a node.
const FAN_SHIFT: u32 = 6;
/// Children of a node: as many as a word has bits.
const FAN: usize = 1 << FAN_SHIFT;

/// What a commit took from a part of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harvested {
    /// Pages looked at.
    pub looked: u64,
    /// Notes taken.
    pub taken: u64,
    /// Pages stamped: those noted, and those found dirty beside them.
    pub changed: u64,
    /// Pages noted again at once for the next commit.
    pub again: u64,
    /// Pages left open.
    pub open: u64,
    /// Those of them that were not open before.
    pub kept: u64,
    /// Pages armed because they had stayed clean.
    pub closed: u64,
    /// Chunks with open pages.
    pub open_chunks: u64,
}

impl Harvested {
    fn add(&mut self, other: Harvested) {
        self.looked += other.looked;
        self.taken += other.taken;
        self.changed += other.changed;
        self.again += other.again;
        self.open += other.open;
        self.kept += other.kept;
        self.closed += other.closed;
        self.open_chunks += other.open_chunks;
    }
}

/// A commit under way.
pub struct Commit<'a, W> {
    /// Its epoch, above every epoch before.
    pub epoch: u64,
    /// Whether pages that changed are to be left read-only, for a snapshot.
    pub freeze: bool,
    /// The policy.
    pub tracker: &'a Tracker,
    /// The machine.
    pub hardware: &'a mut W,
}

/// What an index counts as it grows.
#[derive(Default)]
pub struct Totals {
    held: AtomicU64,
    chunks: AtomicU64,
}

impl Totals {
    /// Adds bytes of memory held.
    pub fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Adds a chunk.
    pub fn chunk(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }
}

/// A walk over changed pages.
pub struct Walk<F> {
    /// Pages stamped after this epoch are wanted.
    pub since: u64,
    /// Chunks that may still be looked into before the walk pauses.
    pub budget: u32,
    /// Told each run of changed pages, ascending. Breaks with where to go on.
    pub found: F,
}

/// A level of the index: a node of children, or a chunk.
pub trait Part: Zeroed {
    /// The caller's part of a chunk.
    type Payload: Zeroed;
    /// Where memory comes from.
    type Heap: Heap;
    /// log2 of the pages below.
    const SHIFT: u32;

    /// The chunk of a page, if it was made.
    fn find(&self, page: u64) -> Option<&Chunk<Self::Payload, Self::Heap>>;

    /// The chunk of a page, made now if need be.
    fn find_or_make(
        &self,
        page: u64,
        totals: &Totals,
    ) -> Result<&Chunk<Self::Payload, Self::Heap>, NoMemory>;

    /// Notes a page whose chunk exists. True when it was not noted yet.
    fn note(&self, page: u64) -> bool;

    /// Takes the notes below and stamps the pages. `first` is the first page below.
    fn harvest<W: Hardware>(&self, first: u64, commit: &mut Commit<'_, W>) -> Harvested;

    /// Walks the pages at or after `from` that changed. `first` is the first below.
    fn changed_since<F>(&self, first: u64, from: u64, walk: &mut Walk<F>) -> ControlFlow<u64>
    where
        F: FnMut(u64, u64) -> ControlFlow<u64>;

    /// Calls `visit` with every chunk that has pages stamped after `since`: its first page,
    /// the chunk, those pages. `first` is the first page below.
    fn each_changed<E, F>(&self, first: u64, since: u64, visit: &mut F) -> Result<(), E>
    where
        F: FnMut(u64, &Chunk<Self::Payload, Self::Heap>, Bits) -> Result<(), E>;

    /// Calls `visit` with every payload below.
    fn each_payload<F: FnMut(&Self::Payload)>(&self, visit: &mut F);
}

/// A node: 64 children of one kind.
#[repr(C)]
pub struct Node<C: Part> {
    /// Bit per child: there may be notes below.
    marks: AtomicU64,
    /// Newest stamp below each child; zero for none.
    newest: [AtomicU64; FAN],
    children: [Slot<C, C::Heap>; FAN],
}

// SAFETY: All fields are `Zeroed`, and `repr(C)` leaves no other bytes: all have the
// size and alignment of a `u64`.
unsafe impl<C: Part> Zeroed for Node<C> {}

impl<C: Part> Node<C> {
    fn child_of(page: u64) -> usize {
        (page >> C::SHIFT) as usize % FAN
    }
}

impl<C: Part> Part for Node<C> {
    type Payload = C::Payload;
    type Heap = C::Heap;
    const SHIFT: u32 = C::SHIFT + FAN_SHIFT;

    fn find(&self, page: u64) -> Option<&Chunk<C::Payload, C::Heap>> {
        self.children[Self::child_of(page)].get()?.find(page)
    }

    fn find_or_make(
        &self,
        page: u64,
        totals: &Totals,
    ) -> Result<&Chunk<C::Payload, C::Heap>, NoMemory> {
        let (child, made) = self.children[Self::child_of(page)].get_or_fill()?;
        if made {
            totals.hold(size_of::<C>());
        }
        child.find_or_make(page, totals)
    }

    fn note(&self, page: u64) -> bool {
        let index = Self::child_of(page);
        let Some(child) = self.children[index].get() else {
            return false;
        };
        let new = child.note(page);
        let mark = 1u64 << index;
        if self.marks.load(Ordering::SeqCst) & mark == 0 {
            self.marks.fetch_or(mark, Ordering::SeqCst);
        }
        new
    }

    fn harvest<W: Hardware>(&self, first: u64, commit: &mut Commit<'_, W>) -> Harvested {
        let mut all = Harvested::default();
        // A mark without a note below is harmless, so one load can spare the swap.
        if self.marks.load(Ordering::SeqCst) == 0 {
            return all;
        }
        let mut marks = self.marks.swap(0, Ordering::SeqCst);
        while marks != 0 {
            let index = marks.trailing_zeros() as usize;
            marks &= marks - 1;
            let Some(child) = self.children[index].get() else {
                continue;
            };
            let below = child.harvest(first + ((index as u64) << C::SHIFT), commit);
            if below.changed != 0 {
                self.newest[index].store(commit.epoch, Ordering::Relaxed);
            }
            // Open pages have to be looked at by every commit.
            if below.again != 0 || below.open != 0 {
                self.marks.fetch_or(1 << index, Ordering::SeqCst);
            }
            all.add(below);
        }
        all
    }

    fn changed_since<F>(&self, first: u64, from: u64, walk: &mut Walk<F>) -> ControlFlow<u64>
    where
        F: FnMut(u64, u64) -> ControlFlow<u64>,
    {
        let skip = if from > first {
            ((from - first) >> C::SHIFT) as usize
        } else {
            0
        };
        for index in skip..FAN {
            if self.newest[index].load(Ordering::Relaxed) <= walk.since {
                continue;
            }
            if let Some(child) = self.children[index].get() {
                child.changed_since(first + ((index as u64) << C::SHIFT), from, walk)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn each_changed<E, F>(&self, first: u64, since: u64, visit: &mut F) -> Result<(), E>
    where
        F: FnMut(u64, &Chunk<C::Payload, C::Heap>, Bits) -> Result<(), E>,
    {
        for (index, child) in self.children.iter().enumerate() {
            if self.newest[index].load(Ordering::Relaxed) > since {
                if let Some(child) = child.get() {
                    child.each_changed(first + ((index as u64) << C::SHIFT), since, visit)?;
                }
            }
        }
        Ok(())
    }

    fn each_payload<F: FnMut(&Self::Payload)>(&self, visit: &mut F) {
        for child in self.children.iter().filter_map(Slot::get) {
            child.each_payload(visit);
        }
    }
}

type Root<P, H> = Node<Node<Node<Node<Chunk<P, H>>>>>;

/// The index of an arena, with a payload `P` per chunk.
pub struct Index<P: Zeroed, H: Heap> {
    root: Slot<Root<P, H>, H>,
    /// Newest stamp anywhere; zero for none.
    newest: AtomicU64,
    /// Pages noted now.
    noted: AtomicU64,
    /// Pages open, and chunks that have such, at the last commit.
    open: AtomicU64,
    open_chunks: AtomicU64,
    totals: Totals,
    tracker: Tracker,
}

/// The largest number of pages an index can hold.
pub const MAX_PAGES: u64 = 1 << <Root<AtomicU64, NoHeap> as Part>::SHIFT;

/// A heap without memory, to name a type with.
pub enum NoHeap {}

// SAFETY: Hands out nothing.
unsafe impl Heap for NoHeap {
    fn zeroed<T>() -> Option<core::ptr::NonNull<T>> {
        None
    }
    unsafe fn free<T>(_: core::ptr::NonNull<T>) {}
}

impl<P: Zeroed, H: Heap> Index<P, H> {
    /// An index without any memory yet.
    pub const fn new(tracker: Tracker) -> Self {
        Index {
            root: Slot::new(),
            newest: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            open_chunks: AtomicU64::new(0),
            totals: Totals {
                held: AtomicU64::new(0),
                chunks: AtomicU64::new(0),
            },
            tracker,
        }
    }

    /// The chunk of a page, if any page of it was touched.
    pub fn get(&self, page: u64) -> Option<&Chunk<P, H>> {
        self.root.get()?.find(page)
    }

    /// The chunk of a page, made now if need be. May sleep.
    ///
    /// `page` is below [`MAX_PAGES`].
    pub fn chunk(&self, page: u64) -> Result<&Chunk<P, H>, NoMemory> {
        let (root, made) = self.root.get_or_fill()?;
        if made {
            self.totals.hold(size_of::<Root<P, H>>());
        }
        root.find_or_make(page, &self.totals)
    }

    /// Notes that a page changed, or is about to. True when it was not noted yet.
    ///
    /// The page's chunk was made before; else nothing is noted.
    pub fn note(&self, page: u64) -> bool {
        let new = self.root.get().is_some_and(|root| root.note(page));
        if new {
            self.noted.fetch_add(1, Ordering::Relaxed);
        }
        new
    }

    /// The policy.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Takes all notes, harvests the open pages and stamps what changed with `epoch`, which
    /// is above every epoch before. With `freeze`, what changed is read-only afterwards.
    pub fn harvest<W: Hardware>(&self, epoch: u64, freeze: bool, hardware: &mut W) -> Harvested {
        let Some(root) = self.root.get() else {
            return Harvested::default();
        };
        self.tracker.uses(hardware.costs());
        let mut commit = Commit {
            epoch,
            freeze,
            tracker: &self.tracker,
            hardware,
        };
        let all = root.harvest(0, &mut commit);
        if all.changed != 0 {
            self.newest.store(epoch, Ordering::Relaxed);
        }
        self.open.store(all.open, Ordering::Relaxed);
        self.open_chunks.store(all.open_chunks, Ordering::Relaxed);
        if all.again != all.taken {
            self.noted.fetch_add(all.again, Ordering::Relaxed);
            self.noted.fetch_sub(all.taken, Ordering::Relaxed);
        }
        all
    }

    /// Freezes all pages stamped after `since`, and tells `held` of each chunk that has
    /// such: its first page, and the pages. Only within a commit, after its harvest.
    ///
    /// When `held` fails, what was frozen before stays frozen.
    pub fn freeze<W, E, F>(&self, since: u64, hardware: &mut W, mut held: F) -> Result<(), E>
    where
        W: Hardware,
        F: FnMut(u64, &Bits) -> Result<(), E>,
    {
        let Some(root) = self.root.get() else {
            return Ok(());
        };
        if self.newest.load(Ordering::Relaxed) <= since {
            return Ok(());
        }
        root.each_changed(0, since, &mut |first, chunk, pages| {
            if pages.is_empty() {
                return Ok(());
            }
            held(first, &pages)?;
            let (late, armed) = chunk.freeze(first, &pages, hardware);
            self.open.fetch_sub(armed, Ordering::Relaxed);
            for page in late.iter() {
                self.note(first + page as u64);
            }
            Ok(())
        })
    }

    /// Walks the pages at or after `from` stamped after `walk.since`.
    ///
    /// Breaks with the page to go on from, when the walk's budget is used up or
    /// `walk.found` broke.
    pub fn changed_since<F>(&self, from: u64, walk: &mut Walk<F>) -> ControlFlow<u64>
    where
        F: FnMut(u64, u64) -> ControlFlow<u64>,
    {
        if from >= MAX_PAGES || self.newest.load(Ordering::Relaxed) <= walk.since {
            return ControlFlow::Continue(());
        }
        match self.root.get() {
            Some(root) => root.changed_since(0, from, walk),
            None => ControlFlow::Continue(()),
        }
    }

    /// Calls `visit` with the payload of every chunk that was touched.
    pub fn each_payload<F: FnMut(&P)>(&self, mut visit: F) {
        if let Some(root) = self.root.get() {
            root.each_payload(&mut visit);
        }
    }

    /// Newest stamp; zero for none.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Pages noted and not yet harvested.
    pub fn noted(&self) -> u64 {
        // A note is counted just after it is made, and a commit may take it in
        // between, so the count can be below zero for a moment.
        (self.noted.load(Ordering::Relaxed) as i64).max(0) as u64
    }

    /// Pages that the last commit left open, and chunks that have such.
    pub fn open(&self) -> (u64, u64) {
        (
            self.open.load(Ordering::Relaxed),
            self.open_chunks.load(Ordering::Relaxed),
        )
    }

    /// Chunks that have memory.
    pub fn chunks(&self) -> u64 {
        self.totals.chunks.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the index holds, payloads included.
    pub fn bytes_held(&self) -> u64 {
        self.totals.held.load(Ordering::Relaxed)
    }
}
