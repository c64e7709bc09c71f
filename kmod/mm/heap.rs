// SPDX-License-Identifier: GPL-2.0-only
//! Memory for the index: kernel memory, charged to the memory cgroup.

use core::alloc::Layout;
use core::ptr::NonNull;

use kernel::alloc::allocator::Kmalloc;
use kernel::alloc::flags;
use kernel::alloc::Allocator;
use kernel::alloc::NumaNode;

use crate::tracking::slot::Heap;

/// The slab allocator.
pub(crate) struct KernelHeap;

// SAFETY: `Kmalloc` returns memory of the layout's size and alignment, zeroed because of
// `__GFP_ZERO`, that is ours until it is freed. Both calls may be made wherever sleeping
// is allowed.
unsafe impl Heap for KernelHeap {
    fn zeroed<T>() -> Option<NonNull<T>> {
        let flags = flags::GFP_KERNEL_ACCOUNT | flags::__GFP_ZERO;
        let memory = Kmalloc::alloc(Layout::new::<T>(), flags, NumaNode::NO_NODE).ok()?;
        Some(memory.cast())
    }

    unsafe fn free<T>(memory: NonNull<T>) {
        // SAFETY: By the contract of `Heap::free` the memory came from `zeroed::<T>`, so
        // from `Kmalloc` with this layout, and nobody uses it any more.
        unsafe { Kmalloc::free(memory.cast(), Layout::new::<T>()) }
    }
}
