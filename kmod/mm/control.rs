// SPDX-License-Identifier: GPL-2.0-only
//! A page of the kernel's that programs may map and read.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::mm::virt::VmaNew;
use kernel::page::PAGE_SHIFT;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use super::compat;
use super::fault::Outcome;
use super::shim;

/// Fields of a control page: `struct ckpt_control`, as the kernel writes it.
///
/// Its layout is checked against the header where it is used.
#[repr(C)]
pub(crate) struct Fields {
    pub(crate) pending: AtomicU32,
    pub(crate) reserved: u32,
    pub(crate) epoch: AtomicU64,
    pub(crate) durable: AtomicU64,
    pub(crate) replicated: AtomicU64,
}

const _: () = assert!(size_of::<Fields>() <= PAGE_SIZE);

/// The page.
///
/// # Invariants
///
/// `page` is an order-0 page of the kernel's direct mapping, one reference of which is ours, and
/// which nobody writes but through [`Fields`].
pub(crate) struct ControlPage {
    page: NonNull<Fields>,
}

// SAFETY: Only atomics are written through it.
unsafe impl Send for ControlPage {}
// SAFETY: As above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    /// A page that tells an epoch, and else nothing.
    pub(crate) fn new(epoch: u64) -> Result<Self> {
        // SAFETY: Allocates, or returns null.
        let page = NonNull::new(unsafe { shim::ckpt_control_page_alloc() }).ok_or(ENOMEM)?;
        // INVARIANT: The reference of the allocation is ours.
        let control = ControlPage { page: page.cast() };
        control.fields().epoch.store(epoch, Ordering::Relaxed);
        Ok(control)
    }

    /// What it says.
    pub(crate) fn fields(&self) -> &Fields {
        // SAFETY: By the invariant the page is there; it was zeroed, which is a value of the
        // fields, and they are at its beginning, so aligned.
        unsafe { self.page.as_ref() }
    }

    /// Sets up an area that shows the page, and can never be written.
    ///
    /// # Safety
    ///
    /// The page stays for as long as the mapped file is open.
    pub(super) unsafe fn map(&self, vma: &VmaNew) -> Result {
        // A shared area of a read-only descriptor is only called so by `VM_MAYSHARE`.
        if (vma.end() - vma.start()) >> PAGE_SHIFT != 1 || vma.flags() & compat::VM_MAYSHARE == 0 {
            return Err(EINVAL);
        }
        // Fails if it is writable.
        vma.try_clear_maywrite().map_err(|_| EACCES)?;
        vma.set_dontexpand();
        vma.set_dontcopy();
        vma.set_dontdump();
        let raw = vma.as_ptr();
        // SAFETY: The area is being set up, so nobody else uses it. It keeps its file open.
        unsafe {
            (*raw).vm_private_data = self.page.as_ptr().cast();
            (*raw).vm_ops = &TABLE;
        }
        Ok(())
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours. Whoever pinned the page keeps it.
        unsafe { shim::ckpt_control_page_free(self.page.as_ptr().cast()) };
    }
}

const TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
    fault: Some(fault),
    ..pin_init::zeroed()
};

/// # Safety
///
/// Called by the kernel for a fault in an area set up by [`ControlPage::map`].
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: By `map` the private data is the page, which is there while the area's file is
    // open. The kernel takes over the reference.
    unsafe {
        let page = (*(*vmf).__bindgen_anon_1.vma).vm_private_data;
        (*vmf).page = shim::ckpt_control_page_get(page);
    }
    Outcome::PAGE.raw()
}
