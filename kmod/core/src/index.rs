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
    /// Notes taken.
    pub taken: u64,
    /// Pages stamped: those noted, and those found dirty beside them.
    pub changed: u64,
    /// Pages noted again at once for the next commit.
    pub again: u64,
}

impl Harvested {
    fn add(&mut self, other: Harvested) {
        self.taken += other.taken;
        self.changed += other.changed;
        self.again += other.again;
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

    /// The chunk of a page, made now if need be; adds the bytes taken to `held`.
    fn find_or_make(
        &self,
        page: u64,
        held: &AtomicU64,
    ) -> Result<&Chunk<Self::Payload, Self::Heap>, NoMemory>;

    /// Notes a page whose chunk exists. True when it was not noted yet.
    fn note(&self, page: u64) -> bool;

    /// Takes the notes below and stamps the pages. `first` is the first page below.
    fn harvest<W: Hardware>(
        &self,
        first: u64,
        epoch: u64,
        tracker: &Tracker,
        hardware: &mut W,
    ) -> Harvested;

    /// Walks the pages at or after `from` that changed. `first` is the first below.
    fn changed_since<F>(&self, first: u64, from: u64, walk: &mut Walk<F>) -> ControlFlow<u64>
    where
        F: FnMut(u64, u64) -> ControlFlow<u64>;

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
        held: &AtomicU64,
    ) -> Result<&Chunk<C::Payload, C::Heap>, NoMemory> {
        let (child, made) = self.children[Self::child_of(page)].get_or_fill()?;
        if made {
            held.fetch_add(size_of::<C>() as u64, Ordering::Relaxed);
        }
        child.find_or_make(page, held)
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

    fn harvest<W: Hardware>(
        &self,
        first: u64,
        epoch: u64,
        tracker: &Tracker,
        hardware: &mut W,
    ) -> Harvested {
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
            let below = child.harvest(
                first + ((index as u64) << C::SHIFT),
                epoch,
                tracker,
                hardware,
            );
            if below.changed != 0 {
                self.newest[index].store(epoch, Ordering::Relaxed);
            }
            if below.again != 0 {
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
    /// Bytes of memory held.
    held: AtomicU64,
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
            held: AtomicU64::new(0),
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
            let bytes = size_of::<Root<P, H>>() as u64;
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        root.find_or_make(page, &self.held)
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

    /// Takes all notes, arms the pages again and stamps them with `epoch`, which is
    /// above every epoch before.
    pub fn harvest<W: Hardware>(&self, epoch: u64, hardware: &mut W) -> Harvested {
        let Some(root) = self.root.get() else {
            return Harvested::default();
        };
        let all = root.harvest(0, epoch, &self.tracker, hardware);
        if all.changed != 0 {
            self.newest.store(epoch, Ordering::Relaxed);
        }
        self.noted.fetch_add(all.again, Ordering::Relaxed);
        self.noted.fetch_sub(all.taken, Ordering::Relaxed);
        all
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

    /// Pages noted and not yet harvested.
    pub fn noted(&self) -> u64 {
        // A note is counted just after it is made, and a commit may take it in
        // between, so the count can be below zero for a moment.
        (self.noted.load(Ordering::Relaxed) as i64).max(0) as u64
    }

    /// Bytes of memory that the index holds, payloads included.
    pub fn bytes_held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}
