// SPDX-License-Identifier: GPL-2.0-only
//! A place that is filled at most once, with memory of its own, and then stays.
//!
//! The index over an arena's pages grows under concurrent faults and is read
//! without locks. A [`Slot`] is the one building block that makes that safe:
//! what it points to appears complete, never changes place, and lives as long
//! as the slot. All `unsafe` of the logic is in this file.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// No memory could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Where slots get their memory from.
///
/// # Safety
///
/// - `zeroed` returns memory that is valid for a `T`, aligned for it, all bytes
///   zero, and used for nothing else until it is passed to `free`.
/// - Both may be called from any thread that may sleep.
pub unsafe trait Heap {
    /// Zeroed memory for a `T`, or `None`.
    fn zeroed<T>() -> Option<NonNull<T>>;

    /// Gives back memory from `zeroed`.
    ///
    /// # Safety
    ///
    /// `memory` came from `zeroed::<T>` of this heap, nobody uses it any more,
    /// and this is the only call for it.
    unsafe fn free<T>(memory: NonNull<T>);
}

/// A type of which all-zero bytes are a valid value.
///
/// # Safety
///
/// All-zero bytes are a valid, initialised value of the type.
pub unsafe trait Zeroed {}

// SAFETY: An atomic integer has the representation of its integer.
unsafe impl Zeroed for AtomicU64 {}

// SAFETY: A null pointer is a valid value of `AtomicPtr`, and is all zeros.
unsafe impl<T> Zeroed for AtomicPtr<T> {}

// SAFETY: An array has no bytes but those of its elements.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}

// SAFETY: A slot is an `AtomicPtr` and nothing else that has a size.
unsafe impl<T, H: Heap> Zeroed for Slot<T, H> {}

/// A place for one `T`, filled on first use.
///
/// # Invariants
///
/// `place` is null, or was made by `H::zeroed`, holds a valid `T`, is owned by
/// this slot, and does not change again.
#[repr(transparent)]
pub struct Slot<T, H: Heap> {
    place: AtomicPtr<T>,
    owns: PhantomData<(T, H)>,
}

// SAFETY: The slot owns its `T` and hands out only shared references to it. `H`
// is never held as a value.
unsafe impl<T: Send + Sync, H: Heap> Send for Slot<T, H> {}
// SAFETY: As above; filling is a compare-and-exchange.
unsafe impl<T: Send + Sync, H: Heap> Sync for Slot<T, H> {}

impl<T: Zeroed, H: Heap> Slot<T, H> {
    /// An empty slot.
    pub const fn new() -> Self {
        // INVARIANT: `place` is null.
        Slot {
            place: AtomicPtr::new(core::ptr::null_mut()),
            owns: PhantomData,
        }
    }

    /// What the slot holds, if anything.
    pub fn get(&self) -> Option<&T> {
        let place = self.place.load(Ordering::Acquire);
        // SAFETY: By the invariant a non-null `place` is valid for as long as
        // `self` is; the acquire pairs with the release that published it.
        unsafe { place.as_ref() }
    }

    /// What the slot holds, put there now as all zeros if there was nothing.
    ///
    /// The flag is true when this call filled the slot.
    pub fn get_or_fill(&self) -> Result<(&T, bool), NoMemory> {
        if let Some(value) = self.get() {
            return Ok((value, false));
        }
        let fresh = H::zeroed::<T>().ok_or(NoMemory)?;
        // INVARIANT: `fresh` comes from `H::zeroed`, is a valid `T` because of
        // `T: Zeroed`, and `place` was null, so it changes once.
        match self.place.compare_exchange(
            core::ptr::null_mut(),
            fresh.as_ptr(),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            // SAFETY: `fresh` is now owned by the slot and lives as long as it.
            Ok(_) => Ok((unsafe { fresh.as_ref() }, true)),
            Err(winner) => {
                // SAFETY: Nobody has seen `fresh`, and an all-zero `T` needs
                // no drop.
                unsafe { H::free(fresh) };
                // SAFETY: `winner` is not null, so by the invariant it is valid
                // for as long as `self`.
                Ok((unsafe { &*winner }, false))
            }
        }
    }
}

impl<T: Zeroed, H: Heap> Default for Slot<T, H> {
    fn default() -> Self {
        Slot::new()
    }
}

impl<T, H: Heap> Drop for Slot<T, H> {
    fn drop(&mut self) {
        if let Some(place) = NonNull::new(*self.place.get_mut()) {
            // SAFETY: The slot owns the value, and `&mut self` says that no
            // reference handed out by it is left.
            unsafe {
                place.drop_in_place();
                H::free(place);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::alloc::Layout;

    /// The host's heap.
    pub struct Host;

    // SAFETY: `alloc_zeroed` and `dealloc` with the layout of `T` do as asked.
    unsafe impl Heap for Host {
        fn zeroed<T>() -> Option<NonNull<T>> {
            assert!(size_of::<T>() > 0);
            // SAFETY: The layout is not of size zero.
            NonNull::new(unsafe { std::alloc::alloc_zeroed(Layout::new::<T>()) }.cast())
        }

        unsafe fn free<T>(memory: NonNull<T>) {
            // SAFETY: By the contract `memory` came from `zeroed::<T>`.
            unsafe { std::alloc::dealloc(memory.as_ptr().cast(), Layout::new::<T>()) }
        }
    }

    #[test]
    fn a_slot_is_filled_once_under_contention() {
        let slot: Slot<AtomicU64, Host> = Slot::new();
        let filled = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let (value, first) = slot.get_or_fill().expect("memory");
                    value.fetch_add(1, Ordering::Relaxed);
                    filled.fetch_add(u64::from(first), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(filled.into_inner(), 1);
        let value = slot.get().expect("filled").load(Ordering::Relaxed);
        assert_eq!(value, 8);
    }

    #[test]
    fn an_exhausted_heap_leaves_the_slot_empty() {
        struct Empty;
        // SAFETY: Hands out nothing.
        unsafe impl Heap for Empty {
            fn zeroed<T>() -> Option<NonNull<T>> {
                None
            }
            unsafe fn free<T>(_: NonNull<T>) {
                unreachable!("nothing was handed out");
            }
        }
        let slot: Slot<AtomicU64, Empty> = Slot::new();
        assert!(slot.get_or_fill().is_err());
        assert!(slot.get().is_none());
    }
}
