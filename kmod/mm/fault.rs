// SPDX-License-Identifier: GPL-2.0-only
//! Faults on an arena's mappings.

use core::marker::PhantomData;

use kernel::bindings;
use kernel::mm::virt::VmaNew;
use kernel::prelude::*;

use super::areas::Areas;
use super::folio::FolioRef;
use super::shim;
use super::table;
use crate::tracking::bits::Bits;
use crate::tracking::bits::CHUNK_PAGES;

/// What a fault handler says to the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Outcome(bindings::vm_fault_t);

impl Outcome {
    /// No memory: the kernel's out-of-memory handling decides.
    pub(crate) const NO_MEMORY: Outcome = Outcome(bindings::vm_fault_reason_VM_FAULT_OOM);
    /// The access cannot be served: SIGBUS.
    pub(crate) const REFUSED: Outcome = Outcome(bindings::vm_fault_reason_VM_FAULT_SIGBUS);
    /// Nothing is left to do: the access is tried again, and may fault again.
    pub(crate) const AGAIN: Outcome = Outcome(bindings::vm_fault_reason_VM_FAULT_NOPAGE);
    /// The page to be mapped is in the fault.
    pub(super) const PAGE: Outcome = Outcome(0);
    /// As `AGAIN`, and the lock that the fault came with is not held any more.
    const UNLOCKED: Outcome = Outcome(bindings::vm_fault_reason_VM_FAULT_RETRY);

    /// As the kernel takes it.
    pub(super) fn raw(self) -> bindings::vm_fault_t {
        self.0
    }
}

/// What serves the faults of a mapping.
pub(crate) trait Faults: Send + Sync {
    /// Access to a page without a page-table entry.
    fn fault(&self, fault: &Fault<'_>) -> Outcome;

    /// First write through a read-only entry.
    fn make_writable(&self, fault: &Fault<'_>) -> Outcome;

    /// Where the areas are counted.
    fn areas(&self) -> &Areas;
}

/// How a wait ends before what it waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// By any signal.
    Interruptible,
    /// By a fatal signal.
    Killable,
}

/// A fault being handled. The mmap lock or the lock of the area is held.
///
/// # Invariants
///
/// `vmf` is valid for the lifetime and describes a fault in an area that [`serve`] set up.
pub(crate) struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    _lifetime: PhantomData<&'a mut bindings::vm_fault>,
}

impl Fault<'_> {
    /// Page of the arena that was accessed.
    pub(crate) fn pgoff(&self) -> u64 {
        // SAFETY: By the invariant `vmf` is valid.
        (unsafe { (*self.vmf).__bindgen_anon_1.pgoff }) as u64
    }

    /// Whether the access is a write.
    pub(crate) fn is_write(&self) -> bool {
        // SAFETY: By the invariant `vmf` is valid.
        let flags = unsafe { (*self.vmf).flags };
        flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0
    }

    /// Puts a page into the page table: writable and dirty for a write, else as the area
    /// says, which is read-only as long as writes are of interest.
    pub(crate) fn insert(&self, folio: FolioRef<'_>, write: bool) -> Outcome {
        // SAFETY: `vmf` is valid, its area allows page structures (`VM_MIXEDMAP`), and the
        // page lives as long as the arena, so longer than its mappings.
        Outcome(unsafe { bindings::vmf_insert_page_mkwrite(self.vmf, folio.page(), write) })
    }

    /// Makes all entries writable that are there, of the pages of this fault's chunk but those
    /// in `not`, in this fault's area. Returns those that are writable now.
    pub(crate) fn open_chunk(&self, not: &Bits) -> Bits {
        let first = self.pgoff() & !(CHUNK_PAGES as u64 - 1);
        let mut open = Bits::default();
        let of = Bits::ALL.minus(not);
        // SAFETY: `vmf` is valid and its area locked.
        unsafe {
            let vma = (*self.vmf).__bindgen_anon_1.vma;
            table::visit(vma, first, &of, |entries| open.union(&entries.open(&of)));
        }
        open
    }

    fn has(&self, flag: bindings::fault_flag) -> bool {
        // SAFETY: By the invariant `vmf` is valid.
        let flags = unsafe { (*self.vmf).flags };
        flags & flag != 0
    }

    /// Whether the lock that the fault came with may be released. Only in [`Faults::fault`]:
    /// the kernel hides it from [`Faults::make_writable`].
    pub(crate) fn can_wait(&self) -> bool {
        self.has(bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY)
    }

    /// Releases the lock that the fault came with, waits with `wait`, and has the access tried
    /// again. Only if it [can wait](Fault::can_wait).
    ///
    /// When this returns, what serves the fault may be gone.
    pub(crate) fn wait<F>(&self, wait: F) -> Outcome
    where
        F: FnOnce(Patience) -> Result,
    {
        if !self.can_wait() {
            return Outcome::REFUSED;
        }
        if self.has(bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT) {
            return Outcome::UNLOCKED;
        }
        let patience = match self.has(bindings::fault_flag_FAULT_FLAG_INTERRUPTIBLE) {
            true => Patience::Interruptible,
            false => Patience::Killable,
        };
        // SAFETY: The area is valid until its lock is released, and an area of ours has a
        // file. The file, and with it the arena, stays for the wait.
        let file = unsafe { shim::ckpt_get_file((*(*self.vmf).__bindgen_anon_1.vma).vm_file) };
        // SAFETY: The lock is held, and the outcome tells that it is not any more.
        unsafe { shim::ckpt_release_fault_lock(self.vmf) };
        // Whoever asked looks for signals by himself.
        let _ = wait(patience);
        // SAFETY: The reference is ours.
        unsafe { bindings::fput(file) };
        Outcome::UNLOCKED
    }

    /// Makes the entry that this fault is about writable. Only in
    /// [`Faults::make_writable`].
    pub(crate) fn make_writable(&self) -> Outcome {
        // SAFETY: As for `insert`; the kernel set `page` to what the entry maps, which
        // `insert` put there.
        Outcome(unsafe { bindings::vmf_insert_page_mkwrite(self.vmf, (*self.vmf).page, true) })
    }
}

