// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_RESERVE and RLIMIT_MEMLOCK.

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;

use crate::credentials::CAP_IPC_LOCK;
use crate::credentials::SOMEBODY;
use crate::credentials::SOMEBODY_ELSE;
use crate::credentials::become_user;
use crate::credentials::become_user_with;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::pipe::pipe;
use crate::process::End;
use crate::process::Peer;
use crate::process::end_of;
use crate::process::in_child;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    reserving_charges_and_allocates_nothing,
    reserving_less_than_is_charged_changes_nothing,
    more_than_the_arena_has_is_refused,
    touching_charges_what_was_not_reserved,
    a_limit_refuses_a_reservation_and_leaves_the_rest,
    a_limit_counts_all_arenas_of_its_user,
    pages_within_a_reservation_can_be_touched_and_those_beyond_are_sigbus,
    pages_beyond_the_limit_are_sigbus_and_the_rest_goes_on,
    the_kernel_gets_an_error_where_a_program_gets_sigbus,
    the_creators_limit_counts_when_one_with_a_higher_limit_touches,
    the_creators_limit_counts_when_one_with_a_lower_limit_touches,
    a_creator_with_ipc_lock_is_not_limited,
    charges_are_given_back_when_the_arena_is_freed,
    reading_a_hole_through_the_descriptor_charges_nothing,
];

const LIMIT: u64 = 64;

/// Runs `body` in a child that is an ordinary user with a limit of `pages`.
fn limited(pages: u64, body: impl FnOnce(&Device) -> Outcome) -> Outcome {
    let device = Device::open()?;
    in_child(|| {
        set_limit(pages)?;
        become_user(SOMEBODY)?;
        body(&device)
    })
}

fn set_limit(pages: u64) -> Result<(), Errno> {
    let bytes = pages * PAGE as u64;
    setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes)
}

fn reserving_charges_and_allocates_nothing(_: &Options) -> Outcome {
    let arena = Device::open()?.create("reserved", 1 << 20)?;
    let before = arena.stats()?;
    ensure!(arena.reserve(1000)? >= 1000, "charged");
    let after = arena.stats()?;
    ensure!(
        after.charged_pages >= 1000,
        "charged_pages {}",
        after.charged_pages
    );
    ensure_eq!(after.resident_pages, 0, "resident pages");
    ensure_eq!(after.bytes_held, before.bytes_held, "bytes held");
    ensure_eq!(arena.commit()?.changed_pages, 0, "changed pages");
    Ok(())
}

fn reserving_less_than_is_charged_changes_nothing(_: &Options) -> Outcome {
    let arena = Device::open()?.create("less", 1 << 20)?;
    let charged = arena.reserve(500)?;
    for pages in [0, 1, 499, 500] {
        ensure_eq!(
            arena.reserve(pages)?,
            charged,
            "charged after asking for {pages}"
        );
        ensure_eq!(arena.stats()?.charged_pages, charged, "charged_pages");
    }
    Ok(())
}

fn more_than_the_arena_has_is_refused(_: &Options) -> Outcome {
    let arena = Device::open()?.create("small", 100)?;
    for pages in [101, 1 << 32, 1 << 52, u64::MAX / PAGE as u64 + 1, u64::MAX] {
        ensure_eq!(
            arena.reserve(pages).err(),
            Some(Errno::EINVAL),
            "{pages} pages of 100"
        );
    }
    ensure_eq!(arena.stats()?.charged_pages, 0, "charged_pages");
    ensure_eq!(arena.reserve(100)?, 100, "all pages");
    Ok(())
}

fn touching_charges_what_was_not_reserved(_: &Options) -> Outcome {
    let arena = Device::open()?.create("touched", 100)?;
    let map = arena.map_all()?;
    for page in 0..10 {
        map.touch(page, 1);
    }
    map.get(50 * PAGE);
    ensure_eq!(arena.stats()?.charged_pages, 11, "after touching 11");
    ensure_eq!(arena.reserve(20)?, 20, "after reserving 20 in all");
    for page in 60..69 {
        map.touch(page, 1);
    }
    ensure_eq!(arena.stats()?.charged_pages, 20, "after touching 20 in all");
    map.touch(70, 1);
    ensure_eq!(arena.stats()?.charged_pages, 21, "after touching one more");
    Ok(())
}

