// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Address space.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman;
use nix::sys::mman::MapFlags;
use nix::sys::mman::MmapAdvise;
use nix::sys::mman::ProtFlags;

use super::gate::Call;
use super::gate::call;

/// Bytes of a page. The module and the chains count in these.
pub const PAGE: usize = 4096;

/// A mapping of this process, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: A mapping belongs to the process, not to a thread. Who reads and writes it when is
// up to those who use the pointer.
unsafe impl Send for Mapping {}
// SAFETY: As above; nothing here changes what is mapped but the drop.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Memory of its own, at `base` or, when that is 0, anywhere. It costs nothing until it is
    /// touched. `EEXIST` when the addresses are taken.
    pub fn anonymous(base: usize, len: usize) -> io::Result<Mapping> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_ANONYMOUS;
        Self::map(base, len, flags, |base, len, prot, flags| {
            // SAFETY: Replaces no mapping: the flags say so.
            unsafe { mman::mmap_anonymous(base, len, prot, flags) }
        })
    }

    /// The start of an arena, shared, at `base`. `EEXIST` when the addresses are taken.
    pub fn shared(fd: BorrowedFd<'_>, base: usize, len: usize) -> io::Result<Mapping> {
        Self::map(base, len, MapFlags::MAP_SHARED, |base, len, prot, flags| {
            // SAFETY: Replaces no mapping: the flags say so.
            unsafe { mman::mmap(base, len, prot, flags, fd, 0) }
        })
    }

    fn map(
        base: usize,
        len: usize,
        flags: MapFlags,
        map: impl FnOnce(
            Option<NonZeroUsize>,
            NonZeroUsize,
            ProtFlags,
            MapFlags,
        ) -> nix::Result<NonNull<std::ffi::c_void>>,
    ) -> io::Result<Mapping> {
        let base = NonZeroUsize::new(base);
        let len_bytes = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = match base {
            Some(_) => flags | MapFlags::MAP_FIXED_NOREPLACE,
            None => flags,
        };
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let at = call(Call::Map, || Ok(map(base, len_bytes, prot, flags)?))?;
        let mapping = Mapping {
            base: at.cast(),
            len,
        };
        // Kernels before 4.17 take the address for a hint.
        if base.is_some_and(|base| base.get() != at.as_ptr() as usize) {
            return Err(io::Error::from_raw_os_error(nix::libc::EEXIST));
        }
        Ok(mapping)
    }

    /// Children that are forked from now on do not get it.
    pub fn keep_from_children(&self) -> io::Result<()> {
        // SAFETY: The range is ours; for this process nothing changes.
        let done = unsafe { mman::madvise(self.base.cast(), self.len, MmapAdvise::MADV_DONTFORK) };
        Ok(done?)
    }

    /// Its pages are pages from now on, not parts of larger ones.
    pub fn without_huge_pages(&self) -> io::Result<()> {
        let (base, advice) = (self.base.cast(), MmapAdvise::MADV_NOHUGEPAGE);
        // SAFETY: The range is ours, and its content stays the same.
        match unsafe { mman::madvise(base, self.len, advice) } {
            // A kernel that has no huge pages does not know the advice.
            Err(nix::errno::Errno::EINVAL) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Copies a part of it, whole words, to the end of some bytes. Threads of the program may
    /// write to it meanwhile: then it is neither what was there before nor after.
    pub fn append_to(&self, bytes: &mut Vec<u8>, offset: usize, len: usize) {
        const WORD: usize = size_of::<u64>();
        assert!(offset % WORD == 0 && len % WORD == 0);
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: Within the mapping.
        let from: NonNull<u64> = unsafe { self.base.add(offset) }.cast();
        bytes.reserve(len);
        for word in 0..len / WORD {
            // SAFETY: Within the mapping, which is readable, and aligned. Volatile, as others
            // may write.
            let value = unsafe { from.add(word).read_volatile() };
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
    }

    /// Where it begins.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length.
    pub fn len_bytes(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Nothing can be done about an error, and none is known that an address range of ours
        // could meet.
        let _ = call(Call::Unmap, || {
            // SAFETY: The range is ours, and its users gave up their pointers with it.
            Ok(unsafe { mman::munmap(self.base.cast(), self.len) }?)
        });
    }
}
