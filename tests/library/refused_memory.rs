// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The claim about memory that cannot be adopted.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

use ckptctl::Adopted;
use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use nix::libc;

use super::adopting::BASE;
use super::adopting::FIXED;
use super::adopting::Memory;
use super::adopting::PAGE;
use super::adopting::open;

pub fn refusals(dir: &Path) {
    let context = open(dir, Restore::Newest);
    let memory = Memory::private(16);
    memory.fill(9);
    let [odd, none] = [(1, PAGE), (0, 0)].map(|(offset, len)| {
        // SAFETY: Within it.
        let start = unsafe { memory.start.add(offset) };
        Memory {
            start,
            len,
            ..memory
        }
    });
    let short = Memory {
        len: PAGE + 8,
        ..memory
    };
    let shared = Memory::mapped("shared", 0, 2, libc::MAP_SHARED);
    let hole = Memory::mapped("hole", FIXED, 3, libc::MAP_PRIVATE);
    let read_only = Memory::private(2);
    let locked = Memory::private(1);
    let own = Memory::private(2);
    let path = dir.join("file");
    std::fs::write(&path, [7; PAGE]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // SAFETY: Pages that are the claim's.
    let file = unsafe {
        libc::munmap(hole.part(1, 1).start.as_ptr().cast(), PAGE);
        libc::mprotect(read_only.start.as_ptr().cast(), PAGE, libc::PROT_READ);
        libc::madvise(own.start.as_ptr().cast(), PAGE, libc::MADV_DONTFORK);
        assert_eq!(libc::mlock(locked.start.as_ptr().cast(), PAGE), 0);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            protection,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    let file = Memory {
        start: NonNull::new(file.cast()).unwrap(),
        len: PAGE,
        ..memory
    };
    let mut local = [0u8; 3 * PAGE];
    let local = {
        let start = local.as_mut_ptr();
        // SAFETY: Within the array.
        let start = unsafe { start.add(start.align_offset(PAGE)) };
        Memory {
            start: NonNull::new(start).unwrap(),
            len: PAGE,
            ..memory
        }
    };
    let window = Memory {
        start: NonNull::new((BASE as usize + (64 << 20)) as *mut u8).unwrap(),
        len: PAGE,
        ..memory
    };
    let kept = memory.part(4, 4);
    assert_eq!(kept.adopt_as(&context, "kept", 5).unwrap(), Adopted::New);
    let image = memory.image();
    let spec = RegionSpec {
        name: "plain",
        kind: 5,
        len_bytes: 4 * PAGE as u64,
        reserve_bytes: 0,
    };
    context.region(&spec).unwrap();
    for (name, memory, errno, word) in [
        ("odd", odd, libc::EINVAL, "alignas"),
        ("none", none, libc::EINVAL, "whole pages"),
        ("short", short, libc::EINVAL, "whole pages"),
        ("", memory, libc::EINVAL, "printable"),
        ("hole", hole, libc::EINVAL, "nothing is mapped"),
        ("shared", shared, libc::EOPNOTSUPP, "MAP_SHARED"),
        ("read only", read_only, libc::EOPNOTSUPP, "mprotect"),
        ("locked", locked, libc::EOPNOTSUPP, "munlock"),
        ("own", own, libc::EOPNOTSUPP, "MADV_DONTFORK"),
        ("file", file, libc::EOPNOTSUPP, "/file"),
        ("local", local, libc::EOPNOTSUPP, "stack"),
        (
            "window",
            window,
            libc::EADDRINUSE,
            "the arena's own addresses",
        ),
        ("overlap", memory, libc::EADDRINUSE, "region kept"),
        (
            "plain",
            memory.part(0, 4),
            libc::EEXIST,
            "its own place in the arena",
        ),
    ] {
        let error = memory.adopt_as(&context, name, 5).unwrap_err();
        assert_eq!(error.errno(), errno, "{name}: {error}");
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    for (part, kind) in [(kept, 6), (memory.part(4, 3), 5), (memory.part(8, 4), 5)] {
        let error = part.adopt_as(&context, "kept", kind).unwrap_err();
        assert_eq!(error.errno(), libc::EEXIST, "{error}");
    }
    let as_region = RegionSpec {
        name: "kept",
        ..spec
    };
    let error = context.region(&as_region).unwrap_err();
    assert!(error.to_string().contains("ckpt_adopt"), "{error}");
    assert_eq!(
        context
            .grow_region("kept", 5 * PAGE as u64)
            .unwrap_err()
            .errno(),
        libc::ENOSPC
    );
    let inside = context.enter().unwrap();
    let error = kept.adopt_as(&context, "kept", 5).unwrap_err();
    assert_eq!(error.errno(), libc::EDEADLK, "{error}");
    drop(inside);
    assert!(memory.image() == image);
    assert_eq!(kept.adopt_as(&context, "kept", 5).unwrap(), Adopted::Found);
    // Memory of another arena.
    let other = Options::new()
        .dir(dir.join("other"))
        .base(BASE + (1 << 40))
        .arena_bytes(1 << 28);
    let other = Context::open(other.no_code_pointers()).unwrap();
    let error = kept.adopt_as(&other, "kept", 5).unwrap_err();
    assert_eq!(error.errno(), libc::EOPNOTSUPP, "{error}");
    other.close().unwrap();
    context.commit_sync().unwrap();
    context.close().unwrap();
    assert!(memory.image() == image);
}