fn a_limit_refuses_a_reservation_and_leaves_the_rest(_: &Options) -> Outcome {
    limited(LIMIT, |device| {
        let arena = device.create("limited", 1 << 20)?;
        ensure_eq!(
            arena.reserve(LIMIT + 1).err(),
            Some(Errno::ENOMEM),
            "one above the limit"
        );
        ensure_eq!(arena.stats()?.charged_pages, 0, "charged_pages");
        ensure_eq!(arena.reserve(LIMIT / 2)?, LIMIT / 2, "half");
        ensure_eq!(
            arena.reserve(1 << 20).err(),
            Some(Errno::ENOMEM),
            "far above the limit"
        );
        ensure_eq!(arena.stats()?.charged_pages, LIMIT / 2, "charged_pages");
        ensure_eq!(arena.reserve(LIMIT)?, LIMIT, "all of the limit");
        ensure_eq!(
            arena.reserve(LIMIT + 1).err(),
            Some(Errno::ENOMEM),
            "one above the limit"
        );
        Ok(())
    })
}

fn a_limit_counts_all_arenas_of_its_user(_: &Options) -> Outcome {
    limited(LIMIT, |device| {
        let (one, other) = (device.create("one", 100)?, device.create("other", 100)?);
        one.reserve(LIMIT - 10)?;
        ensure_eq!(
            other.reserve(11).err(),
            Some(Errno::ENOMEM),
            "more than is left"
        );
        ensure_eq!(other.reserve(10)?, 10, "what is left");
        drop(one);
        ensure_eq!(other.reserve(LIMIT)?, LIMIT, "all, when the first is gone");
        Ok(())
    })
}

fn pages_within_a_reservation_can_be_touched_and_those_beyond_are_sigbus(_: &Options) -> Outcome {
    limited(LIMIT, |device| {
        let arena = device.create("reserved", 1000)?;
        arena.reserve(LIMIT)?;
        let map = arena.map_all()?;
        // Any of the arena's pages, not only the first.
        for page in 0..LIMIT {
            map.touch(page as usize * 15, 1);
        }
        for (what, access) in [("a store", 1), ("a load", 0)] {
            let end = end_of(|| {
                if let Ok(map) = arena.map_all() {
                    if access == 1 {
                        map.touch(998, 1);
                    } else {
                        map.get(998 * PAGE);
                    }
                }
            })?;
            ensure_eq!(end, End::Killed(Signal::SIGBUS), "{what} beyond the limit");
        }
        ensure_eq!(arena.info()?.resident_pages, LIMIT, "resident pages");
        Ok(())
    })
}

fn pages_beyond_the_limit_are_sigbus_and_the_rest_goes_on(_: &Options) -> Outcome {
    limited(LIMIT, |device| {
        let arena = device.create("limited", 1000)?;
        let map = arena.map_all()?;
        for page in 0..LIMIT as usize {
            map.touch(page, 1);
        }
        let end = end_of(|| {
            if let Ok(map) = arena.map_all() {
                map.touch(999, 1);
            }
        })?;
        ensure_eq!(end, End::Killed(Signal::SIGBUS), "one page above the limit");
        ensure_eq!(arena.commit()?.changed_pages, LIMIT, "changed pages");
        for page in 0..LIMIT as usize {
            map.touch(page, 2);
        }
        ensure_eq!(
            arena.commit()?.changed_pages,
            LIMIT,
            "changed pages of the next epoch"
        );
        ensure_eq!(arena.stats()?.charged_pages, LIMIT, "charged pages");
        Ok(())
    })
}

fn the_kernel_gets_an_error_where_a_program_gets_sigbus(_: &Options) -> Outcome {
    limited(LIMIT, |device| {
        let arena = device.create("limited", 1000)?;
        arena.reserve(LIMIT)?;
        let map = arena.map_all()?;
        for page in 0..LIMIT as usize {
            map.touch(page, 1);
        }
        let (reader, writer) = pipe()?;
        std::io::Write::write_all(&mut &writer, &[1; 8])?;
        let target = std::ptr::with_exposed_provenance_mut(map.at(900 * PAGE));
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        // SAFETY: the kernel checks the target, which is a part of the mapping.
        let read = Errno::result(unsafe { libc::read(fd, target, 8) });
        ensure_eq!(
            read,
            Err(Errno::EFAULT),
            "read(2) into a page beyond the limit"
        );
        ensure_eq!(arena.info()?.resident_pages, LIMIT, "resident pages");
        Ok(())
    })
}

