// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads that enter and leave.

use super::state::Sent;
use super::*;

#[test]
fn a_thread_commits_when_it_has_left_as_often_as_it_entered() {
    let place = Place::new();
    let ctx = place.open();
    assert_eq!(ckpt_leave(ctx), -libc::EINVAL);
    assert!(message().contains("enter first"), "{}", message());
    for _ in 0..2 {
        assert_eq!(ckpt_enter(ctx), 0);
    }
    for _ in 0..2 {
        assert_eq!(commit(ctx), -libc::EDEADLK);
        assert!(message().contains("leave first"), "{}", message());
        assert_eq!(ckpt_leave(ctx), 0);
    }
    assert_eq!(commit(ctx), 0, "{}", message());
    assert_eq!(ckpt_leave(ctx), -libc::EINVAL);
    assert_eq!(ckpt_close(ctx), 0);
    assert_eq!(ckpt_enter(ctx), -libc::EINVAL);
}

#[test]
fn contexts_are_entered_one_by_one() {
    let places = [Place::new(), Place::new()];
    let [one, other] = [places[0].open(), places[1].open()];
    assert_eq!(ckpt_enter(one), 0);
    assert_eq!(ckpt_leave(other), -libc::EINVAL);
    assert_eq!(commit(other), 0, "{}", message());
    assert_eq!(commit(one), -libc::EDEADLK);
    assert_eq!(ckpt_leave(one), 0);
    for ctx in [one, other] {
        assert_eq!(ckpt_close(ctx), 0);
    }
}

#[test]
fn a_thread_that_ends_inside_holds_no_commit_up() {
    let place = Place::new();
    let sent = &Sent(place.open());
    thread::scope(|scope| {
        let ended = scope.spawn(|| assert_eq!(ckpt_enter({ sent }.0), 0));
        ended.join().unwrap();
    });
    assert_eq!(commit(sent.0), 0, "{}", message());
    assert_eq!(ckpt_close(sent.0), 0);
}
