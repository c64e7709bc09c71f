// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_COMMIT with a snapshot, and CKPT_IOC_SNAPSHOT.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use crate::abi;
use crate::arena::Arena;
use crate::arena::commit_request;
use crate::credentials::SOMEBODY;
use crate::credentials::become_user;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::mapping::Mapping;
use crate::meminfo::available_bytes;
use crate::options::Options;
use crate::process::in_child;
use crate::process::with_peer;
use crate::runner::Test;
use crate::snapshot::Snapshot;
use crate::snapshot::commit_with_snapshot;
use crate::snapshot::need_snapshots;
use crate::snapshot::snapshot_request;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_plain_commit_tells_of_no_snapshot,
    what_is_for_snapshots_must_be_zero_without_one,
    an_argument_without_room_for_the_descriptor_gets_no_snapshot,
    a_commit_with_a_snapshot_closes_the_epoch_like_any_other,
    a_snapshot_holds_the_pages_stamped_after_its_cursor,
    a_cursor_after_the_last_commit_is_refused_and_nothing_is_committed,
    a_read_only_descriptor_makes_no_snapshot,
    sixty_four_snapshots_can_be_open_and_no_more,
    a_full_descriptor_table_makes_no_snapshot_and_no_commit,
    a_snapshot_descriptor_is_not_there_after_exec,
    a_snapshot_shows_the_commit_whatever_is_written_later,
    snapshots_open_at_once_show_their_own_commits,
    a_snapshot_of_nothing_is_empty,
    a_snapshot_tells_what_it_was_made_with_and_what_is_left,
    a_snapshot_outlives_the_arena_descriptor,
    a_snapshot_works_in_the_process_that_it_is_sent_to,
    the_reserve_is_charged_at_the_commit_and_given_back_at_the_closing,
    the_reserve_is_fewer_when_the_creators_limit_says_so,
    reading_frozen_pages_copies_nothing,
    an_idle_plain_commit_beside_a_snapshot_takes_nothing_from_it,
    statistics_count_snapshots_and_their_pages,
    making_snapshots_leaves_no_memory_behind,
];

/// An arena of that many pages, each of which holds its number, committed as epoch 1.
pub fn filled(pages: u64) -> Result<(Arena, Mapping), Failure> {
    let arena = Device::open()?.create("filled", pages)?;
    let map = arena.map_all()?;
    for page in 0..pages as usize {
        map.write(page * PAGE, &number_page(page as u64));
    }
    ensure_eq!(arena.commit()?.changed_pages, pages, "pages filled");
    Ok((arena, map))
}

/// A page full of a number.
pub fn number_page(number: u64) -> Vec<u8> {
    number.to_ne_bytes().repeat(PAGE / 8)
}

fn a_plain_commit_tells_of_no_snapshot(_: &Options) -> Outcome {
    need_snapshots()?;
    let arena = Device::open()?.create("plain", 16)?;
    let map = arena.map_all()?;
    map.touch(3, 1);
    let mut commit = abi::ckpt_commit {
        snapshot_fd: 77,
        snapshot_pages: 99,
        ..commit_request()
    };
    ioctl::call(&arena, abi::CKPT_IOC_COMMIT, &mut commit)?;
    ensure_eq!(
        (
            commit.snapshot_fd,
            commit.snapshot_pages,
            commit.reserve_pages
        ),
        (-1, 0, 0),
        "snapshot_fd, snapshot_pages and reserve_pages"
    );
    Ok(())
}

fn what_is_for_snapshots_must_be_zero_without_one(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, _map) = filled(4)?;
    let refused = |change: &dyn Fn(&mut abi::ckpt_commit), what: &str| -> Outcome {
        let mut commit = commit_request();
        change(&mut commit);
        let result = ioctl::call(&arena, abi::CKPT_IOC_COMMIT, &mut commit);
        ensure_eq!(result, Err(Errno::EINVAL), "{what}");
        ensure_eq!(arena.info()?.epoch, 1, "epoch after {what}");
        Ok(())
    };
    refused(&|commit| commit.since = 1, "since without a snapshot")?;
    refused(
        &|commit| commit.reserve_pages = 1,
        "reserve_pages without a snapshot",
    )?;
    refused(&|commit| commit.reserved = 1, "reserved")?;
    refused(
        &|commit| {
            *commit = snapshot_request(0, 0);
            commit.reserved = 1 << 31;
        },
        "reserved with a snapshot",
    )
}

