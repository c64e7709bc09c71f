// SPDX-License-Identifier: GPL-2.0-only
//! ckpt: memory that remembers what changed.
//!
//! The module owns the pages of *arenas*, which programs map shared. It notes the pages
//! that are written, closes epochs on request, and tells which pages changed since one.
//! `include/uapi/ckpt.h` is the ABI.
//!
//! # Lock order
//!
//! An earlier one may be held when a later one is taken, never the other way round.
//!
//! 1. mmap lock, or the lock of a memory area (the kernel's; held in fault handlers)
//! 2. [`registry`]: all arenas by id
//! 3. `Arena::barrier`: read in faults and deltas, write in commits
//! 4. `i_mmap_rwsem` of the arena's address space (the kernel's; taken in commits)
//! 5. page-table locks (the kernel's)
//! 6. `Charge::account`: arithmetic, and putting a page in its place
//!
//! The registry is never held across the copying of user memory, a fault, or the freeing of
//! an arena; the barrier never across the copying of user memory, which may lie in the
//! arena itself. `Noting::note_late` runs under 4 and 5 and takes no lock.

use kernel::miscdevice::MiscDeviceOptions;
use kernel::miscdevice::MiscDeviceRegistration;
use kernel::prelude::*;

mod arena;
mod arena_file;
mod charge;
mod device;
mod mm;
mod registry;
mod stats;
mod uapi;

/// The logic that needs no kernel, shared with its tests on the host.
#[path = "core/src"]
#[allow(unreachable_pub, reason = "public in the crate that the tests use")]
mod tracking {
    pub mod bits;
    pub mod chunk;
    pub mod index;
    pub mod ranges;
    pub mod slot;
    pub mod tracker;
}

module! {
    type: Ckpt,
    name: "ckpt",
    authors: ["The ckpt authors"],
    description: "Memory that remembers what changed",
    license: "GPL v2",
}

#[pin_data]
struct Ckpt {
    #[pin]
    _device: MiscDeviceRegistration<device::Device>,
}

impl kernel::InPlaceModule for Ckpt {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Once, and before the device is there to use it.
        unsafe { registry::init() };
        let options = MiscDeviceOptions { name: c"ckpt" };
        try_pin_init!(Self {
            _device <- MiscDeviceRegistration::register(options),
        })
    }
}
