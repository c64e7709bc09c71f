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
//! 1. `Snapshot::reading`: while pages are handed over, so across the copying of user memory
//! 2. mmap lock, or the lock of a memory area (the kernel's; held in fault handlers, and by a
//!    commit for its own process)
//! 3. [`registry`]: all arenas by id
//! 4. `Arena::barrier`: read in faults and deltas, write in commits
//! 5. `Arena::snapshots`: those open, and which of their pages are frozen;
//!    `Arena::subscriptions`, never both; `Subscription::state`, under neither
//! 6. `i_mmap_rwsem` of the arena's address space (the kernel's; taken in commits)
//! 7. page-table locks (the kernel's)
//! 8. `Charge::account`, `Areas::count`, `Program::process`: arithmetic, and putting a page or a
//!    process in its place
//!
//! The registry is never held across the copying of user memory, a fault, or the freeing of
//! an arena; 4 and 5 never across the copying of user memory, which may lie in the arena
//! itself. `Noting::note_late` runs under 6 and 7 and takes no lock.

use kernel::miscdevice::MiscDeviceOptions;
use kernel::miscdevice::MiscDeviceRegistration;
use kernel::prelude::*;

use tracking::tracker::Policy;

mod arena;
mod arena_file;
mod charge;
mod device;
mod mm;
mod registry;
mod snapshot;
mod snapshot_file;
mod stats;
mod subscription;
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
    params: {
        policy: u8 {
            default: 0,
            description: "How new arenas are tracked: 0 adaptive, 1 all pages armed, 2 all pages open. For measurements.",
        },
    },
}

/// How arenas that are made now are tracked.
fn policy() -> Policy {
    match module_parameters::policy.value() {
        1 => Policy::Armed,
        2 => Policy::Open,
        _ => Policy::Adaptive,
    }
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