/// An ordinary user with a limit who makes an arena and keeps it; its id.
fn limited_maker(device: &Device) -> Result<(Peer, u64), Failure> {
    let maker = Peer::start(|link| {
        set_limit(LIMIT)?;
        become_user(SOMEBODY)?;
        let arena = device.create("theirs", 1000)?;
        link.send(&arena.id().to_ne_bytes(), &[])?;
        let _ = link.receive();
        Ok(())
    })?;
    let id = maker.link.receive_number()?;
    Ok((maker, id))
}

fn the_creators_limit_counts_when_one_with_a_higher_limit_touches(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (maker, id) = limited_maker(&device)?;
    let arena = device.open_arena(id, 0)?;
    let refused = arena.reserve(LIMIT + 1).err();
    ensure_eq!(
        refused,
        Some(Errno::ENOMEM),
        "root reserves on the creator's account"
    );
    let map = arena.map_all()?;
    for page in 0..LIMIT as usize {
        map.touch(page, 1);
    }
    let end = end_of(|| {
        if let Ok(map) = arena.map_all() {
            map.touch(500, 1);
        }
    })?;
    ensure_eq!(
        end,
        End::Killed(Signal::SIGBUS),
        "root touches a page beyond the creator's limit"
    );
    maker.finish()
}

fn the_creators_limit_counts_when_one_with_a_lower_limit_touches(_: &Options) -> Outcome {
    let device = Device::open()?;
    let (maker, id) = limited_maker(&device)?;
    let theirs = device.open_arena(id, 0)?;
    let roots = device.create("root's", 1000)?;
    in_child(|| {
        set_limit(0)?;
        become_user(SOMEBODY_ELSE)?;
        for arena in [&theirs, &roots] {
            let map = arena.map_all()?;
            for page in 0..LIMIT as usize / 2 {
                map.touch(page, 1);
            }
            ensure_eq!(arena.reserve(LIMIT)?, LIMIT, "reserved for the creator");
        }
        Ok(())
    })?;
    ensure_eq!(theirs.commit()?.changed_pages, LIMIT / 2, "changed pages");
    maker.finish()
}

fn a_creator_with_ipc_lock_is_not_limited(_: &Options) -> Outcome {
    let device = Device::open()?;
    in_child(|| {
        set_limit(LIMIT)?;
        become_user_with(SOMEBODY, CAP_IPC_LOCK)?;
        let arena = device.create("capable", 1 << 20)?;
        ensure!(arena.reserve(100 * LIMIT)? >= 100 * LIMIT, "charged");
        let map = arena.map_all()?;
        for page in 0..4 * LIMIT as usize {
            map.touch(page, 1);
        }
        ensure_eq!(arena.commit()?.changed_pages, 4 * LIMIT, "changed pages");
        Ok(())
    })
}

fn charges_are_given_back_when_the_arena_is_freed(_: &Options) -> Outcome {
    limited(LIMIT, |device| {
        for round in 0..50 {
            let arena = device.create("round", 1000)?;
            if round % 2 == 0 {
                arena.reserve(LIMIT)?;
            }
            let map = arena.map_all()?;
            for page in 0..LIMIT as usize {
                map.touch(page * 3, 1);
            }
            ensure_eq!(
                arena.stats()?.charged_pages,
                LIMIT,
                "charged in round {round}"
            );
        }
        Ok(())
    })?;
    // The same user in another process finds the whole limit free, too.
    limited(LIMIT, |device| {
        ensure_eq!(
            device.create("after", 100)?.reserve(LIMIT)?,
            LIMIT,
            "charged"
        );
        Ok(())
    })
}

fn reading_a_hole_through_the_descriptor_charges_nothing(_: &Options) -> Outcome {
    limited(0, |device| {
        let arena = device.create("hole", 1000)?;
        let bytes = arena.pread(0, 1000 * PAGE)?;
        ensure!(bytes.iter().all(|byte| *byte == 0), "content");
        ensure_eq!(arena.stats()?.charged_pages, 0, "charged pages");
        if arena.reserve(1).err() != Some(Errno::ENOMEM) {
            return Err(Failure::new("a page was reserved with a limit of zero"));
        }
        Ok(())
    })
}
