// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Values by number, found without a lock.
//!
//! Every call from C looks its context up, so a lock would be where all threads of a program
//! meet; and a child that was forked while another thread held it could not take it any more.
//!
//! The values stand in slots of a list that only grows; slots are used again. Who looks a value
//! up counts itself in the slot and then looks whether the number is still there. Who removes a
//! value takes the number away and then waits until nobody is counted. These four accesses are
//! sequentially consistent: one of the two sees the other.

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How long who removes a value sleeps between looks at whether it is in use.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Values by number. Its slots are never freed.
pub struct Registry<T> {
    first: AtomicPtr<Slot<T>>,
}

struct Slot<T> {
    /// Number of the value that can be found here, 0 while there is none.
    number: AtomicUsize,
    /// Who uses the value, or is about to see that it is another.
    users: AtomicUsize,
    /// Somebody puts a value here, has one here, or takes it away.
    taken: AtomicBool,
    /// Written by who has `taken`, while there is no number; read by counted users.
    value: UnsafeCell<Option<T>>,
    /// Does not change any more once the slot is in the list.
    next: *const Slot<T>,
}

impl<T> Slot<T> {
    fn has(&self, number: usize) -> bool {
        number != 0 && self.number.load(Ordering::SeqCst) == number
    }

    /// Uses the value that had this number a moment ago, if it still has.
    fn enter(&self, number: usize) -> Option<Found<'_, T>> {
        self.users.fetch_add(1, Ordering::SeqCst);
        if self.has(number) {
            // SAFETY: The number is given after the value is written, and this user was counted
            // before the number was taken away, so who does that waits.
            if let Some(value) = unsafe { &*self.value.get() } {
                let users = &self.users;
                return Some(Found { users, value });
            }
        }
        self.users.fetch_sub(1, Ordering::Release);
        None
    }
}

/// A value, which stays where it is as long as this lives.
pub struct Found<'a, T> {
    users: &'a AtomicUsize,
    value: &'a T,
}

impl<T> Deref for Found<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Drop for Found<'_, T> {
    fn drop(&mut self) {
        self.users.fetch_sub(1, Ordering::Release);
    }
}

// SAFETY: A value is put in by one thread, read by many, and taken out by another.
unsafe impl<T: Send + Sync> Sync for Registry<T> {}

