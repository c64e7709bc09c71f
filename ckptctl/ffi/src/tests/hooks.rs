// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hooks that are C functions.

use super::*;

/// What hooks were told.
static TOLD: Mutex<Vec<(usize, u64, usize)>> = Mutex::new(Vec::new());

pub extern "C" fn note(ctx: *mut ckpt_t, epoch: u64, user: *mut c_void) -> c_int {
    TOLD.lock().unwrap().push((ctx.addr(), epoch, user.addr()));
    0
}

fn told(ctx: *mut ckpt_t) -> Vec<(u64, usize)> {
    let told = TOLD.lock().unwrap();
    let of_this = told.iter().filter(|(handle, ..)| *handle == ctx.addr());
    of_this.map(|&(_, epoch, user)| (epoch, user)).collect()
}

extern "C" fn refuse(_ctx: *mut ckpt_t, _epoch: u64, _user: *mut c_void) -> c_int {
    -libc::EAGAIN
}

extern "C" fn misbehave(ctx: *mut ckpt_t, _epoch: u64, seen: *mut c_void) -> c_int {
    // SAFETY: The test points at an array of four.
    let seen = unsafe { &mut *seen.cast::<[c_int; 4]>() };
    *seen = [
        commit(ctx),
        ckpt_wait(ctx, 0, 0),
        ckpt_close(ctx),
        ckpt_hook(ctx, 1, Some(note), null_mut()),
    ];
    c_int::from(ckpt_malloc(ctx, 10).is_null())
}

#[test]
fn c_hooks_run_in_order_and_may_refuse() {
    let place = Place::new();
    let ctx = place.open();
    let user = |number| without_provenance_mut(number);
    let (before, after) = (CKPT_BEFORE_COMMIT as i32, CKPT_AFTER_COMMIT as i32);
    for (when, number) in [(before, 1), (before, 2), (after, 3), (after, 4)] {
        assert_eq!(ckpt_hook(ctx, when, Some(note), user(number)), 0);
    }
    assert_eq!(commit(ctx), 0);
    assert_eq!(ckpt_wait(ctx, 1, -1), 0, "{}", message());
    assert_eq!(told(ctx), [(1, 1), (1, 2), (1, 4), (1, 3)]);
    assert_eq!(ckpt_hook(ctx, before, Some(refuse), null_mut()), 0);
    assert_eq!(commit(ctx), -libc::ECANCELED);
    assert_eq!(ckpt_epoch(ctx), 1);
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn a_hook_can_neither_commit_nor_wait_nor_close_nor_register() {
    for when in [CKPT_BEFORE_COMMIT, CKPT_AFTER_COMMIT] {
        let place = Place::new();
        let ctx = place.open();
        let mut seen = [0 as c_int; 4];
        let user = (&raw mut seen).cast();
        assert_eq!(ckpt_hook(ctx, when as i32, Some(misbehave), user), 0);
        assert_eq!(commit(ctx), 0, "{}", message());
        assert_eq!(ckpt_wait(ctx, 0, -1), 0, "{}", message());
        assert_eq!(seen, [-libc::EDEADLK; 4]);
        assert_eq!(ckpt_close(ctx), 0);
    }
}

extern "C" fn look(ctx: *mut ckpt_t, epoch: u64, seen: *mut c_void) -> c_int {
    // SAFETY: The test points at a number; the root is one, too.
    unsafe { *seen.cast::<u64>() = epoch * 1000 + *ckpt_root(ctx).cast::<u64>() };
    ckpt_close(ctx) + libc::EDEADLK
}

#[test]
fn the_hook_behind_a_restore_is_given_the_context_before_open_returns() {
    let place = Place::new();
    let ctx = place.open();
    let number = ckpt_malloc(ctx, 8).cast::<u64>();
    // SAFETY: The block is so long.
    unsafe { number.write(5) };
    assert_eq!(ckpt_set_root(ctx, number.cast()), 0);
    assert_eq!(commit(ctx), 0);
    assert_eq!(ckpt_close(ctx), 0);

    let mut seen = 0u64;
    let mut options = place.options();
    options.after_restore = Some(look);
    options.after_restore_user = (&raw mut seen).cast();
    let ctx = open_with(&options).unwrap();
    assert_eq!(seen, 1005);
    assert_eq!(ckpt_close(ctx), 0);

    options.after_restore = Some(refuse);
    assert_eq!(open_with(&options), Err(-libc::ECANCELED));
    options.after_restore = None;
    let ctx = open_with(&options).expect("nothing was left open");
    assert_eq!(
        ckpt_hook(ctx, CKPT_AFTER_RESTORE as i32, Some(note), null_mut()),
        0
    );
    assert_eq!(ckpt_close(ctx), 0);
}