// The first version of the structure has no place for the descriptor.
fn an_argument_without_room_for_the_descriptor_gets_no_snapshot(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, _map) = filled(4)?;
    let descriptors = || Ok::<_, Failure>(std::fs::read_dir("/proc/self/fd")?.count());
    let before = descriptors()?;
    let mut bytes = ioctl::Bytes::extended(&snapshot_request(0, 0), 72);
    bytes.put_u32(0, 32);
    let number = ioctl::with_size(abi::CKPT_IOC_COMMIT, 32);
    let result = ioctl::call_bytes(&arena, number, &mut bytes);
    ensure_eq!(
        result,
        Err(Errno::EINVAL),
        "COMMIT of 32 bytes with a snapshot"
    );
    ensure_eq!(descriptors()?, before, "descriptors");
    ensure_eq!(arena.stats()?.snapshots, 0, "snapshots");
    Ok(())
}

fn a_commit_with_a_snapshot_closes_the_epoch_like_any_other(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(64)?;
    for page in [3, 4, 40] {
        map.touch(page, 0xaa);
    }
    let (_snapshot, commit) = commit_with_snapshot(&arena, 1, 0)?;
    ensure_eq!(
        (commit.epoch, commit.changed_pages, commit.snapshot_pages),
        (2, 3, 3),
        "epoch, changed_pages and snapshot_pages"
    );
    ensure_eq!(arena.delta(1)?.ranges, vec![(3, 2), (40, 1)], "delta");
    let info = arena.info()?;
    ensure_eq!(
        (info.epoch, info.changed_pages),
        (2, 0),
        "epoch and changes"
    );
    map.touch(4, 0xbb);
    map.touch(9, 0xbb);
    let commit = arena.commit()?;
    ensure_eq!((commit.epoch, commit.changed_pages), (3, 2), "the next");
    ensure_eq!(arena.delta(2)?.pages(), vec![4, 9], "its delta");
    Ok(())
}

fn a_snapshot_holds_the_pages_stamped_after_its_cursor(_: &Options) -> Outcome {
    need_snapshots()?;
    let arena = Device::open()?.create("cursors", 2000)?;
    let map = arena.map_all()?;
    let mut open = Vec::new();
    for epoch in 1..=12_usize {
        for page in 0..epoch * 3 {
            map.touch((page * 37 + epoch * 511) % 2000, epoch as u8);
        }
        let since = (epoch * 7 % 11).min(epoch - 1) as u64;
        let (snapshot, commit) = commit_with_snapshot(&arena, since, 0)?;
        let delta = arena.delta(since)?;
        ensure_eq!(snapshot.held()?, delta.pages(), "pages since {since}");
        ensure_eq!(
            commit.snapshot_pages,
            delta.pages().len() as u64,
            "snapshot_pages since {since}"
        );
        open.push(snapshot);
    }
    Ok(())
}

fn a_cursor_after_the_last_commit_is_refused_and_nothing_is_committed(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(8)?;
    map.touch(2, 1);
    for since in [2, 3, 1 << 32, i64::MAX as u64, u64::MAX] {
        let result = commit_with_snapshot(&arena, since, 0).map(drop);
        ensure_eq!(result, Err(Errno::ERANGE), "since {since}");
    }
    let info = arena.info()?;
    ensure_eq!(
        (info.epoch, arena.stats()?.commits),
        (1, 1),
        "epoch and commits"
    );
    ensure_eq!(arena.commit()?.changed_pages, 1, "pages of the next commit");
    Ok(())
}

