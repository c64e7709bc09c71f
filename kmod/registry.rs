// SPDX-License-Identifier: GPL-2.0-only
//! All arenas, by id.
//!
//! The registry's lock guards the count of each arena's open descriptors as well, so that
//! an arena is either found with a descriptor still open, or not found.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::arena::Arena;
use crate::arena::Geometry;
use crate::mm::mapping::Mapping;
use crate::uapi;

struct Entry {
    arena: Arc<Arena>,
    descriptors: u64,
}

/// The arenas that have a descriptor open.
struct Registry {
    last_id: u64,
    /// By ascending id.
    arenas: KVVec<Entry>,
}

impl Registry {
    /// Where the arena of an id is, or would be.
    fn find(&self, id: u64) -> Result<usize, usize> {
        self.arenas
            .binary_search_by_key(&id, |entry| entry.arena.id)
    }
}

kernel::sync::global_lock! {
    // SAFETY: Initialised in the module's initialiser, before the device exists.
    unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry {
        last_id: 0,
        arenas: KVVec::new(),
    };
}

/// Makes the registry usable.
///
/// # Safety
///
/// Called once, before everything else here.
pub(crate) unsafe fn init() {
    // SAFETY: As this function's contract.
    unsafe { REGISTRY.init() };
}

/// The claim of one descriptor on an arena.
pub(crate) struct Claim {
    arena: Arc<Arena>,
}

impl core::ops::Deref for Claim {
    type Target = Arena;

    fn deref(&self) -> &Arena {
        &self.arena
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock();
        let Ok(at) = registry.find(self.arena.id) else {
            return;
        };
        registry.arenas[at].descriptors -= 1;
        if registry.arenas[at].descriptors == 0 {
            // Does not free the arena: `self` has it still.
            let _ = registry.arenas.remove(at);
            if registry.arenas.is_empty() {
                // A static is never dropped: else this memory would outlive the module.
                registry.arenas = KVVec::new();
            }
        }
    }
}

impl Claim {
    /// One more claim on the same arena.
    pub(crate) fn again(&self) -> Claim {
        let mut registry = REGISTRY.lock();
        // Found, because of this claim.
        if let Ok(at) = registry.find(self.arena.id) {
            registry.arenas[at].descriptors += 1;
        }
        Claim {
            arena: self.arena.clone(),
        }
    }
}

/// Makes an arena and the first claim on it.
pub(crate) fn create(geometry: Geometry, mapping: Mapping) -> Result<Claim> {
    let id = {
        let mut registry = REGISTRY.lock();
        registry.last_id += 1;
        registry.last_id
    };
    let arena = Arena::create(id, geometry, mapping)?;
    let entry = Entry {
        arena: arena.clone(),
        descriptors: 1,
    };
    let mut registry = REGISTRY.lock();
    registry.arenas.reserve(1, GFP_KERNEL)?;
    // Not always the end: another creation with a later id may have been faster.
    let at = registry.find(id).unwrap_or_else(|at| at);
    registry
        .arenas
        .insert_within_capacity(at, entry)
        .map_err(|_| ENOMEM)?;
    drop(registry);
    Ok(Claim { arena })
}

/// One more claim on an arena. `ENOENT` if there is none of this id, `EACCES` if the
/// calling process may not open it.
pub(crate) fn open(id: u64) -> Result<Claim> {
    let mut registry = REGISTRY.lock();
    let at = registry.find(id).map_err(|_| ENOENT)?;
    let entry = &mut registry.arenas[at];
    if !entry.arena.lets_in() {
        return Err(EACCES);
    }
    entry.descriptors += 1;
    Ok(Claim {
        arena: entry.arena.clone(),
    })
}

/// Fills `infos`, to its capacity, with the arenas of id `start` or above that the calling
/// process may open, ascending. Returns the id to go on from, if there may be more.
pub(crate) fn list(start: u64, infos: &mut KVec<uapi::ckpt_info>) -> Option<u64> {
    let registry = REGISTRY.lock();
    let from = registry.find(start).unwrap_or_else(|at| at);
    for entry in &registry.arenas[from..] {
        let arena = &entry.arena;
        if arena.lets_in() && infos.push_within_capacity(arena.info()).is_err() {
            return Some(arena.id);
        }
    }
    None
}
