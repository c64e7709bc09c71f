// SPDX-License-Identifier: GPL-2.0-only
//! Files that are not in any file system: the descriptors of an arena.

use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::bindings;
use kernel::fs::File;
use kernel::iov::IovIterDest;
use kernel::mm::virt::VmaNew;
use kernel::page::PAGE_SHIFT;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::aref::ARef;
use kernel::sync::poll::PollTable;

use super::compat;
use super::control::ControlPage;
use super::fault;
use super::mapping::Mapping;
use super::shim;

/// What an open file of this kind can do.
pub(crate) trait OpenFile: Send + Sync + Sized {
    /// What serves the faults of its mappings.
    type Faults: fault::Faults;

    /// Asked to be mapped. The mapping keeps the file, and so `self`, alive.
    fn mmap(&self) -> Result<&Self::Faults>;

    /// What is mapped at a page that is not of the arena, if there is something.
    fn control(&self, _pgoff: u64) -> Option<&ControlPage> {
        None
    }

    /// A command. `writable` says whether the descriptor is.
    fn ioctl(&self, writable: bool, cmd: u32, arg: usize) -> Result<isize>;

    /// Waits on `table` and says what is ready now.
    fn poll(&self, file: &File, table: PollTable<'_>) -> u32;

    /// Reads at a position. Returns the bytes read.
    fn read(&self, pos: u64, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// Prints what `/proc/PID/fdinfo/FD` shows.
    fn show(&self, to: &SeqFile);
}

/// A file that no descriptor shows yet.
///
/// # Invariants
///
/// `file` is valid, a reference of it is ours, its operations are those of `T`, and its
/// private data is null.
pub(crate) struct NewFile<T: OpenFile> {
    file: NonNull<bindings::file>,
    _kind: PhantomData<T>,
}

impl<T: OpenFile> NewFile<T> {
    /// A file with an inode, and so an address space, of its own.
    pub(crate) fn new(name: &CStr, writable: bool) -> Result<Self> {
        let flags = match writable {
            true => bindings::O_RDWR,
            false => bindings::O_RDONLY,
        };
        // SAFETY: The name is a C string, the operations are static, and they can do with
        // private data that is null.
        let file = unsafe {
            shim::anon_inode_create_getfile(
                name.as_char_ptr(),
                &Callbacks::<T>::TABLE,
                core::ptr::null_mut(),
                flags as c_int,
                core::ptr::null(),
            )
        };
        let file = Self::of(file)?;
        // SAFETY: The file is ours alone.
        unsafe { shim::ckpt_file_allow_positions(file.file.as_ptr()) };
        Ok(file)
    }

    /// A file that shares its inode with others, for what is neither mapped nor read.
    pub(crate) fn plain(name: &CStr) -> Result<Self> {
        // SAFETY: As in `new`.
        let file = unsafe {
            shim::anon_inode_getfile(
                name.as_char_ptr(),
                &Callbacks::<T>::TABLE,
                core::ptr::null_mut(),
                bindings::O_RDONLY as c_int,
            )
        };
        Self::of(file)
    }

    fn of(file: *mut bindings::file) -> Result<Self> {
        let file = kernel::error::from_err_ptr(file)?;
        // INVARIANT: The callers made it with null for private data.
        Ok(NewFile {
            // SAFETY: Not null: it would have been an error.
            file: unsafe { NonNull::new_unchecked(file) },
            _kind: PhantomData,
        })
    }

    /// The file's own address space.
    pub(crate) fn mapping(&self, len_bytes: u64) -> Mapping {
        // SAFETY: By the invariant the file is valid, and nobody else has it yet.
        unsafe { Mapping::of_new_file(self.file.as_ptr(), len_bytes) }
    }

    /// Makes the file map what `mapping` stands for, in place of its own address space.
    ///
    /// # Safety
    ///
    /// What [`NewFile::open`] is given keeps `mapping` alive.
    pub(crate) unsafe fn share(&self, mapping: &Mapping) {
        // SAFETY: The file is ours alone.
        unsafe {
            super::mapping::set_len(self.file.as_ptr(), mapping.len_bytes());
            (*self.file.as_ptr()).f_mapping = mapping.as_ptr();
        }
    }

    /// Gives the file its content.
    pub(crate) fn open(self, content: KBox<T>) -> ARef<File> {
        let file = core::mem::ManuallyDrop::new(self).file;
        // SAFETY: The file is ours alone, and its private data null. `File` is
        // `struct file`, the reference is handed over, and nobody has started to use a
        // position of it.
        unsafe {
            (*file.as_ptr()).private_data = KBox::into_raw(content).cast();
            ARef::from_raw(file.cast())
        }
    }
}

impl<T: OpenFile> Drop for NewFile<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours.
        unsafe { bindings::fput(self.file.as_ptr()) };
    }
}

