// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Outputs are given back when they are safe.

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use std::os::fd::BorrowedFd;

use super::*;

pub(super) fn open_outputs(ctx: *mut ckpt_t, limit: usize) -> *mut ckpt_outputs_t {
    let mut outputs = without_provenance_mut(1);
    // SAFETY: The place is ours.
    let status = unsafe { ckpt_output_open(ctx, limit, &raw mut outputs) };
    assert_eq!(status, 0, "{}", message());
    outputs
}

/// Outputs are numbers here.
fn hold(outputs: *mut ckpt_outputs_t, epoch: u64, output: usize) -> c_int {
    ckpt_output_hold(outputs, epoch, without_provenance_mut(output))
}

fn next(outputs: *mut ckpt_outputs_t, timeout_ms: c_int) -> (c_int, usize) {
    let mut output = without_provenance_mut(99);
    // SAFETY: The place is ours.
    let status = unsafe { ckpt_output_next(outputs, timeout_ms, &raw mut output) };
    (status, output.addr())
}

fn readable(outputs: *mut ckpt_outputs_t) -> bool {
    let fd = ckpt_output_fd(outputs);
    assert!(fd >= 0, "{}", message());
    // SAFETY: It is open as long as the outputs are.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn outputs_come_back_in_order_once_they_are_durable() {
    let place = Place::new();
    let ctx = place.open();
    let outputs = open_outputs(ctx, 10);
    assert_eq!(hold(outputs, 0, 1), 0);
    assert_eq!(next(outputs, 0), (-libc::ETIMEDOUT, 0));
    assert_eq!(next(outputs, 1), (-libc::ETIMEDOUT, 0));
    assert!(!readable(outputs));
    assert_eq!(commit(ctx), 0);
    assert_eq!(hold(outputs, ckpt_epoch(ctx), 2), 0);
    assert_eq!(next(outputs, -1), (0, 1));
    assert_eq!(next(outputs, 60_000), (0, 2));
    assert!(!readable(outputs));
    assert_eq!((ckpt_durable(ctx), hold(outputs, 1, 3)), (1, 0));
    assert!(readable(outputs));
    assert_eq!(next(outputs, 0), (0, 3));
    assert_eq!((ckpt_close(ctx), ckpt_output_close(outputs)), (0, 0));
}

#[test]
fn what_was_not_durable_at_the_end_is_given_back_as_lost() {
    let place = Place::new();
    let ctx = place.open();
    let outputs = open_outputs(ctx, 10);
    assert_eq!(hold(outputs, 0, 1), 0);
    assert_eq!(commit(ctx), 0);
    assert_eq!(hold(outputs, 0, 2), 0);
    assert_eq!(ckpt_close(ctx), 0);
    assert!(readable(outputs));
    assert_eq!(next(outputs, -1), (0, 1));
    assert_eq!(next(outputs, -1), (-libc::ECANCELED, 2));
    assert!(message().contains("do not say it"), "{}", message());
    assert_eq!(next(outputs, -1), (-libc::ESHUTDOWN, 0));
    assert_eq!(hold(outputs, 0, 3), -libc::ESHUTDOWN);
    assert!(readable(outputs));
    // Nothing of the closed context is in the way.
    let ctx = place.open();
    assert_eq!((ckpt_close(ctx), ckpt_output_close(outputs)), (0, 0));
}

#[test]
fn refused_outputs_are_told_why() {
    let place = Place::new();
    let ctx = place.open();
    let outputs = open_outputs(ctx, 1);
    assert_eq!(hold(outputs, 1, 1), -libc::EINVAL);
    assert!(message().contains("not committed yet"), "{}", message());
    assert_eq!(hold(outputs, 0, 1), 0);
    assert_eq!(hold(outputs, 0, 2), -libc::EAGAIN);
    assert!(message().contains("commit"), "{}", message());
    assert_eq!(ckpt_close(ctx), 0);
    assert_eq!(ckpt_output_close(outputs), 0);
}

#[test]
fn what_are_no_outputs_is_refused() {
    let place = Place::new();
    let ctx = place.open();
    let mut outputs = null_mut();
    // SAFETY: NULL is refused, the place is ours.
    unsafe {
        assert_eq!(ckpt_output_open(ctx, 1, null_mut()), -libc::EINVAL);
        assert_eq!(ckpt_output_open(ctx, 0, &raw mut outputs), -libc::EINVAL);
        assert_eq!(
            ckpt_output_open(null_mut(), 1, &raw mut outputs),
            -libc::EINVAL
        );
    }
    assert!(outputs.is_null());
    let outputs = open_outputs(ctx, 1);
    // SAFETY: NULL is refused.
    let status = unsafe { ckpt_output_next(outputs, 0, null_mut()) };
    assert_eq!(status, -libc::EINVAL);
    assert_eq!(ckpt_output_close(outputs), 0);
    for none in [outputs, null_mut(), ctx.cast()] {
        assert_eq!(hold(none, 0, 1), -libc::EINVAL);
        assert_eq!(next(none, 0), (-libc::EINVAL, 0));
        assert_eq!(ckpt_output_fd(none), -libc::EINVAL);
        assert_eq!(ckpt_output_close(none), -libc::EINVAL);
    }
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn closing_outputs_wakes_who_waits_for_one() {
    let place = Place::new();
    let ctx = place.open();
    let outputs = open_outputs(ctx, 1);
    let number = outputs.addr();
    let waiting = thread::spawn(move || next(without_provenance_mut(number), -1));
    assert_eq!(ckpt_output_close(outputs), 0);
    // It may have come too late to wait.
    let (status, output) = waiting.join().unwrap();
    assert!([-libc::ESHUTDOWN, -libc::EINVAL].contains(&status));
    assert_eq!((output, ckpt_close(ctx)), (0, 0));
}