fn a_read_only_descriptor_makes_no_snapshot(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, _map) = filled(8)?;
    let reader = Device::open()?.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    let result = commit_with_snapshot(&reader, 0, 0).map(drop);
    ensure_eq!(result, Err(Errno::EBADF), "COMMIT with a snapshot");
    ensure_eq!(arena.info()?.epoch, 1, "epoch");
    Ok(())
}

fn sixty_four_snapshots_can_be_open_and_no_more(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(8)?;
    let mut open = Vec::new();
    for number in 0..u64::from(abi::CKPT_SNAPSHOTS_MAX) {
        map.touch(number as usize % 8, number as u8);
        open.push(commit_with_snapshot(&arena, 0, 0)?.0);
        ensure_eq!(arena.stats()?.snapshots, number + 1, "snapshots");
    }
    let epoch = arena.info()?.epoch;
    for _ in 0..3 {
        let result = commit_with_snapshot(&arena, 0, 0).map(drop);
        ensure_eq!(result, Err(Errno::EBUSY), "one more");
    }
    ensure_eq!(arena.info()?.epoch, epoch, "epoch after refusals");
    // Of another arena there can be as many again, and a plain commit is not concerned.
    let (other, _other_map) = filled(2)?;
    commit_with_snapshot(&other, 0, 0)?;
    ensure_eq!(arena.commit()?.epoch, epoch + 1, "a plain commit");
    open.swap_remove(17);
    let (again, _) = commit_with_snapshot(&arena, 0, 0)?;
    ensure_eq!(again.held()?.len(), 8, "pages of the one that fits again");
    // A descriptor that goes on in a child keeps its snapshot open.
    let one = open.swap_remove(5);
    let copy = one.as_fd().try_clone_to_owned()?;
    drop(one);
    let result = commit_with_snapshot(&arena, 0, 0).map(drop);
    ensure_eq!(result, Err(Errno::EBUSY), "while a duplicate is open");
    drop(copy);
    commit_with_snapshot(&arena, 0, 0)?;
    Ok(())
}

fn a_full_descriptor_table_makes_no_snapshot_and_no_commit(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(8)?;
    map.touch(1, 9);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard)?;
    let mut spare = Vec::new();
    while let Ok(copy) = arena.as_fd().try_clone_to_owned() {
        spare.push(copy);
    }
    for _ in 0..50 {
        let result = commit_with_snapshot(&arena, 0, 0).map(drop);
        ensure_eq!(result, Err(Errno::EMFILE), "COMMIT with a snapshot");
    }
    let stats = arena.stats()?;
    ensure_eq!(
        (stats.snapshots, stats.commits, arena.info()?.epoch),
        (0, 1, 1),
        "snapshots, commits and epoch"
    );
    spare.pop();
    let (snapshot, commit) = commit_with_snapshot(&arena, 1, 0)?;
    ensure_eq!(commit.epoch, 2, "epoch with a descriptor to spare");
    ensure_eq!(snapshot.held()?, vec![1], "its pages");
    Ok(())
}

fn a_snapshot_descriptor_is_not_there_after_exec(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, _map) = filled(4)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
    let fd = snapshot.as_fd().as_raw_fd();
    let status = std::process::Command::new("test")
        .args(["-e", &format!("/proc/self/fd/{fd}")])
        .status()?;
    ensure_eq!(status.code(), Some(1), "test -e after exec");
    Ok(())
}