/// The file operations of a `T`.
struct Callbacks<T>(PhantomData<T>);

impl<T: OpenFile> Callbacks<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: compat::OWNER,
        release: Some(Self::release),
        mmap: Some(Self::mmap),
        unlocked_ioctl: Some(Self::ioctl),
        // Structures are the same for 32-bit programs.
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: bindings::compat_ptr_ioctl,
        poll: Some(Self::poll),
        read_iter: Some(Self::read_iter),
        llseek: Some(bindings::generic_file_llseek),
        show_fdinfo: Some(Self::show_fdinfo),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `file` has these operations, was given its content, and is not being released.
    unsafe fn content<'a>(file: *mut bindings::file) -> &'a T {
        // SAFETY: By `NewFile::open` the private data is a `T`, until the release.
        unsafe { &*(*file).private_data.cast::<T>() }
    }

    /// # Safety
    ///
    /// Called by the kernel when nobody uses the file any more.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The private data is null or what `NewFile::open` put there, and this is
        // the last use of it.
        unsafe {
            let content = (*file).private_data.cast::<T>();
            if !content.is_null() {
                drop(KBox::from_raw(content));
            }
        }
        0
    }

    /// # Safety
    ///
    /// Called by the kernel with an area that is being set up for the file.
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: As this function's contract.
        let (content, area) = unsafe { (Self::content(file), VmaNew::from_raw(vma)) };
        // SAFETY: The area is being set up, so its fields do not change.
        let pgoff = (unsafe { (*vma).vm_pgoff }) as u64;
        if let Some(control) = content.control(pgoff) {
            // SAFETY: The content lives until the file's release, and what it lends as long.
            return match unsafe { control.map(area) } {
                Ok(()) => 0,
                Err(error) => error.to_errno(),
            };
        }
        let faults = match content.mmap() {
            Ok(faults) => faults,
            Err(error) => return error.to_errno(),
        };
        // SAFETY: The file is valid, and so is its address space's inode.
        let (writable, len) = unsafe {
            let host = (*(*file).f_mapping).host;
            (shim::ckpt_file_writable(file), super::mapping::len_of(host))
        };
        let pages = ((area.end() - area.start()) >> PAGE_SHIFT) as u64;
        if !writable {
            return EACCES.to_errno();
        }
        // A private or never writable area would end the kernel's walk over the areas of
        // the arena, and hide writes through those behind it.
        if area.flags() & bindings::VM_SHARED == 0 || area.flags() & bindings::VM_MAYWRITE == 0 {
            return EINVAL.to_errno();
        }
        if pgoff
            .checked_add(pages)
            .is_none_or(|end| end > len >> PAGE_SHIFT)
        {
            return ENXIO.to_errno();
        }
        // SAFETY: The content lives until the file's release, and what it lends as long.
        unsafe { fault::serve(area, faults) };
        0
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: As this function's contract.
        let (content, writable) = unsafe { (Self::content(file), shim::ckpt_file_writable(file)) };
        match content.ioctl(writable, cmd, arg) {
            Ok(value) => value as c_long,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and a poll table that is null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: As this function's contract.
        let content = unsafe { Self::content(file) };
        // SAFETY: The file is valid during the call; polling does not use its position.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: As this function's contract.
        content.poll(file, unsafe { PollTable::from_raw(table) })
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and an iterator to fill.
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As this function's contract: a kiocb has an open file.
        let content = unsafe { Self::content((*kiocb).ki_filp) };
        // SAFETY: As this function's contract.
        let (pos, to) = unsafe { ((*kiocb).ki_pos, IovIterDest::from_raw(to)) };
        match content.read(pos as u64, to) {
            Ok(bytes) => {
                // SAFETY: The kiocb is ours during the call.
                unsafe { (*kiocb).ki_pos = pos + bytes as i64 };
                bytes as isize
            }
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and a sequence to print to.
    unsafe extern "C" fn show_fdinfo(seq: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: As this function's contract.
        let (content, seq) = unsafe { (Self::content(file), SeqFile::from_raw(seq)) };
        content.show(seq);
    }
}

/// Fills with zeros. Returns the bytes filled.
pub(crate) fn read_zeros(len: usize, to: &mut IovIterDest<'_>) -> usize {
    // SAFETY: The iterator is valid.
    unsafe { bindings::iov_iter_zero(len, to.as_raw()) }
}
