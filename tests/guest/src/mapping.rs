// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A mapping of an arena, read and written like memory that others write too.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::device::PAGE;

/// Mapped pages; unmapped when dropped.
///
/// All accesses are volatile: other mappings, other processes and the kernel
/// change the same memory.
pub struct Mapping {
    address: usize,
    len: usize,
}

impl Mapping {
    /// mmap() of a part of the descriptor, with any protection and flags.
    pub fn new(
        fd: impl AsFd,
        pgoff: u64,
        pages: u64,
        protection: i32,
        flags: i32,
    ) -> Result<Self, Errno> {
        let len = pages as usize * PAGE;
        // SAFETY: without MAP_FIXED no existing mapping is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                flags,
                fd.as_fd().as_raw_fd(),
                (pgoff * PAGE as u64) as i64,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self {
            address: address.expose_provenance(),
            len,
        })
    }

    /// Where it is mapped.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Mapped bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of a byte of it.
    pub fn at(&self, offset: usize) -> usize {
        assert!(offset <= self.len, "offset {offset} of {}", self.len);
        self.address + offset
    }

    fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset + len <= self.len,
            "bytes {offset}+{len} of {}",
            self.len
        );
        std::ptr::with_exposed_provenance_mut(self.address + offset)
    }

    /// Stores bytes with the widest stores that are aligned.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let target = self.pointer(offset, bytes.len());
        // SAFETY: inside the mapping, which lives as long as self.
        unsafe { copy_volatile(target, bytes.as_ptr(), bytes.len()) };
    }

    /// Stores an aligned word.
    pub fn store_word(&self, offset: usize, value: u64) {
        let target = self.pointer(offset, 8).cast::<u64>();
        // SAFETY: inside the mapping, which lives as long as self, and aligned as asked for.
        unsafe { target.write_volatile(value) };
    }

    /// Loads bytes.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let source = self.pointer(offset, len);
        let mut bytes = vec![0; len];
        // SAFETY: inside the mapping, which lives as long as self.
        unsafe { copy_volatile(bytes.as_mut_ptr(), source, len) };
        bytes
    }

    /// Stores one byte.
    pub fn set(&self, offset: usize, value: u8) {
        // SAFETY: inside the mapping, which lives as long as self.
        unsafe { self.pointer(offset, 1).write_volatile(value) };
    }

    /// Loads one byte.
    pub fn get(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping, which lives as long as self.
        unsafe { self.pointer(offset, 1).read_volatile() }
    }

    /// Stores one byte at the start of a page of the mapping.
    pub fn touch(&self, page: usize, value: u8) {
        self.set(page * PAGE, value);
    }

    /// One store instruction of 1, 2, 4 or 8 bytes, at any alignment.
    pub fn store(&self, offset: usize, bytes: &[u8]) {
        let target = self.pointer(offset, bytes.len());
        macro_rules! one {
            ($kind:ty) => {{
                let value = <$kind>::from_ne_bytes(bytes.try_into().expect("matched length"));
                // SAFETY: inside the mapping; x86-64 stores at any alignment, and the
                // inline assembly says so to the compiler.
                unsafe { store_unaligned::<$kind>(target, value) };
            }};
        }
        match bytes.len() {
            1 => self.set(offset, bytes[0]),
            2 => one!(u16),
            4 => one!(u32),
            8 => one!(u64),
            other => panic!("no store of {other} bytes"),
        }
    }

    /// Unmaps it now and tells when that fails.
    pub fn unmap(self) -> Result<(), Errno> {
        let result = unmap(self.address, self.len);
        std::mem::forget(self);
        result
    }

    /// mprotect() of some of its pages.
    pub fn protect(&self, page: usize, pages: usize, protection: i32) -> Result<(), Errno> {
        let start = self.pointer(page * PAGE, pages * PAGE);
        // SAFETY: changes the protection of pages of this mapping only; whoever writes to
        // them afterwards wants the fault.
        Errno::result(unsafe { libc::mprotect(start.cast(), pages * PAGE, protection) }).map(drop)
    }

    /// madvise() of some of its pages.
    pub fn advise(&self, page: usize, pages: usize, advice: i32) -> Result<(), Errno> {
        let start = self.pointer(page * PAGE, pages * PAGE);
        // SAFETY: the memory is the arena's, which keeps its content whatever the advice.
        Errno::result(unsafe { libc::madvise(start.cast(), pages * PAGE, advice) }).map(drop)
    }

    /// mremap() to some other address.
    pub fn move_elsewhere(&mut self) -> Result<(), Errno> {
        // A range that nothing uses: reserve it, then move over it.
        let space = Self::anonymous(self.len)?;
        let target = space.address;
        std::mem::forget(space);
        // SAFETY: the old range is this mapping, the new one was reserved just now.
        let moved = unsafe {
            libc::mremap(
                std::ptr::with_exposed_provenance_mut(self.address),
                self.len,
                self.len,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                std::ptr::with_exposed_provenance_mut::<libc::c_void>(target),
            )
        };
        if moved == libc::MAP_FAILED {
            let errno = Errno::last();
            let _ = unmap(target, self.len);
            return Err(errno);
        }
        self.address = target;
        Ok(())
    }

    /// munmap() of some of its pages, and mmap() of the same part of the descriptor there.
    ///
    /// `pgoff` is the arena's page that the first of them shows.
    pub fn replace(
        &self,
        fd: impl AsFd,
        pgoff: u64,
        page: usize,
        pages: usize,
    ) -> Result<(), Errno> {
        let start = self.pointer(page * PAGE, pages * PAGE);
        unmap(start.addr(), pages * PAGE)?;
        // SAFETY: the range is a part of this mapping, free since just now. Tests call this
        // where no other thread maps anything.
        let address = unsafe {
            libc::mmap(
                start.cast(),
                pages * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
                fd.as_fd().as_raw_fd(),
                (pgoff * PAGE as u64) as i64,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(())
    }

    /// mremap() to its first `pages` pages.
    pub fn shrink(&mut self, pages: usize) -> Result<(), Errno> {
        let len = pages * PAGE;
        assert!(0 < len && len <= self.len, "{pages} of {} bytes", self.len);
        // SAFETY: gives up a part of this mapping.
        let address = unsafe { libc::mremap(self.pointer(0, self.len).cast(), self.len, len, 0) };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        self.len = len;
        Ok(())
    }

    /// Moves what begins at a page elsewhere with mremap(); it is a mapping of its own.
    pub fn split_off(&mut self, page: usize) -> Result<Self, Errno> {
        let at = page * PAGE;
        assert!(0 < at && at < self.len, "page {page} of {} bytes", self.len);
        let mut tail = Self {
            address: self.address + at,
            len: self.len - at,
        };
        let moved = tail.move_elsewhere();
        if let Err(errno) = moved {
            std::mem::forget(tail);
            return Err(errno);
        }
        self.len = at;
        Ok(tail)
    }

    /// Private anonymous memory, for the tests' own use.
    pub fn anonymous(len: usize) -> Result<Self, Errno> {
        // SAFETY: without MAP_FIXED no existing mapping is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self {
            address: address.expose_provenance(),
            len,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = unmap(self.address, self.len);
    }
}

fn unmap(address: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: the callers give up a range that is theirs.
    Errno::result(unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(address), len) })
        .map(drop)
}

