// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going back while the program runs.

use super::*;

#[test]
fn a_program_undoes_what_it_did_and_is_told() {
    extern "C" fn told(_ctx: *mut ckpt_t, epoch: u64, user: *mut c_void) -> c_int {
        // SAFETY: The test gave the address of its number.
        unsafe { *user.cast::<u64>() = epoch };
        0
    }
    let place = Place::new();
    let ctx = place.open();
    let mut seen = 0u64;
    let when = CKPT_AFTER_RESTORE as c_int;
    assert_eq!(ckpt_hook(ctx, when, Some(told), (&raw mut seen).cast()), 0);
    assert_eq!(ckpt_rollback(ctx, 0), -libc::EINVAL);
    let numbers = region(ctx, c"numbers", 4096);
    // SAFETY: The region is there in every epoch.
    let put = |value| unsafe { numbers.write_volatile(value) };
    // SAFETY: As above.
    let get = || unsafe { numbers.read_volatile() };
    put(1);
    assert_eq!(commit(ctx), 0);
    put(2);
    assert_eq!(commit(ctx), 0);
    put(3);
    assert_eq!(ckpt_rollback(ctx, 0), 0, "{}", message());
    assert_eq!((get(), seen), (2, 2));
    assert_eq!(ckpt_rollback(ctx, 1), 0, "{}", message());
    assert_eq!((get(), seen), (1, 1));
    assert_eq!(ckpt_rollback(ctx, 1000), -libc::ENOENT);
    assert_eq!(ckpt_durable(ctx), ckpt_epoch(ctx));
    assert_eq!(ckpt_close(ctx), 0);
    let ctx = place.open();
    assert_eq!(get(), 1);
    assert_eq!(ckpt_close(ctx), 0);
}