fn a_snapshot_shows_the_commit_whatever_is_written_later(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(40)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
    // One byte, a whole page, a page through another mapping, read(2) into it, unmapping, and
    // commits in between.
    map.touch(0, 0xff);
    map.write(PAGE, &[0xee; PAGE]);
    let other = arena.map(2, 3)?;
    other.touch(0, 0xdd);
    arena.commit()?;
    map.touch(0, 0xfe);
    let zeros = std::fs::File::open("/dev/zero")?;
    // SAFETY: the target is a part of the mapping.
    let read = unsafe {
        libc::read(
            zeros.as_raw_fd(),
            std::ptr::with_exposed_provenance_mut(map.at(10 * PAGE - 100)),
            200,
        )
    };
    ensure_eq!(Errno::result(read)?, 200, "bytes read into the arena");
    other.touch(1, 0xcc);
    other.unmap()?;
    arena.commit()?;
    for (pgoff, content) in snapshot.all()? {
        ensure!(
            content == number_page(pgoff),
            "page {pgoff} is not what it was at the commit"
        );
    }
    ensure_eq!(map.get(0), 0xfe, "what the program sees");
    ensure_eq!(arena.pread(PAGE as u64, 1)?, vec![0xee], "what pread sees");
    Ok(())
}

fn snapshots_open_at_once_show_their_own_commits(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(30)?;
    let mut open: Vec<(Snapshot, Vec<Vec<u8>>)> = Vec::new();
    for round in 0..10_u64 {
        for page in 0..30 {
            if (page + round) % 3 == 0 {
                let at = page as usize * PAGE + round as usize * 8;
                map.write(at, &(1000 + round).to_ne_bytes());
            }
        }
        let now = map.read(0, 30 * PAGE);
        let (snapshot, _) = commit_with_snapshot(&arena, round % 4, 0)?;
        open.push((snapshot, now.chunks(PAGE).map(<[u8]>::to_vec).collect()));
    }
    map.write(0, &vec![0x11; 30 * PAGE]);
    // Closed from the middle outwards, so that each loses older and newer neighbours.
    while !open.is_empty() {
        for (snapshot, content) in &open {
            for (pgoff, page) in snapshot.all()? {
                ensure!(
                    page == content[pgoff as usize],
                    "page {pgoff} of the snapshot of epoch {}",
                    snapshot.info()?.epoch
                );
            }
        }
        open.remove(open.len() / 2);
    }
    Ok(())
}

fn a_snapshot_of_nothing_is_empty(_: &Options) -> Outcome {
    need_snapshots()?;
    let arena = Device::open()?.create("nothing", 1 << 20)?;
    let (first, commit) = commit_with_snapshot(&arena, 0, 5)?;
    ensure_eq!((commit.epoch, commit.snapshot_pages), (1, 0), "untouched");
    let map = arena.map_all()?;
    map.touch(99, 1);
    arena.commit()?;
    map.get(100 * PAGE);
    let (second, commit) = commit_with_snapshot(&arena, 2, 0)?;
    ensure_eq!((commit.epoch, commit.snapshot_pages), (3, 0), "idle");
    for snapshot in [first, second] {
        let gathered = snapshot.gather(0, 4, 4, abi::CKPT_GATHER_THAW)?;
        ensure_eq!(
            (gathered.pages, gathered.next),
            (0, None),
            "pages of an empty one"
        );
        snapshot.thaw(0, u64::MAX)?;
        ensure_eq!(snapshot.info()?.held_pages, 0, "held_pages");
    }
    Ok(())
}

fn a_snapshot_tells_what_it_was_made_with_and_what_is_left(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(100)?;
    for page in 20..60 {
        map.touch(page, 7);
    }
    let (snapshot, commit) = commit_with_snapshot(&arena, 1, 30)?;
    let info = snapshot.info()?;
    ensure_eq!(
        (info.arena_id, info.epoch, info.since, info.pages),
        (arena.id(), 2, 1, 40),
        "arena_id, epoch, since and pages"
    );
    ensure_eq!(
        (info.held_pages, info.copied_pages, info.reserve_pages),
        (40, 0, commit.reserve_pages),
        "held_pages, copied_pages and reserve_pages"
    );
    ensure_eq!(info.reserve_pages, 30, "reserve_pages");
    for page in 0..25 {
        map.touch(page, 8);
    }
    let info = snapshot.info()?;
    ensure_eq!(
        (info.held_pages, info.copied_pages),
        (40, 5),
        "held_pages and copied_pages after writes to five"
    );
    snapshot.thaw(22, 10)?;
    let info = snapshot.info()?;
    ensure_eq!(
        (info.pages, info.held_pages, info.copied_pages),
        (40, 30, 2),
        "pages, held_pages and copied_pages after thawing ten"
    );
    arena.commit()?;
    ensure_eq!(snapshot.info()?.epoch, 2, "epoch after another commit");
    Ok(())
}

