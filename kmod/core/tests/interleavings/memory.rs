// SPDX-License-Identifier: GPL-2.0-only
//! A real index whose memory can be saved and put back.
//!
//! All memory is made before the first save and stays where it is, so what differs between
//! two states of an index is some words, none of them a pointer. An [`Image`] is these words.

use std::alloc::Layout;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use ckpt_core::index::Index;
use ckpt_core::slot::Heap;
use ckpt_core::tracker::{Policy, Tracker};

thread_local! {
    /// What the heap of this thread handed out since the last index was made.
    static MADE: RefCell<Vec<(NonNull<u64>, usize)>> = const { RefCell::new(Vec::new()) };
}

/// The host's heap, of which it is known what was handed out.
pub struct Known;

// SAFETY: `alloc_zeroed` and `dealloc` with the layout of `T` do as asked.
unsafe impl Heap for Known {
    fn zeroed<T>() -> Option<NonNull<T>> {
        let layout = Layout::new::<T>();
        assert!(layout.size() % 8 == 0 && layout.align() == 8 && layout.size() > 0);
        // SAFETY: The layout is not of size zero.
        let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        MADE.with_borrow_mut(|made| made.push((memory.cast(), layout.size() / 8)));
        Some(memory.cast())
    }

    unsafe fn free<T>(memory: NonNull<T>) {
        // SAFETY: By the contract the memory came from `zeroed::<T>`.
        unsafe { std::alloc::dealloc(memory.as_ptr().cast(), Layout::new::<T>()) }
    }
}

pub type Pages = Index<AtomicU64, Known>;

/// A state of the index: the words that are not as they were at first.
pub type Image = Rc<[(u16, u64)]>;

/// The index, and where it has its memory.
pub struct Memory {
    index: NonNull<Pages>,
    /// Each with the number of words and how many of them at the end are left alone.
    blocks: Vec<(NonNull<u64>, usize)>,
    /// What all words were at first,
    first: Vec<u64>,
    /// and the same with what makes a number a pointer.
    origin: Vec<MaybeUninit<u64>>,
}

impl Memory {
    /// An index that has all memory for some pages.
    pub fn new(policy: Policy, pages: &[u64]) -> Self {
        MADE.take();
        let index = NonNull::from(Box::leak(Box::new(Pages::new(Tracker::new(policy)))));
        // SAFETY: Just made, and given back on drop.
        let made = unsafe { index.as_ref() };
        for &page in pages {
            made.chunk(page).expect("memory");
        }
        // The tracker does not change, and does not fill its words.
        let base = index.as_ptr() as usize;
        let tracker = (std::ptr::from_ref(made.tracker()) as usize - base) / 8;
        let words = size_of::<Pages>() / 8;
        let after = tracker + size_of::<Tracker>().div_ceil(8);
        let mut blocks = vec![(index.cast(), tracker)];
        if after < words {
            // SAFETY: Within the index.
            blocks.push((unsafe { index.cast::<u64>().add(after) }, words - after));
        }
        blocks.extend(MADE.take());
        let mut memory = Memory {
            index,
            blocks,
            first: Vec::new(),
            origin: Vec::new(),
        };
        memory.first = memory.words().flatten().copied().collect();
        for &(block, len) in &memory.blocks {
            // SAFETY: The block has so many words, and anything is a valid `MaybeUninit`.
            let words = unsafe { std::slice::from_raw_parts(block.as_ptr().cast(), len) };
            memory.origin.extend_from_slice(words);
        }
        memory
    }

    /// The index as it is now.
    pub fn index(&self) -> &Pages {
        // SAFETY: Valid until dropped.
        unsafe { self.index.as_ref() }
    }

    /// All words that may change.
    fn words(&self) -> impl Iterator<Item = &[u64]> {
        self.blocks.iter().map(|&(at, len)| {
            // SAFETY: The blocks stay, all their words are initialised, and changes come only
            // between the uses of what this returns, as all is in one thread.
            unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
        })
    }

    /// What differs now from the beginning.
    pub fn save(&self) -> Image {
        const STEP: usize = 64;
        let mut image = Vec::new();
        let mut base = 0;
        for words in self.words() {
            let first = &self.first[base..base + words.len()];
            for (at, (now, was)) in words.chunks(STEP).zip(first.chunks(STEP)).enumerate() {
                if now == was {
                    continue;
                }
                let changed = (0..now.len()).filter(|&n| now[n] != was[n]);
                image.extend(changed.map(|n| ((base + at * STEP + n) as u16, now[n])));
            }
            base += words.len();
        }
        image.into()
    }

    /// Makes the index what it was when it was saved.
    pub fn load(&self, image: &Image) {
        let mut at = image.iter().peekable();
        let mut base = 0;
        for &(block, len) in &self.blocks {
            // SAFETY: The block is ours, nobody refers to its words now but by atomics of
            // this thread, and no pointer among them is changed.
            unsafe {
                let origin = self.origin[base..base + len].as_ptr();
                let words = block.as_ptr().cast::<MaybeUninit<u64>>();
                words.copy_from_nonoverlapping(origin, len);
            }
            while let Some(&&(word, value)) =
                at.peek().filter(|(word, _)| (*word as usize) < base + len)
            {
                // SAFETY: As above, and the word is in the block.
                unsafe { block.add(word as usize - base).write(value) };
                at.next();
            }
            base += len;
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: Made from a box in `new`.
        drop(unsafe { Box::from_raw(self.index.as_ptr()) });
    }
}
