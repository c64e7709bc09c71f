// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that the program had already.

use std::cell::UnsafeCell;

use super::*;

const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u8; 2 * PAGE]>);
// SAFETY: Each test has its own.
unsafe impl Sync for Table {}

impl Table {
    const fn new() -> Table {
        Table(UnsafeCell::new([0; 2 * PAGE]))
    }

    fn adopt(&self, ctx: *mut ckpt_t, kind: u32, len: usize) -> c_int {
        // SAFETY: The name is a C string; the table is static, and one thread uses it.
        unsafe { ckpt_adopt(ctx, c"table".as_ptr(), kind, self.0.get().cast(), len) }
    }

    fn put(&self, value: u8) {
        // SAFETY: One thread uses it.
        unsafe { self.0.get().cast::<u8>().write_volatile(value) };
    }

    fn get(&self) -> u8 {
        // SAFETY: As above.
        unsafe { self.0.get().cast::<u8>().read_volatile() }
    }
}

#[test]
fn adopted_memory_is_0_at_first_and_1_when_it_comes_back() {
    static TABLE: Table = Table::new();
    let place = Place::new();
    let ctx = place.open();
    TABLE.put(1);
    assert_eq!(TABLE.adopt(ctx, 3, 2 * PAGE), 0, "{}", message());
    assert_eq!(TABLE.get(), 1, "it keeps its content");
    assert_eq!(TABLE.adopt(ctx, 3, 2 * PAGE), 1);
    TABLE.put(2);
    assert_eq!(commit(ctx), 0, "{}", message());
    TABLE.put(3);
    assert_eq!(ckpt_close(ctx), 0);
    assert_eq!(TABLE.get(), 3, "it is the program's again");
    let ctx = place.open();
    assert_eq!(TABLE.get(), 3, "opening does not touch it");
    assert_eq!(TABLE.adopt(ctx, 3, 2 * PAGE), 1, "{}", message());
    assert_eq!(TABLE.get(), 2);
    // SAFETY: The name is a C string.
    let len = unsafe { ckpt_region_len(ctx, c"table".as_ptr()) };
    assert_eq!(len, 2 * PAGE);
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn memory_that_cannot_be_adopted_is_refused_with_what_to_do() {
    static TABLE: Table = Table::new();
    let place = Place::new();
    let ctx = place.open();
    let mut local = [0u8; 3 * PAGE];
    let start = local.as_mut_ptr();
    // SAFETY: Within the array.
    let on_stack = unsafe { start.add(start.align_offset(PAGE)) };
    // SAFETY: The names are C strings or null, and memory that is refused is not touched.
    let adopt = |name, addr, len| unsafe { ckpt_adopt(ctx, name, 1, addr, len) };
    let name = c"table".as_ptr();
    let table = TABLE.0.get().cast();
    for (name, addr, len, error, word) in [
        (name, null_mut(), PAGE, libc::EINVAL, "addr is NULL"),
        (null(), table, PAGE, libc::EINVAL, "name is NULL"),
        (name, table, PAGE + 1, libc::EINVAL, "alignas"),
        (name, table, 0, libc::EINVAL, "whole pages"),
        (name, on_stack.cast(), PAGE, libc::EOPNOTSUPP, "stack"),
    ] {
        assert_eq!(adopt(name, addr, len), -error, "{}", message());
        assert!(message().contains(word), "{}", message());
    }
    assert_eq!(TABLE.adopt(ctx, 1, PAGE), 0, "{}", message());
    assert_eq!(TABLE.adopt(ctx, 2, PAGE), -libc::EEXIST);
    assert_eq!(TABLE.adopt(ctx, 1, 2 * PAGE), -libc::EEXIST);
    assert_eq!(adopt(c"other".as_ptr(), table, PAGE), -libc::EADDRINUSE);
    assert_eq!(ckpt_enter(ctx), 0);
    assert_eq!(TABLE.adopt(ctx, 1, PAGE), -libc::EDEADLK);
    assert_eq!(ckpt_leave(ctx), 0);
    assert_eq!(ckpt_close(ctx), 0);
}
