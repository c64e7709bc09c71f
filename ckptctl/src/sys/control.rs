// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page through which a program is asked for commits and tells how far they have come: the
//! module's, or, without the module, one in a file.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::libc;

use super::abi;
use super::device::ArenaFd;
use super::gate::Call;
use super::gate::call;
use super::memory::PAGE;

/// `struct ckpt_control`. Behind it, in a file, what the kernel keeps for itself.
#[repr(C)]
struct Fields {
    pending: AtomicU32,
    zero: u32,
    epoch: AtomicU64,
    durable: AtomicU64,
    replicated: AtomicU64,
    /// In a file: which format.
    magic: AtomicU64,
    /// In a file: the program.
    pid: AtomicU32,
    /// In a file: grows with every change, for those who wait for one.
    changes: AtomicU32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Fields, pending) == offset_of!(abi::ckpt_control, pending));
    assert!(offset_of!(Fields, epoch) == offset_of!(abi::ckpt_control, epoch));
    assert!(offset_of!(Fields, durable) == offset_of!(abi::ckpt_control, durable));
    assert!(offset_of!(Fields, replicated) == offset_of!(abi::ckpt_control, replicated));
    assert!(offset_of!(Fields, magic) == size_of::<abi::ckpt_control>());
};

const MAGIC: u64 = u64::from_le_bytes(*b"CKPTCTL1");

/// The page, mapped.
#[derive(Debug)]
pub struct ControlPage {
    at: NonNull<Fields>,
}

// SAFETY: The page belongs to the process, and only atomics are in it.
unsafe impl Send for ControlPage {}
// SAFETY: As above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    /// That of an arena, which the module writes.
    pub fn of_arena(arena: &ArenaFd) -> io::Result<ControlPage> {
        ControlPage::map(arena.as_fd(), libc::PROT_READ, abi::CKPT_CONTROL_OFFSET)
    }

    /// One in a file, for the program itself. Requests that nobody has answered stay.
    pub fn in_new_file(path: &Path, pid: u32) -> io::Result<ControlPage> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if file.metadata()?.len() < PAGE as u64 {
            file.set_len(PAGE as u64)?;
        }
        let page = ControlPage::map_file(&file)?;
        let fields = page.fields();
        if fields.magic.swap(MAGIC, Ordering::Relaxed) != MAGIC {
            fields.pending.store(0, Ordering::Relaxed);
        }
        fields.epoch.store(0, Ordering::Relaxed);
        fields.durable.store(0, Ordering::Relaxed);
        fields.replicated.store(0, Ordering::Relaxed);
        fields.pid.store(pid, Ordering::Release);
        page.changed();
        Ok(page)
    }

    /// One in a file that a program has made. `None` when there is none, or it is something else.
    pub fn in_file(path: &Path) -> io::Result<Option<ControlPage>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < PAGE as u64 {
            return Ok(None);
        }
        let page = ControlPage::map_file(&file)?;
        Ok((page.fields().magic.load(Ordering::Acquire) == MAGIC).then_some(page))
    }

    fn map_file(file: &File) -> io::Result<ControlPage> {
        ControlPage::map(file.as_fd(), libc::PROT_READ | libc::PROT_WRITE, 0)
    }

    fn map(fd: BorrowedFd<'_>, protection: i32, offset: u64) -> io::Result<ControlPage> {
        use std::os::fd::AsRawFd;
        call(Call::Map, || {
            // SAFETY: Replaces no mapping.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    PAGE,
                    protection,
                    libc::MAP_SHARED,
                    fd.as_raw_fd(),
                    offset as libc::off_t,
                )
            };
            match NonNull::new(at) {
                Some(at) if at.as_ptr() != libc::MAP_FAILED => Ok(ControlPage { at: at.cast() }),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }

    fn fields(&self) -> &Fields {
        // SAFETY: Mapped in `map`, for a page, until this is dropped; any bytes are fields, and
        // the place is a page's, so aligned.
        unsafe { self.at.as_ref() }
    }

    /// Not zero while a commit is asked for.
    pub fn pending(&self) -> &AtomicU32 {
        &self.fields().pending
    }

    /// The last commit.
    pub fn epoch(&self) -> u64 {
        self.fields().epoch.load(Ordering::Acquire)
    }

    /// The last commit that is durable.
    pub fn durable(&self) -> u64 {
        self.fields().durable.load(Ordering::Acquire)
    }

    /// The last commit that is on another host.
    pub fn replicated(&self) -> u64 {
        self.fields().replicated.load(Ordering::Acquire)
    }

    /// In a file: the program whose it is.
    pub fn pid(&self) -> u32 {
        self.fields().pid.load(Ordering::Acquire)
    }

    /// In a file: this program is not there any more, if it is the one whose page it is.
    pub fn leave(&self, pid: u32) {
        let word = &self.fields().pid;
        let _ = word.compare_exchange(pid, 0, Ordering::AcqRel, Ordering::Relaxed);
        self.changed();
    }

    /// In a file: asks the program for a commit. Returns the last one.
    pub fn request(&self) -> u64 {
        // As the module does: first the epoch, then the mark.
        let epoch = self.epoch();
        self.fields().pending.store(1, Ordering::SeqCst);
        self.changed();
        epoch
    }

    /// In a file: an epoch was closed.
    pub fn closed(&self, epoch: u64) {
        self.fields().pending.store(0, Ordering::SeqCst);
        self.fields().epoch.store(epoch, Ordering::SeqCst);
        self.changed();
    }

    /// In a file: an epoch is durable.
    pub fn saved(&self, epoch: u64) {
        self.fields().durable.store(epoch, Ordering::Release);
        self.changed();
    }

    /// In a file: an epoch, and all before it, is on another host.
    pub fn replicated_up_to(&self, epoch: u64) {
        self.fields().replicated.fetch_max(epoch, Ordering::AcqRel);
        self.changed();
    }

    fn changed(&self) {
        let word = &self.fields().changes;
        word.fetch_add(1, Ordering::SeqCst);
        // SAFETY: Only wakes those who wait at the word.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAKE,
                i32::MAX,
                std::ptr::null::<libc::timespec>(),
            )
        };
    }

    /// In a file: what to wait from; to be asked before anything else is.
    pub fn seen(&self) -> u32 {
        self.fields().changes.load(Ordering::SeqCst)
    }

    /// In a file: waits until something changes, for so long at most.
    pub fn wait_for_change(&self, seen: u32, timeout: Duration) {
        let time = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: The word is mapped, the time is ours. However it ends, the caller looks again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.fields().changes.as_ptr(),
                libc::FUTEX_WAIT,
                seen,
                &raw const time,
            )
        };
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        let _ = call(Call::Unmap, || {
            // SAFETY: Mapped by us, and borrowed by nobody any more.
            match unsafe { libc::munmap(self.at.as_ptr().cast(), PAGE) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}
