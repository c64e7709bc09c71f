// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What programs do to pages besides writing, and what pages an arena has.

use std::path::Path;

use ckptctl::track::Choice;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::fork;

use super::Claim;
use super::Mirror;
use super::PAGE;
use super::Subject;

pub const CLAIMS: &[Claim] = &[
    ("epochs_count_from_where_the_chain_was", epochs),
    ("a_new_arena_is_zero", new_arena),
    ("pages_that_are_only_read_do_not_change", reading),
    ("what_is_discarded_is_told", discarding),
    ("pages_that_come_into_use_later_are_told", growing),
    ("protection_that_comes_and_goes_hides_nothing", protecting),
    ("a_page_that_was_pushed_out_hides_nothing", pushing_out),
    ("a_child_has_no_arena_and_hides_no_write", children),
    ("what_was_reserved_can_be_touched", reserving),
];

fn epochs(choice: Choice, _: &Path) {
    let mut subject = Subject::behind(choice, 8, 41);
    assert_eq!(subject.commit(), 42);
    subject.put(3, 1);
    let (epoch, snapshot) = subject.freeze(42);
    assert!(epoch > 42, "{epoch}");
    drop(snapshot);
    let next = subject.commit();
    assert!(next > epoch);
    assert_eq!(subject.delta(42), [3]);
    assert_eq!(subject.delta(epoch), Vec::<usize>::new());
}

fn new_arena(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 64);
    assert!(subject.image().iter().all(|&word| word == 0));
    subject.commit();
    assert!(subject.image().iter().all(|&word| word == 0));
}

fn reading(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 600);
    for page in (0..600).step_by(2) {
        subject.put(page, 1);
    }
    let mut last = subject.commit();
    for _ in 0..3 {
        // Every other page was never written, and is there from now on.
        assert_eq!(subject.image().iter().sum::<u64>(), 300);
        let epoch = subject.commit();
        assert_eq!(subject.delta(last), Vec::<usize>::new());
        last = epoch;
    }
    subject.put(301, 1);
    subject.commit();
    assert_eq!(subject.delta(last), [301]);
}

fn advise(subject: &Subject, page: usize, pages: usize, advice: i32) -> bool {
    assert!(page + pages <= subject.pages());
    // SAFETY: Pages of the arena; claims do not count on what is in them.
    unsafe { libc::madvise(subject.page(page).cast(), pages * PAGE, advice) == 0 }
}

fn discarding(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 1100);
    let mut mirror = Mirror::new(&subject);
    for page in 0..1100 {
        subject.put(page, 1);
    }
    let mut step = |subject: &mut Subject, what: &str| {
        let epoch = subject.commit();
        let image = subject.image();
        mirror.pull(subject, epoch);
        mirror.assert_is(&image, what);
    };
    step(&mut subject, "before");
    // Whether their content is gone is up to the tracker.
    assert!(advise(&subject, 10, 1000, libc::MADV_DONTNEED));
    step(&mut subject, "behind MADV_DONTNEED");
    step(&mut subject, "behind nothing");
    subject.put(20, 2);
    assert!(advise(&subject, 20, 1, libc::MADV_DONTNEED));
    step(&mut subject, "written, then discarded");
    assert!(advise(&subject, 30, 1, libc::MADV_DONTNEED));
    subject.put(30, 3);
    step(&mut subject, "discarded, then written");
    assert!(advise(&subject, 1090, 10, libc::MADV_DONTNEED));
    step(&mut subject, "the end, discarded");
    assert!(advise(&subject, 5, 1, libc::MADV_DONTNEED));
    assert!(subject.image()[5 * super::WORDS] <= 1);
    step(&mut subject, "discarded, then read");
}

fn growing(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 2000);
    subject.used = vec![0..4, 1500..1501];
    subject.put(3, 1);
    subject.put(1500, 1);
    let first = subject.commit();
    assert_eq!(subject.delta(0), [3, 1500]);
    subject.used = vec![0..700, 1500..1600];
    subject.put(699, 1);
    subject.put(1599, 1);
    let second = subject.commit();
    assert_eq!(subject.delta(first), [699, 1599]);
    subject.used.push(900..901);
    subject.put(900, 1);
    subject.commit();
    assert_eq!(subject.delta(second), [900]);
    assert_eq!(subject.delta(0), [3, 699, 900, 1500, 1599]);
}

fn protecting(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 64);
    let protect = |subject: &Subject, protection| {
        // SAFETY: Pages of the arena, which nobody uses while they cannot be.
        let done = unsafe { libc::mprotect(subject.page(16).cast(), 16 * PAGE, protection) };
        assert_eq!(done, 0);
    };
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    subject.put(20, 1);
    let mut last = subject.commit();
    for round in 2..6 {
        protect(&subject, libc::PROT_READ);
        subject.put(40, round);
        let epoch = subject.commit();
        assert_eq!(subject.delta(last), [40]);
        protect(&subject, writable);
        subject.put(20, round);
        subject.put(21, round);
        protect(&subject, libc::PROT_READ);
        last = subject.commit();
        assert_eq!(subject.delta(epoch), [20, 21]);
        protect(&subject, writable);
    }
}

fn pushing_out(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 300);
    let mut mirror = Mirror::new(&subject);
    for round in 1..5 {
        for page in (0..300).step_by(round) {
            subject.put(page, round as u64);
        }
        // The kernel may do nothing: there may be no swap, and pages of the module stay.
        advise(&subject, 0, 300, libc::MADV_PAGEOUT);
        advise(&subject, 0, 300, libc::MADV_COLD);
        subject.put(round, 77);
        let epoch = subject.commit();
        advise(&subject, 0, 300, libc::MADV_PAGEOUT);
        let image = subject.image();
        mirror.pull(&mut subject, epoch);
        mirror.assert_is(&image, "behind MADV_PAGEOUT");
    }
}

fn children(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 16);
    subject.put(1, 1);
    subject.put(2, 1);
    let first = subject.commit();
    let page = subject.page(1);
    // SAFETY: The child calls nothing but what is allowed in a child of a process with threads.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: A mapping that is not there ends the child, which is the claim.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                page.write_volatile(99);
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => child,
    };
    let status = waitpid(child, None).unwrap();
    let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGSEGV, _));
    assert!(killed, "{status:?}");
    assert_eq!(subject.image()[super::WORDS], 1);
    subject.put(2, 2);
    subject.commit();
    assert_eq!(subject.delta(first), [2]);
}

fn reserving(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 1000);
    subject.tracker.reserve(1000).unwrap();
    for page in 0..1000 {
        subject.put(page, 1);
    }
    subject.commit();
    assert_eq!(subject.delta(0).len(), 1000);
}
