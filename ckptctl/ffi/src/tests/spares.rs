// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs that wait for spares, and that go on as one.

use ckptctl::sys::control::ControlPage;

use super::outputs::open_outputs;
use super::*;

/// Without the module a program is told in a file what its spares have.
const WITHOUT_MODULE: (&str, &str) = ("CKPT_TRACKER", "compare");

fn waiting_for(place: &Place, what: &CStr) -> *mut ckpt_t {
    let options = ckpt_options {
        wait_for: what.as_ptr(),
        ..place.options()
    };
    open_with(&options).unwrap_or_else(|_| panic!("{}", message()))
}

/// As `ckptctl run --replicate-to` does when all spares have an epoch.
fn all_spares_have(place: &Place, epoch: u64) {
    let page = ControlPage::in_file(&place.dir.path().join("chain/CONTROL"));
    page.unwrap().unwrap().replicated_up_to(epoch);
}

#[test]
fn who_waits_for_spares_waits_for_them_behind_the_disk() {
    let test = "tests::spares::who_waits_for_spares_waits_for_them_behind_the_disk";
    if !alone_with(test, &[WITHOUT_MODULE]) {
        return;
    }
    let place = Place::new();
    let ctx = waiting_for(&place, c"replicated");
    let outputs = open_outputs(ctx, 10);
    let mut output = null_mut();
    assert_eq!(ckpt_output_hold(outputs, 0, without_provenance_mut(7)), 0);
    // SAFETY: Null is allowed.
    let status = unsafe { ckpt_commit_sync(ctx, null_mut()) };
    assert_eq!((status, ckpt_durable(ctx)), (0, 1), "{}", message());
    assert_eq!(
        (ckpt_wait(ctx, 1, 0), ckpt_safe(ctx)),
        (-libc::ETIMEDOUT, 0)
    );
    // SAFETY: The place is ours.
    let held = unsafe { ckpt_output_next(outputs, 0, &raw mut output) };
    assert_eq!(held, -libc::ETIMEDOUT);
    all_spares_have(&place, 1);
    assert_eq!((ckpt_wait(ctx, 1, -1), ckpt_safe(ctx)), (0, 1));
    // SAFETY: The place is ours.
    let released = unsafe { ckpt_output_next(outputs, -1, &raw mut output) };
    assert_eq!((released, output.addr()), (0, 7));
    assert_eq!((ckpt_close(ctx), ckpt_output_close(outputs)), (0, 0));
}

#[test]
fn the_environment_says_what_is_waited_for_where_the_program_does_not() {
    let test = "tests::spares::the_environment_says_what_is_waited_for_where_the_program_does_not";
    if !alone_with(test, &[WITHOUT_MODULE, ("CKPT_WAIT_FOR", "replicated")]) {
        return;
    }
    let place = Place::new();
    let mut told = Vec::new();
    for ctx in [
        |place: &Place| place.open(),
        |place: &Place| waiting_for(place, c"durable"),
    ] {
        let ctx = ctx(&place);
        // SAFETY: Null is allowed.
        assert_eq!(unsafe { ckpt_commit_sync(ctx, null_mut()) }, 0);
        told.push((ckpt_wait(ctx, 0, 0), ckpt_safe(ctx) == ckpt_durable(ctx)));
        assert_eq!(ckpt_close(ctx), 0);
    }
    assert_eq!(told, [(-libc::ETIMEDOUT, false), (0, true)]);
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let place = Place::new();
    let options = ckpt_options {
        wait_for: c"printed".as_ptr(),
        ..place.options()
    };
    assert_eq!(open_with(&options), Err(-libc::EINVAL));
    assert!(message().contains("durable or replicated"), "{}", message());
    assert!(!place.dir.path().join("chain").exists(), "nothing was made");
}

/// Notes the epoch, and the term that the context tells by then.
extern "C" fn note_takeover(ctx: *mut ckpt_t, epoch: u64, told: *mut c_void) -> c_int {
    // SAFETY: The test points at a list.
    let told = unsafe { &mut *told.cast::<Vec<(u64, u64)>>() };
    told.push((epoch, ckpt_takeover_term(ctx)));
    0
}

#[test]
fn a_takeover_is_told_once_by_a_hook_and_later_by_its_term() {
    let test = "tests::spares::a_takeover_is_told_once_by_a_hook_and_later_by_its_term";
    let first = [WITHOUT_MODULE, ("CKPT_TAKEOVER", "3")];
    if !alone_with(test, &first) {
        return;
    }
    let place = Place::new();
    let mut told: Vec<(u64, u64)> = Vec::new();
    let options = ckpt_options {
        after_takeover: Some(note_takeover),
        after_takeover_user: (&raw mut told).cast(),
        ..place.options()
    };
    // There is nothing yet that could be taken over.
    let ctx = open_with(&options).unwrap();
    assert_eq!((commit(ctx), ckpt_close(ctx)), (0, 0));
    assert!(told.is_empty(), "{told:?}");
    let ctx = open_with(&options).unwrap();
    let restored = ckpt_restored_epoch(ctx);
    assert_eq!(told, [(restored, 3)]);
    assert_eq!(ckpt_takeover_term(ctx), 3);
    assert!(ckpt_epoch(ctx) > restored + 999_999_999);
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn without_a_takeover_there_is_no_term_and_no_hook() {
    let place = Place::new();
    let mut told: Vec<(u64, u64)> = Vec::new();
    let options = ckpt_options {
        after_takeover: Some(note_takeover),
        after_takeover_user: (&raw mut told).cast(),
        ..place.options()
    };
    for _ in 0..2 {
        let ctx = open_with(&options).unwrap();
        assert_eq!((commit(ctx), ckpt_takeover_term(ctx)), (0, 0));
        assert_eq!(ckpt_close(ctx), 0);
    }
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_hook_for_a_takeover_that_comes_too_late_is_refused() {
    let place = Place::new();
    let ctx = place.open();
    let when = CKPT_AFTER_TAKEOVER as i32;
    let status = ckpt_hook(ctx, when, Some(note_takeover), null_mut());
    assert_eq!(status, -libc::EINVAL);
    assert!(message().contains("after_takeover"), "{}", message());
    assert_eq!(ckpt_close(ctx), 0);
}