fn a_snapshot_outlives_the_arena_descriptor(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(20)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
    map.touch(4, 1);
    map.unmap()?;
    drop(arena);
    let all = snapshot.all()?;
    ensure_eq!(all.len(), 20, "pages");
    for (pgoff, content) in all {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    Ok(())
}

fn a_snapshot_works_in_the_process_that_it_is_sent_to(_: &Options) -> Outcome {
    need_snapshots()?;
    with_peer(
        |link| {
            // An ordinary user: whoever has the descriptor may use it.
            become_user(SOMEBODY)?;
            let mut message = link.receive()?;
            let fd = message.fds.pop();
            let snapshot = Snapshot::new(fd.ok_or_else(|| Failure::new("no descriptor came"))?);
            for (pgoff, content) in snapshot.all()? {
                ensure!(content == number_page(pgoff), "page {pgoff}");
            }
            snapshot.thaw(0, 10)?;
            link.send_number(snapshot.info()?.held_pages)?;
            Ok(())
        },
        |peer| {
            let (arena, map) = filled(20)?;
            let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
            map.touch(15, 1);
            peer.link.send(b"snapshot", &[snapshot.as_fd()])?;
            drop(snapshot);
            ensure_eq!(peer.link.receive_number()?, 10, "held_pages there");
            Ok(())
        },
    )
}

fn the_reserve_is_charged_at_the_commit_and_given_back_at_the_closing(_: &Options) -> Outcome {
    need_snapshots()?;
    let device = Device::open()?;
    in_child(|| {
        let bytes = 64 * PAGE as u64;
        setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes)?;
        become_user(SOMEBODY)?;
        let arena = device.create("limited", 64)?;
        let map = arena.map_all()?;
        for page in 0..20 {
            map.touch(page, 1);
        }
        let (snapshot, commit) = commit_with_snapshot(&arena, 0, 0)?;
        ensure_eq!(commit.reserve_pages, 20, "reserve_pages within the limit");
        // 20 pages and as many copies leave 24 of the limit.
        let refused = arena.reserve(45);
        ensure_eq!(refused, Err(Errno::ENOMEM), "a reservation beyond");
        arena.reserve(44)?;
        let other = device.create("limited, too", 4)?;
        ensure_eq!(other.reserve(1), Err(Errno::ENOMEM), "another arena's");
        drop(snapshot);
        other.reserve(4)?;
        arena.reserve(60)?;
        ensure_eq!(other.reserve(5), Err(Errno::EINVAL), "more than it has");
        Ok(())
    })
}

fn the_reserve_is_fewer_when_the_creators_limit_says_so(_: &Options) -> Outcome {
    need_snapshots()?;
    let device = Device::open()?;
    in_child(|| {
        let bytes = 64 * PAGE as u64;
        setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes)?;
        become_user(SOMEBODY)?;
        let arena = device.create("limited", 64)?;
        let map = arena.map_all()?;
        for page in 0..50 {
            map.write(page * PAGE, &number_page(page as u64));
        }
        for asked in [0, 50, 20] {
            let (snapshot, commit) = commit_with_snapshot(&arena, 0, asked)?;
            ensure_eq!(commit.snapshot_pages, 50, "snapshot_pages");
            ensure_eq!(commit.reserve_pages, 14, "reserve_pages of {asked}");
            for page in 0..14 {
                map.touch(page, 0xff);
            }
            ensure_eq!(snapshot.info()?.copied_pages, 14, "copied_pages");
            for (pgoff, content) in snapshot.all()? {
                ensure!(content == number_page(pgoff), "page {pgoff}");
            }
            drop(snapshot);
            for page in 0..14 {
                map.write(page * PAGE, &number_page(page as u64));
            }
        }
        let (_first, commit) = commit_with_snapshot(&arena, 0, 10)?;
        ensure_eq!(commit.reserve_pages, 10, "reserve_pages of 10");
        let (_second, commit) = commit_with_snapshot(&arena, 0, 0)?;
        ensure_eq!(commit.reserve_pages, 4, "reserve_pages of the second");
        Ok(())
    })
}

