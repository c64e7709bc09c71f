// SPDX-License-Identifier: GPL-2.0-only
//! Atomics, in the place of those of `core`, that let others go first.
//!
//! Only where the order matters: accesses that are `Relaxed` are protected by something else, and
//! so are not tried in every order. All is sequentially consistent here.

use std::cell::Cell;
use std::sync::atomic as real;
pub use std::sync::atomic::Ordering;

use crate::schedule::before_access;

thread_local! {
    /// A change reads and writes in two steps, as if it were not atomic.
    pub static TORN: Cell<bool> = const { Cell::new(false) };
    /// Others may go first before an access to a pointer, too.
    pub static POINTERS: Cell<bool> = const { Cell::new(false) };
}

fn before(order: Ordering) {
    if order != Ordering::Relaxed {
        before_access();
    }
}

fn before_pointer() {
    if POINTERS.get() {
        before_access();
    }
}

#[derive(Default)]
#[repr(transparent)]
pub struct AtomicU64(real::AtomicU64);

impl AtomicU64 {
    pub const fn new(value: u64) -> Self {
        AtomicU64(real::AtomicU64::new(value))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        before(order);
        self.0.load(Ordering::SeqCst)
    }

    pub fn store(&self, value: u64, order: Ordering) {
        before(order);
        self.0.store(value, Ordering::SeqCst);
    }

    pub fn into_inner(self) -> u64 {
        self.0.into_inner()
    }

    fn change(&self, order: Ordering, change: impl Fn(u64) -> u64) -> u64 {
        before(order);
        if TORN.get() && order != Ordering::Relaxed {
            let old = self.0.load(Ordering::SeqCst);
            before(order);
            self.0.store(change(old), Ordering::SeqCst);
            return old;
        }
        let changed = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(change(old)));
        changed.unwrap_or_else(|old| old)
    }

    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.change(order, |_| value)
    }

    pub fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.change(order, |old| old | bits)
    }

    pub fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.change(order, |old| old & bits)
    }

    pub fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
        self.change(order, |old| old.wrapping_add(more))
    }

    pub fn fetch_sub(&self, less: u64, order: Ordering) -> u64 {
        self.change(order, |old| old.wrapping_sub(less))
    }
}

#[repr(transparent)]
pub struct AtomicBool(real::AtomicBool);

impl AtomicBool {
    pub const fn new(value: bool) -> Self {
        AtomicBool(real::AtomicBool::new(value))
    }

    pub fn load(&self, order: Ordering) -> bool {
        before(order);
        self.0.load(Ordering::SeqCst)
    }

    pub fn store(&self, value: bool, order: Ordering) {
        before(order);
        self.0.store(value, Ordering::SeqCst);
    }
}

#[repr(transparent)]
pub struct AtomicPtr<T>(real::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub const fn new(value: *mut T) -> Self {
        AtomicPtr(real::AtomicPtr::new(value))
    }

    pub fn get_mut(&mut self) -> &mut *mut T {
        self.0.get_mut()
    }

    pub fn load(&self, _order: Ordering) -> *mut T {
        before_pointer();
        self.0.load(Ordering::SeqCst)
    }

    pub fn compare_exchange(
        &self,
        from: *mut T,
        to: *mut T,
        _order: Ordering,
        _failed: Ordering,
    ) -> Result<*mut T, *mut T> {
        before_pointer();
        self.0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
    }
}
