// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What cannot be is refused, and does nothing.

use super::hooks::note;
use super::*;

/// Calls everything that takes a context; whether each refused with this error.
pub fn refusals(
    ctx: *mut ckpt_t,
    outputs: *mut ckpt_outputs_t,
    errno: c_int,
) -> Vec<(&'static str, bool)> {
    let mut addr = null_mut();
    let mut info = ckpt_commit_info {
        size: size_of::<ckpt_commit_info>(),
        epoch: 0,
        pages: 0,
        stored_bytes: 0,
        pause_ns: 0,
        total_ns: 0,
    };
    let mut bytes = [0u8; 16];
    let name = c"r".as_ptr();
    let mut stats = stats_to_fill();
    let mut output = null_mut();
    // SAFETY: Whatever the context is, the other arguments are as the header says.
    let calls: [(&'static str, &mut dyn FnMut() -> bool); 36] = unsafe {
        [
            ("ckpt_close", &mut || ckpt_close(ctx) == -errno),
            ("ckpt_region", &mut || {
                ckpt_region(ctx, name, 1, 1, 0, &raw mut addr) == -errno
            }),
            ("ckpt_region_grow", &mut || {
                ckpt_region_grow(ctx, name, 1) == -errno
            }),
            ("ckpt_region_len", &mut || ckpt_region_len(ctx, name) == 0),
            ("ckpt_adopt", &mut || {
                ckpt_adopt(ctx, name, 1, without_provenance_mut(4096), 4096) == -errno
            }),
            ("ckpt_malloc", &mut || ckpt_malloc(ctx, 1).is_null()),
            ("ckpt_calloc", &mut || ckpt_calloc(ctx, 1, 1).is_null()),
            ("ckpt_realloc", &mut || {
                ckpt_realloc(ctx, null_mut(), 1).is_null()
            }),
            ("ckpt_aligned_alloc", &mut || {
                ckpt_aligned_alloc(ctx, 64, 1).is_null()
            }),
            ("ckpt_free", &mut || {
                ckpt_free(ctx, without_provenance_mut(64));
                true
            }),
            ("ckpt_set_root", &mut || {
                ckpt_set_root(ctx, null_mut()) == -errno
            }),
            ("ckpt_root", &mut || ckpt_root(ctx).is_null()),
            ("ckpt_commit", &mut || {
                ckpt_commit(ctx, &raw mut info) == -errno
            }),
            ("ckpt_commit_sync", &mut || {
                ckpt_commit_sync(ctx, null_mut()) == -errno
            }),
            ("ckpt_wait", &mut || ckpt_wait(ctx, 0, -1) == -errno),
            ("ckpt_enter", &mut || ckpt_enter(ctx) == -errno),
            ("ckpt_leave", &mut || ckpt_leave(ctx) == -errno),
            ("ckpt_alive", &mut || ckpt_alive(ctx) == -errno),
            ("ckpt_rollback", &mut || ckpt_rollback(ctx, 0) == -errno),
            ("ckpt_output_open", &mut || {
                let mut outputs = null_mut();
                ckpt_output_open(ctx, 1, &raw mut outputs) == -errno
            }),
            ("ckpt_output_hold", &mut || {
                ckpt_output_hold(outputs, 0, null_mut()) == -errno
            }),
            ("ckpt_output_next", &mut || {
                ckpt_output_next(outputs, -1, &raw mut output) == -errno
            }),
            ("ckpt_output_fd", &mut || ckpt_output_fd(outputs) == -errno),
            ("ckpt_output_close", &mut || {
                ckpt_output_close(outputs) == -errno
            }),
            ("ckpt_stats", &mut || {
                ckpt_stats(ctx, &raw mut stats) == -errno
            }),
            ("ckpt_is_restored", &mut || ckpt_is_restored(ctx) == 0),
            ("ckpt_restored_epoch", &mut || ckpt_restored_epoch(ctx) == 0),
            ("ckpt_epoch", &mut || ckpt_epoch(ctx) == 0),
            ("ckpt_durable", &mut || ckpt_durable(ctx) == 0),
            ("ckpt_safe", &mut || ckpt_safe(ctx) == 0),
            ("ckpt_takeover_term", &mut || ckpt_takeover_term(ctx) == 0),
            ("ckpt_pending", &mut || ckpt_pending(ctx) == 0),
            ("ckpt_pending_word", &mut || {
                ckpt_pending_word(ctx).is_null()
            }),
            ("ckpt_generation", &mut || {
                ckpt_generation(ctx, bytes.as_mut_ptr()) == -errno
            }),
            ("ckpt_hook", &mut || {
                let hook: ckpt_hook_fn = Some(note);
                let when = CKPT_BEFORE_COMMIT as i32;
                ckpt_hook(ctx, when, hook, null_mut()) == -errno
            }),
            ("ckpt_tracker", &mut || {
                CStr::from_ptr(ckpt_tracker(ctx)).is_empty()
            }),
        ]
    };
    calls
        .into_iter()
        .map(|(name, call)| {
            keep(Failure {
                errno: libc::ENXIO,
                text: "another error".into(),
            });
            let refused = call();
            (name, refused && ckpt_error() == -errno)
        })
        .collect()
}

#[test]
fn every_function_refuses_null_closed_and_invented_handles() {
    let place = Place::new();
    let closed = place.open();
    assert_eq!(ckpt_close(closed), 0);
    let another = place.open();
    let inside = without_provenance_mut(another.addr() + 8);
    for ctx in [
        null_mut(),
        closed,
        inside,
        without_provenance_mut(4096),
        without_provenance_mut(usize::MAX),
    ] {
        let told = refusals(ctx, ctx.cast(), libc::EINVAL);
        for (name, refused) in &told {
            assert!(refused, "{name} with {ctx:p}");
        }
        let tried: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
        let without_context = [
            "ckpt_open",
            "ckpt_error",
            "ckpt_errmsg",
            "ckpt_strerror",
            "ckpt_version",
        ];
        let mut missing = signature::NAMES.to_vec();
        missing.retain(|name| !tried.contains(name) && !without_context.contains(name));
        assert!(missing.is_empty(), "not tried: {missing:?}");
    }
    assert_eq!(ckpt_close(another), 0);
}

#[test]
fn null_in_place_of_what_must_be_there_is_refused() {
    let place = Place::new();
    let ctx = place.open();
    let mut addr = null_mut();
    // SAFETY: Null is what is tried; everything else is as the header says.
    unsafe {
        assert_eq!(ckpt_open(&place.options(), null_mut()), -libc::EINVAL);
        assert_eq!(
            ckpt_region(ctx, null(), 1, 1, 0, &raw mut addr),
            -libc::EINVAL
        );
        assert_eq!(
            ckpt_region(ctx, c"r".as_ptr(), 1, 1, 0, null_mut()),
            -libc::EINVAL
        );
        assert_eq!(ckpt_region_len(ctx, c"r".as_ptr()), 0, "nothing was made");
        assert_eq!(ckpt_region_grow(ctx, null(), 1), -libc::EINVAL);
        assert_eq!(ckpt_region_len(ctx, null()), 0);
        assert_eq!(ckpt_generation(ctx, null_mut()), -libc::EINVAL);
        assert_eq!(ckpt_hook(ctx, 1, None, null_mut()), -libc::EINVAL);
        ckpt_free(ctx, null_mut());
    }
    assert_eq!(ckpt_hook(ctx, 9, Some(note), null_mut()), -libc::EINVAL);
    assert_eq!(ckpt_hook(ctx, -1, Some(note), null_mut()), -libc::EINVAL);
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn structures_of_other_versions_are_told_apart() {
    let place = Place::new();
    #[repr(C)]
    struct Later {
        known: ckpt_options,
        more: u64,
    }
    let mut later = Later {
        known: place.options(),
        more: 0,
    };
    later.known.size = size_of::<Later>();
    let open = |options: *const ckpt_options| {
        let mut ctx = null_mut();
        // SAFETY: The structure is as large as it says, unless that is refused unread.
        (unsafe { ckpt_open(options, &raw mut ctx) }, ctx)
    };
    let (status, ctx) = open((&raw const later).cast());
    assert_eq!(status, 0, "{}", message());
    later.more = 1;
    assert_eq!(open((&raw const later).cast()).0, -libc::E2BIG);
    for size in [0, size_of::<ckpt_options>() - 1, 1 << 20] {
        later.known.size = size;
        assert_eq!(open((&raw const later).cast()).0, -libc::EINVAL);
    }

    let mut info = [u64::MAX; 8];
    info[0] = size_of_val(&info) as u64;
    // SAFETY: The structure is as large as it says.
    assert_eq!(unsafe { ckpt_commit(ctx, info.as_mut_ptr().cast()) }, 0);
    assert_eq!((info[0], info[1]), (64, 1));
    assert_eq!(info[6..], [0, 0], "what this version does not know is zero");
    info[0] = 8;
    // SAFETY: As above.
    let refused = unsafe { ckpt_commit(ctx, info.as_mut_ptr().cast()) };
    assert_eq!(
        (refused, ckpt_epoch(ctx)),
        (-libc::EINVAL, 1),
        "nothing was committed"
    );
    assert_eq!(ckpt_close(ctx), 0);
}

#[test]
fn flags_that_are_unknown_or_contradict_each_other_are_refused() {
    let place = Place::new();
    for (flags, restore_epoch) in [(1 << 31, 0), (CKPT_FRESH, 1)] {
        let options = ckpt_options {
            flags,
            restore_epoch,
            ..place.options()
        };
        assert_eq!(open_with(&options), Err(-libc::EINVAL));
    }
    assert!(!place.dir.path().join("chain").exists(), "nothing was made");
}

#[test]
fn ways_to_compact_that_are_not_there_are_refused() {
    let place = Place::new();
    for compact in [c"on", c"1", c"1e3"] {
        let options = ckpt_options {
            compact: compact.as_ptr(),
            ..place.options()
        };
        assert_eq!(open_with(&options), Err(-libc::EINVAL), "{compact:?}");
    }
    assert!(!place.dir.path().join("chain").exists(), "nothing was made");
    for compact in [c"off", c"2"] {
        let options = ckpt_options {
            compact: compact.as_ptr(),
            ..place.options()
        };
        let ctx = open_with(&options).unwrap();
        assert_eq!(ckpt_close(ctx), 0);
    }
}

#[test]
fn ways_to_compress_that_are_not_there_are_refused() {
    let place = Place::new();
    for (compress, pack_threads) in [(c"gzip", 0), (c"zstd:99", 0), (c"lz4", 100_000)] {
        let options = ckpt_options {
            compress: compress.as_ptr(),
            pack_threads,
            ..place.options()
        };
        assert_eq!(open_with(&options), Err(-libc::EINVAL), "{compress:?}");
    }
    assert!(!place.dir.path().join("chain").exists(), "nothing was made");
    for (compress, pack_threads) in [(c"zstd:5", 1), (c"none", 3)] {
        let options = ckpt_options {
            compress: compress.as_ptr(),
            pack_threads,
            ..place.options()
        };
        let ctx = open_with(&options).unwrap();
        assert_eq!(ckpt_close(ctx), 0);
    }
}
