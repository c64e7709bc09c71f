// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Address space.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman;
use nix::sys::mman::MRemapFlags;
use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;

use super::gate::Call;
use super::gate::call;
use super::span::Span;

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

    /// A part of an arena, shared, somewhere.
    pub fn part(fd: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<Mapping> {
        Self::map(0, len, MapFlags::MAP_SHARED, |base, len, prot, flags| {
            // SAFETY: Replaces no mapping.
            unsafe { mman::mmap(base, len, prot, flags, fd, offset as i64) }
        })
    }

    /// Puts its memory in the place of what is mapped in a span of the same length, at once: who
    /// looks there finds the one or the other.
    ///
    /// # Errors
    ///
    /// The mapping comes back. What was in the span may be gone, if the kernel has run out of
    /// memory at the wrong moment.
    ///
    /// # Safety
    ///
    /// Nobody relies on what was mapped there.
    pub unsafe fn put_over(self, span: Span) -> Result<(), (Mapping, io::Error)> {
        assert_eq!(self.len, span.len);
        let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
        let (from, to) = (self.base.cast(), Some(span.base.cast()));
        let done = call(Call::Remap, || {
            // SAFETY: The range moved is ours; as to the other, see this function's contract.
            Ok(unsafe { mman::mremap(from, self.len, self.len, flags, to) }?)
        });
        match done {
            Ok(_) => {
                // Nothing is left here, and there it belongs to whoever the span belongs to.
                std::mem::forget(self);
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Leaves it mapped for good.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// Its addresses.
    pub fn span(&self) -> Span {
        Span {
            base: self.base,
            len: self.len,
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