/// Makes the faults of a new mapping be served by `faults`, and sets the area's policy.
///
/// # Safety
///
/// `faults` stays valid for as long as the mapped file is open.
pub(super) unsafe fn serve<F: Faults>(vma: &VmaNew, faults: &F) {
    // Pages of ours by structure; no growing by mremap, no inheriting, no core dump.
    vma.set_mixedmap();
    vma.set_dontexpand();
    vma.set_dontcopy();
    vma.set_dontdump();
    let raw = vma.as_ptr();
    // SAFETY: The area is being set up, so nobody else uses it. It keeps its file open.
    unsafe {
        (*raw).vm_private_data = core::ptr::from_ref(faults).cast_mut().cast();
        (*raw).vm_ops = &Callbacks::<F>::TABLE;
        faults.areas().add(raw);
    }
}

/// The area operations that ask an `F`.
struct Callbacks<F>(PhantomData<F>);

impl<F: Faults> Callbacks<F> {
    const TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        open: Some(Self::open),
        close: Some(Self::close),
        fault: Some(Self::fault),
        page_mkwrite: Some(Self::page_mkwrite),
        map_pages: Some(Self::map_pages),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `vmf` is a fault in an area set up by [`serve`] with an `F`.
    unsafe fn parts<'a>(vmf: *mut bindings::vm_fault) -> (&'a F, Fault<'a>) {
        // SAFETY: As this function's contract; the file stays open while the fault is handled.
        let faults = unsafe { Self::server((*vmf).__bindgen_anon_1.vma) };
        // INVARIANT: As this function's contract.
        let fault = Fault {
            vmf,
            _lifetime: PhantomData,
        };
        (faults, fault)
    }

    /// # Safety
    ///
    /// `vma` is an area set up by [`serve`] with an `F`.
    unsafe fn server<'a>(vma: *mut bindings::vm_area_struct) -> &'a F {
        // SAFETY: By `serve` the private data is an `F` that is valid while the area's file
        // is open.
        unsafe { &*(*vma).vm_private_data.cast::<F>() }
    }

    /// A copy of an area was made, by splitting or moving it.
    ///
    /// # Safety
    ///
    /// Called by the kernel with the copy of an area set up by [`serve`] with an `F`.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: As this function's contract.
        unsafe { Self::server(vma).areas().add(vma) };
    }

    /// An area goes. Its entries are gone.
    ///
    /// # Safety
    ///
    /// Called by the kernel with an area set up by [`serve`] with an `F`.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: As this function's contract; it was counted when it came.
        unsafe { Self::server(vma).areas().remove(vma) };
    }

    /// # Safety
    ///
    /// Called by the kernel for a fault in an area set up by [`serve`] with an `F`.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: As this function's contract.
        let (faults, fault) = unsafe { Self::parts(vmf) };
        faults.fault(&fault).0
    }

    /// # Safety
    ///
    /// Called by the kernel for a fault in an area set up by [`serve`] with an `F`.
    unsafe extern "C" fn page_mkwrite(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: As this function's contract.
        let (faults, fault) = unsafe { Self::parts(vmf) };
        faults.make_writable(&fault).0
    }

    /// Maps nothing ahead. Its presence lets faults run under the area's own lock.
    ///
    /// # Safety
    ///
    /// None: does nothing.
    unsafe extern "C" fn map_pages(
        _vmf: *mut bindings::vm_fault,
        _first: c_ulong,
        _last: c_ulong,
    ) -> bindings::vm_fault_t {
        0
    }
}