impl<T> Registry<T> {
    /// Nothing is in it.
    pub const fn new() -> Registry<T> {
        Registry {
            first: AtomicPtr::new(null_mut()),
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<T>> {
        let first: *const Slot<T> = self.first.load(Ordering::Acquire);
        // SAFETY: Slots are never freed, and were whole before they came into the list.
        let slot = |at: *const Slot<T>| unsafe { at.as_ref() };
        std::iter::successors(slot(first), move |before| slot(before.next))
    }

    /// Puts a value in. The number is not 0 and no other value ever had it.
    pub fn insert(&self, number: usize, value: T) {
        let take = |slot: &&Slot<T>| {
            slot.taken
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        let free = self.slots().find(take);
        let slot = free.unwrap_or_else(|| self.grow());
        // SAFETY: The slot is taken by this thread and has no number, so nobody reads it.
        unsafe { *slot.value.get() = Some(value) };
        slot.number.store(number, Ordering::SeqCst);
    }

    /// A new slot, taken.
    fn grow(&self) -> &Slot<T> {
        let slot = Box::leak(Box::new(Slot {
            number: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            taken: AtomicBool::new(true),
            value: UnsafeCell::new(None),
            next: null_mut(),
        }));
        let mut next = self.first.load(Ordering::Relaxed);
        loop {
            slot.next = next;
            let pushed =
                self.first
                    .compare_exchange(next, slot, Ordering::Release, Ordering::Relaxed);
            match pushed {
                Ok(_) => return slot,
                Err(newer) => next = newer,
            }
        }
    }

    /// Finds a value.
    pub fn find(&self, number: usize) -> Option<Found<'_, T>> {
        let slot = self.slots().find(|slot| slot.has(number))?;
        slot.enter(number)
    }

    /// Takes a value out once nobody uses it any more; nobody finds it from the beginning of the
    /// call. `None` if it is not there, or another thread takes it out.
    pub fn remove(&self, number: usize) -> Option<T> {
        let take = |slot: &&Slot<T>| {
            number != 0
                && slot
                    .number
                    .compare_exchange(number, 0, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
        };
        let slot = self.slots().find(take)?;
        while slot.users.load(Ordering::SeqCst) != 0 {
            thread::sleep(LOOK_AGAIN);
        }
        // SAFETY: The slot is still taken, for this value; its number is gone, and so are those
        // who had found it by that.
        let value = unsafe { (*slot.value.get()).take() };
        slot.taken.store(false, Ordering::Release);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_number_until_it_is_removed() {
        let registry = Registry::new();
        assert!(registry.find(0).is_none() && registry.find(5).is_none());
        registry.insert(5, "five");
        registry.insert(6, "six");
        assert_eq!(
            (*registry.find(5).unwrap(), *registry.find(6).unwrap()),
            ("five", "six")
        );
        assert!(registry.find(0).is_none() && registry.find(7).is_none());
        assert_eq!(registry.remove(5), Some("five"));
        assert_eq!((registry.remove(5), registry.remove(0)), (None, None));
        assert!(registry.find(5).is_none());
        assert_eq!(*registry.find(6).unwrap(), "six");
    }

    #[test]
    fn slots_are_used_again() {
        let registry = Registry::new();
        for number in 1..100 {
            registry.insert(number, number);
            registry.insert(number + 1000, number);
            assert_eq!(registry.remove(number), Some(number));
            assert_eq!(registry.remove(number + 1000), Some(number));
        }
        assert_eq!(registry.slots().count(), 2);
    }

    #[test]
    fn who_comes_late_to_a_slot_does_not_get_the_next_value() {
        let registry = Registry::new();
        registry.insert(1, "one");
        let slot = registry.slots().next().unwrap();
        assert_eq!(registry.remove(1), Some("one"));
        assert!(slot.enter(1).is_none());
        registry.insert(2, "two");
        assert!(slot.enter(1).is_none());
        assert_eq!(slot.enter(2).as_deref(), Some(&"two"));
        assert_eq!(registry.remove(2), Some("two"), "nobody is counted");
    }

    /// Says, for ever, when it is gone.
    struct Value(usize, &'static AtomicBool);

    impl Drop for Value {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }

    fn flags(count: usize) -> &'static [AtomicBool] {
        let flags: Vec<AtomicBool> = (0..count).map(|_| AtomicBool::new(false)).collect();
        flags.leak()
    }

    #[test]
    fn who_removes_a_value_waits_for_those_who_use_it() {
        let gone = flags(1);
        let registry = Registry::new();
        registry.insert(1, Value(1, &gone[0]));
        thread::scope(|scope| {
            let found = registry.find(1).unwrap();
            let remove = scope.spawn(|| registry.remove(1).is_some());
            while registry.find(1).is_some() {
                thread::yield_now();
            }
            for _ in 0..1000 {
                assert!(!gone[0].load(Ordering::SeqCst));
                thread::yield_now();
            }
            assert_eq!(found.0, 1);
            drop(found);
            assert!(remove.join().unwrap());
        });
        assert!(gone[0].load(Ordering::SeqCst));
    }

    #[test]
    fn no_value_is_found_under_another_number_or_after_its_removal() {
        const NUMBERS: usize = 500;
        let gone = flags(NUMBERS + 1);
        let is_gone = |number: usize| gone[number].load(Ordering::SeqCst);
        let registry: Registry<Value> = Registry::new();
        let (newest, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let removed = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_gone(NUMBERS) {
                        let number = newest.load(Ordering::SeqCst);
                        if let Some(value) = registry.find(number) {
                            seen.store(number, Ordering::SeqCst);
                            assert_eq!(value.0, number);
                            assert!(!is_gone(number), "{number} is in use");
                        }
                        thread::yield_now();
                    }
                });
            }
            // Two remove what one of them inserts, so that one of them is refused.
            let other = scope.spawn(|| {
                let mut removed = 0;
                while !is_gone(NUMBERS) {
                    let number = seen.load(Ordering::SeqCst);
                    removed += usize::from(registry.remove(number).is_some());
                    thread::yield_now();
                }
                removed
            });
            let mut removed = 0;
            for (number, flag) in gone.iter().enumerate().skip(1) {
                registry.insert(number, Value(number, flag));
                newest.store(number, Ordering::SeqCst);
                while seen.load(Ordering::SeqCst) != number {
                    thread::yield_now();
                }
                removed += usize::from(registry.remove(number).is_some());
                while !is_gone(number) {
                    thread::yield_now();
                }
            }
            removed + other.join().unwrap()
        });
        assert_eq!(removed, NUMBERS);
    }
}