/// Copies with volatile accesses, eight bytes at a time where both are aligned.
///
/// # Safety
///
/// Both ranges are mapped, with the needed access, and do not overlap.
unsafe fn copy_volatile(target: *mut u8, source: *const u8, len: usize) {
    let mut done = 0;
    while done < len {
        // SAFETY: `done` is below `len`, so both pointers are inside their ranges; the wide
        // access is made only when aligned and when eight bytes are left.
        unsafe {
            let (to, from) = (target.add(done), source.add(done));
            if len - done >= 8 && to.addr() % 8 == 0 && from.addr() % 8 == 0 {
                to.cast::<u64>()
                    .write_volatile(from.cast::<u64>().read_volatile());
                done += 8;
            } else {
                to.write_volatile(from.read_volatile());
                done += 1;
            }
        }
    }
}

trait StoreWord: Copy {
    /// # Safety
    ///
    /// `target` is mapped writable for the size of the word.
    unsafe fn store_at(self, target: *mut u8);
}

macro_rules! store_word {
    ($kind:ty, $instruction:literal) => {
        impl StoreWord for $kind {
            unsafe fn store_at(self, target: *mut u8) {
                // SAFETY: one store to memory that the caller vouches for.
                unsafe {
                    std::arch::asm!(
                        $instruction,
                        address = in(reg) target,
                        value = in(reg) self,
                        options(nostack, preserves_flags)
                    );
                }
            }
        }
    };
}
store_word!(u16, "mov word ptr [{address}], {value:x}");
store_word!(u32, "mov dword ptr [{address}], {value:e}");
store_word!(u64, "mov qword ptr [{address}], {value:r}");

/// # Safety
///
/// `target` is mapped writable for the size of the word.
unsafe fn store_unaligned<T: StoreWord>(target: *mut u8, value: T) {
    // SAFETY: the caller vouches for the target.
    unsafe { value.store_at(target) };
}
