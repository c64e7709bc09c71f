// SPDX-License-Identifier: Apache-2.0 OR MIT
//! pread() and write() on an arena's descriptor.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    what_a_mapping_wrote_is_read,
    a_page_never_touched_reads_as_zeros_and_stays_untouched,
    reading_stops_at_the_end,
    any_offset_and_length_is_read,
    a_buffer_that_cannot_be_written_is_refused,
    reading_into_the_arena_itself_works_and_is_a_write,
    reading_does_not_count_as_a_change,
    write_is_refused,
];

fn what_a_mapping_wrote_is_read(_: &Options) -> Outcome {
    let arena = Device::open()?.create("read", 8)?;
    let map = arena.map_all()?;
    for round in 1..=5_u8 {
        // Each time without any call between the store and the read.
        map.set(3 * PAGE + 17, round);
        ensure_eq!(arena.pread(3 * PAGE as u64 + 17, 1)?, vec![round], "byte");
    }
    Ok(())
}

fn a_page_never_touched_reads_as_zeros_and_stays_untouched(_: &Options) -> Outcome {
    let arena = Device::open()?.create("holes", 1 << 32)?;
    arena.map(700, 1)?.touch(0, 8);
    let held = arena.stats()?.bytes_held;
    let bytes = arena.pread(0, 2048 * PAGE)?;
    ensure_eq!(bytes.len(), 2048 * PAGE, "bytes read");
    for (at, byte) in bytes.iter().enumerate() {
        let expected = if at == 700 * PAGE { 8 } else { 0 };
        ensure_eq!(*byte, expected, "byte {at}");
    }
    let far = arena.pread(1 << 43, 3 * PAGE)?;
    ensure!(
        far.len() == 3 * PAGE && far.iter().all(|byte| *byte == 0),
        "far away"
    );
    ensure_eq!(arena.info()?.resident_pages, 1, "resident pages");
    ensure_eq!(arena.stats()?.bytes_held, held, "bytes held");
    ensure_eq!(arena.commit()?.changed_pages, 1, "changed pages");
    Ok(())
}

fn reading_stops_at_the_end(_: &Options) -> Outcome {
    let arena = Device::open()?.create("end", 3)?;
    arena.map_all()?.set(3 * PAGE - 1, 9);
    let end = 3 * PAGE as u64;
    ensure_eq!(arena.pread(end - 1, 100)?, vec![9], "across the end");
    for offset in [
        end,
        end + 1,
        end + PAGE as u64,
        1 << 44,
        i64::MAX as u64 - 10,
    ] {
        ensure_eq!(arena.pread(offset, 10)?.len(), 0, "at {offset:#x}");
    }
    ensure_eq!(
        arena.pread(1 << 63, 10).err(),
        Some(Errno::EINVAL),
        "at a negative offset"
    );
    ensure_eq!(
        arena.pread(0, 100 * PAGE)?.len(),
        3 * PAGE,
        "more than there is"
    );
    ensure_eq!(arena.pread(5, 0)?.len(), 0, "nothing");
    Ok(())
}

fn any_offset_and_length_is_read(options: &Options) -> Outcome {
    let arena = Device::open()?.create("any", 1100)?;
    let map = arena.map_all()?;
    let mut rng = crate::rng::Rng::new(options.seed);
    let mut model = vec![0_u8; 1100 * PAGE];
    for _ in 0..40 {
        let len = rng.between(1, 5 * PAGE);
        let at = rng.below(model.len() - len);
        let bytes = rng.bytes(len);
        model[at..at + len].copy_from_slice(&bytes);
        map.write(at, &bytes);
    }
    for _ in 0..300 {
        let len = rng.between(1, 9 * PAGE);
        let at = rng.below(model.len());
        let end = (at + len).min(model.len());
        let bytes = arena.pread(at as u64, len)?;
        ensure!(
            bytes == model[at..end],
            "{len} bytes at {at}, seed {}",
            options.seed
        );
    }
    Ok(())
}

fn a_buffer_that_cannot_be_written_is_refused(_: &Options) -> Outcome {
    let arena = Device::open()?.create("fault", 4)?;
    arena.map_all()?.touch(0, 1);
    let target = Mapping::anonymous(PAGE)?;
    target.protect(0, 1, libc::PROT_READ)?;
    for address in [8, target.address(), 1 << 47] {
        let buffer = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the kernel checks the buffer, which cannot be written.
        let read = unsafe { libc::pread(arena.as_fd().as_raw_fd(), buffer, 10, 0) };
        ensure_eq!(
            Errno::result(read),
            Err(Errno::EFAULT),
            "buffer at {address:#x}"
        );
    }
    Ok(())
}

fn reading_into_the_arena_itself_works_and_is_a_write(_: &Options) -> Outcome {
    let arena = Device::open()?.create("self", 16)?;
    let map = arena.map_all()?;
    map.write(0, &[7; 2 * PAGE]);
    arena.commit()?;
    // To pages never touched, and onto the very pages that are read.
    for target in [8, 0] {
        let buffer = std::ptr::with_exposed_provenance_mut(map.at(target * PAGE));
        // SAFETY: the buffer is a part of the mapping.
        let read = unsafe { libc::pread(arena.as_fd().as_raw_fd(), buffer, 2 * PAGE, 0) };
        ensure_eq!(
            Errno::result(read),
            Ok(2 * PAGE as isize),
            "bytes read to page {target}"
        );
        ensure!(
            map.read(target * PAGE, 2 * PAGE) == [7; 2 * PAGE],
            "content of page {target}"
        );
    }
    arena.commit()?;
    ensure_eq!(arena.delta(1)?.pages(), vec![0, 1, 8, 9], "delta");
    Ok(())
}

fn reading_does_not_count_as_a_change(_: &Options) -> Outcome {
    let arena = Device::open()?.create("quiet", 64)?;
    arena.map_all()?.touch(5, 1);
    arena.commit()?;
    arena.pread(0, 64 * PAGE)?;
    ensure_eq!(arena.commit()?.changed_pages, 0, "changed pages");
    Ok(())
}

fn write_is_refused(_: &Options) -> Outcome {
    let arena = Device::open()?.create("write", 4)?;
    let fd = arena.as_fd().as_raw_fd();
    let byte = [1_u8];
    for offset in [0, 100, 4 * PAGE as i64] {
        // SAFETY: the buffer is ours and as long as said.
        let written = unsafe { libc::pwrite(fd, byte.as_ptr().cast(), 1, offset) };
        ensure_eq!(
            Errno::result(written),
            Err(Errno::EINVAL),
            "pwrite at {offset}"
        );
    }
    // SAFETY: the buffer is ours and as long as said.
    let written = unsafe { libc::write(fd, byte.as_ptr().cast(), 1) };
    ensure_eq!(Errno::result(written), Err(Errno::EINVAL), "write");
    ensure_eq!(arena.info()?.resident_pages, 0, "resident pages");
    Ok(())
}