fn reading_frozen_pages_copies_nothing(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(64)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 1)?;
    let again = arena.map_all()?;
    for page in 0..64 {
        map.get(page * PAGE + 5);
        again.get(page * PAGE + 6);
    }
    arena.pread(0, 64 * PAGE)?;
    ensure_eq!(
        (snapshot.info()?.copied_pages, arena.stats()?.copied_pages),
        (0, 0),
        "pages copied aside"
    );
    Ok(())
}

fn an_idle_plain_commit_beside_a_snapshot_takes_nothing_from_it(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(16)?;
    let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
    for _ in 0..20 {
        ensure_eq!(arena.commit()?.changed_pages, 0, "pages of an idle commit");
    }
    for page in 0..16 {
        map.touch(page, 0xab);
    }
    for (pgoff, content) in snapshot.all()? {
        ensure!(content == number_page(pgoff), "page {pgoff}");
    }
    Ok(())
}

fn statistics_count_snapshots_and_their_pages(_: &Options) -> Outcome {
    need_snapshots()?;
    let (arena, map) = filled(64)?;
    let before = arena.stats()?;
    ensure_eq!(
        (before.snapshots, before.snapshots_made, before.frozen_pages),
        (0, 0, 0),
        "before"
    );
    let (first, _) = commit_with_snapshot(&arena, 0, 0)?;
    map.touch(1, 1);
    map.touch(2, 1);
    let (second, _) = commit_with_snapshot(&arena, 2, 0)?;
    map.touch(2, 2);
    map.touch(3, 2);
    let stats = arena.stats()?;
    ensure_eq!(
        (stats.snapshots, stats.snapshots_made, stats.frozen_pages),
        (2, 2, 66),
        "snapshots, snapshots_made and frozen_pages"
    );
    // Pages 1, 2 and 3 for the first, 2 for the second.
    ensure!(
        (3..=4).contains(&stats.copied_pages),
        "copied_pages {}",
        stats.copied_pages
    );
    ensure_eq!(stats.copy_waits, 0, "copy_waits");
    drop((first, second));
    let after = arena.stats()?;
    ensure_eq!(
        (after.snapshots, after.snapshots_made),
        (0, 2),
        "snapshots and snapshots_made when both are closed"
    );
    Ok(())
}

fn making_snapshots_leaves_no_memory_behind(_: &Options) -> Outcome {
    need_snapshots()?;
    const PAGES: usize = 2000;
    const ROUNDS: usize = 60;
    let (arena, map) = filled(PAGES as u64)?;
    let round = |number: usize| -> Outcome {
        let (snapshot, _) = commit_with_snapshot(&arena, 0, 0)?;
        for page in 0..PAGES {
            map.touch(page, number as u8);
        }
        if number % 2 == 0 {
            snapshot.thaw(0, PAGES as u64 / 2)?;
        }
        Ok(())
    };
    round(0)?;
    let held = arena.stats()?.bytes_held;
    let before = available_bytes()?;
    for number in 1..=ROUNDS {
        round(number)?;
    }
    ensure_eq!(arena.stats()?.bytes_held, held, "bytes_held");
    let after = available_bytes()?;
    // Every round copies all pages: were they kept, a quarter of them would show.
    let lost = before.saturating_sub(after);
    let all = (ROUNDS * PAGES * PAGE) as u64;
    ensure!(lost < all / 4, "{lost} of {all} bytes did not come back");
    Ok(())
}
