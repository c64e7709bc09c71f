// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Regions, blocks, commits, and contexts that threads share.

use super::*;

#[test]
fn a_program_is_restored_through_c() {
    let place = Place::new();
    let ctx = place.open();
    assert_eq!(
        (
            ckpt_is_restored(ctx),
            ckpt_restored_epoch(ctx),
            ckpt_epoch(ctx)
        ),
        (0, 0, 0)
    );
    let numbers = region(ctx, c"numbers", 5000);
    let block = ckpt_calloc(ctx, 4, 8).cast::<u64>();
    let mut info = ckpt_commit_info {
        size: size_of::<ckpt_commit_info>(),
        epoch: 0,
        pages: 0,
        stored_bytes: 0,
        pause_ns: 0,
        total_ns: 0,
    };
    let mut generation = [0; 16];
    // SAFETY: Region and block are large enough, the rest is ours.
    unsafe {
        numbers.write(11);
        assert_eq!(*block.add(3), 0);
        block.write(12);
        assert_eq!(ckpt_set_root(ctx, block.cast()), 0);
        assert_eq!(ckpt_commit_sync(ctx, &raw mut info), 0, "{}", message());
        assert_eq!(ckpt_generation(ctx, generation.as_mut_ptr()), 0);
    }
    assert_eq!((info.size, info.epoch), (size_of::<ckpt_commit_info>(), 1));
    assert!(info.pages >= 3 && info.stored_bytes > 0 && info.total_ns > info.pause_ns);
    assert_eq!(ckpt_close(ctx), 0);

    let ctx = place.open();
    assert_eq!(
        (
            ckpt_is_restored(ctx),
            ckpt_restored_epoch(ctx),
            ckpt_epoch(ctx)
        ),
        (1, 1, 2)
    );
    assert_eq!(ckpt_root(ctx), block.cast());
    assert_eq!(region(ctx, c"numbers", 1), numbers);
    let mut other = [0; 16];
    // SAFETY: As above; the name is a C string.
    unsafe {
        assert_eq!((numbers.read(), block.read()), (11, 12));
        assert_eq!(ckpt_region_len(ctx, c"numbers".as_ptr()), 8192);
        assert_eq!(ckpt_generation(ctx, other.as_mut_ptr()), 0);
    }
    assert_ne!(generation, other);
    assert_eq!(ckpt_close(ctx), 0);

    let mut options = place.options();
    options.flags = CKPT_FRESH;
    let ctx = open_with(&options).unwrap();
    assert_eq!((ckpt_is_restored(ctx), ckpt_root(ctx)), (0, null_mut()));
    assert_eq!(ckpt_close(ctx), 0);

    options.flags = 0;
    options.restore_epoch = 7;
    assert_eq!(open_with(&options), Err(-libc::ENOENT));
    assert!(message().contains('7'), "{}", message());
}

#[test]
fn blocks_behave_as_those_of_malloc() {
    let place = Place::new();
    let ctx = place.open();
    // SAFETY: Blocks are used within their length, and freed once.
    unsafe {
        let block = ckpt_realloc(ctx, null_mut(), 10).cast::<u8>();
        block.write_bytes(7, 10);
        let block = ckpt_realloc(ctx, block.cast(), 100_000).cast::<u8>();
        assert_eq!((*block, *block.add(9)), (7, 7));
        assert!(ckpt_realloc(ctx, block.cast(), 0).is_null());
        let aligned = ckpt_aligned_alloc(ctx, 4096, 10);
        assert_eq!(aligned.addr() % 4096, 0);
        ckpt_free(ctx, aligned);
        keep(Failure::invalid("another error"));
        ckpt_free(ctx, aligned);
    }
    assert!(
        message().contains("not a block"),
        "freeing twice: {}",
        message()
    );
    assert!(ckpt_malloc(ctx, 0).is_null());
    assert!(ckpt_aligned_alloc(ctx, 24, 10).is_null());
    assert_eq!(ckpt_error(), -libc::EINVAL);
    assert!(ckpt_calloc(ctx, usize::MAX / 2, 3).is_null());
    assert_eq!(ckpt_error(), -libc::ENOMEM);
    assert!(ckpt_malloc(ctx, 2 << 30).is_null());
    assert_eq!(ckpt_error(), -libc::ENOMEM);
    assert_eq!(ckpt_close(ctx), 0);
}

/// A handle may be used from any thread.
pub struct Sent(pub *mut ckpt_t);

// SAFETY: A handle is a number.
unsafe impl Sync for Sent {}

#[test]
fn closing_waits_for_calls_of_other_threads_and_one_of_them_closes() {
    let place = Place::new();
    let sent = &Sent(place.open());
    let closed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ckpt_malloc({ sent }.0, 100).is_null() {}
                assert_eq!(ckpt_error(), -libc::EINVAL, "{}", message());
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let committed = commit({ sent }.0);
                assert!([0, -libc::EINVAL].contains(&committed), "{}", message());
                if ckpt_close({ sent }.0) == 0 {
                    closed.fetch_add(1, Ordering::Relaxed);
                    let ctx = place.open();
                    assert_eq!(ckpt_close(ctx), 0, "chain and addresses were free again");
                }
            });
        }
    });
    assert_eq!(closed.load(Ordering::Relaxed), 1);
}

#[test]
fn every_number_has_a_text_and_threads_have_their_own_errors() {
    for errno in -200..200 {
        // SAFETY: The text is a C string.
        assert!(!unsafe { CStr::from_ptr(ckpt_strerror(errno)) }.is_empty());
    }
    assert_eq!(commit(null_mut()), -libc::EINVAL);
    let other = thread::spawn(|| (ckpt_error(), message())).join().unwrap();
    assert_eq!(other, (0, "no error".to_owned()));
    assert_eq!(ckpt_error(), -libc::EINVAL);
    assert!(message().contains("NULL"), "{}", message());
}

#[test]
fn the_header_and_the_library_have_the_same_version() {
    // SAFETY: The version is a C string.
    let version = unsafe { CStr::from_ptr(ckpt_version()) };
    let header = format!("{CKPT_VERSION_MAJOR}.{CKPT_VERSION_MINOR}.{CKPT_VERSION_PATCH}");
    assert_eq!(version.to_str(), Ok(header.as_str()));
}
