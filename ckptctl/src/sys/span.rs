// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that is mapped, whoever it belongs to.

use std::io;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman;
use nix::sys::mman::MmapAdvise;

use super::gate::Call;
use super::gate::call;

/// Addresses that are mapped, readable and writable. Who has made it sees to that, for as long as
/// it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub(super) base: NonNull<u8>,
    pub(super) len: usize,
}

// SAFETY: Memory belongs to the process, not to a thread. Who reads and writes it when is up to
// those who use the pointer.
unsafe impl Send for Span {}
// SAFETY: As above.
unsafe impl Sync for Span {}

impl Span {
    /// # Safety
    ///
    /// The addresses are mapped, readable and writable as long as the span is used.
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Span {
        Span { base, len }
    }

    /// Where it begins.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length.
    pub fn len_bytes(&self) -> usize {
        self.len
    }

    /// A part of it.
    pub fn part(&self, offset: usize, len: usize) -> Span {
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: Within the span.
        let base = unsafe { self.base.add(offset) };
        Span { base, len }
    }

    fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        call(Call::Advise(advice), || {
            // SAFETY: None of the kinds of advice that are given here, but that of `discard`,
            // changes what this process sees.
            Ok(unsafe { mman::madvise(self.base.cast(), self.len, advice) }?)
        })
    }

    /// Children that are forked from now on do not get it.
    pub fn keep_from_children(&self) -> io::Result<()> {
        self.advise(MmapAdvise::MADV_DONTFORK)
    }

    /// Children get it again.
    pub fn give_to_children(&self) -> io::Result<()> {
        self.advise(MmapAdvise::MADV_DOFORK)
    }

    /// Its pages are pages from now on, not parts of larger ones.
    pub fn without_huge_pages(&self) -> io::Result<()> {
        match self.advise(MmapAdvise::MADV_NOHUGEPAGE) {
            // A kernel that has no huge pages does not know the advice.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
            done => done,
        }
    }

    /// Has the system make its pages, all at once, as if each had been written. A hint: where that
    /// cannot be, they are made when they are written.
    pub fn make_pages(&self) {
        let _ = self.advise(MmapAdvise::MADV_POPULATE_WRITE);
    }

    /// Gives its pages back: memory of its own is zero then, shared memory stays what it is and is
    /// only looked up anew.
    ///
    /// # Safety
    ///
    /// Nobody uses it meanwhile, or relies on what memory of its own has in it.
    pub unsafe fn discard(&self) -> io::Result<()> {
        self.advise(MmapAdvise::MADV_DONTNEED)
    }

    /// Copies a part of it, whole words, to the end of some bytes. Threads of the program may
    /// write to it meanwhile: then it is neither what was there before nor after.
    pub fn append_to(&self, bytes: &mut Vec<u8>, offset: usize, len: usize) {
        const WORD: usize = size_of::<u64>();
        assert!(offset % WORD == 0 && len % WORD == 0);
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: Within the span.
        let from: NonNull<u64> = unsafe { self.base.add(offset) }.cast();
        bytes.reserve(len);
        for word in 0..len / WORD {
            // SAFETY: Within the span, which is readable, and aligned. Volatile, as others
            // may write.
            let value = unsafe { from.add(word).read_volatile() };
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
    }
}
