// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running out of descriptors and arenas, and many of both.

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use crate::abi;
use crate::arena::Arena;
use crate::credentials::SOMEBODY;
use crate::credentials::become_user;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::meminfo::available_bytes;
use crate::options::Options;
use crate::process::in_child;
use crate::runner::Test;
use crate::setting::Setting;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    a_full_descriptor_table_is_emfile_and_leaves_nothing,
    a_full_file_table_is_enfile_and_leaves_nothing,
    hundreds_of_arenas_are_kept_apart,
    making_and_freeing_arenas_leaves_no_memory_behind,
    making_and_refusing_arenas_leaves_no_memory_behind,
];

fn a_full_descriptor_table_is_emfile_and_leaves_nothing(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("there", 4)?;
    let mut spare = Vec::new();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard)?;
    while let Ok(copy) = std::os::fd::AsFd::as_fd(&device).try_clone_to_owned() {
        spare.push(copy);
    }
    for _ in 0..100 {
        ensure_eq!(
            device.create("one more", 4).err(),
            Some(Errno::EMFILE),
            "CREATE"
        );
        let opened = raw_open(&device, arena.id());
        ensure_eq!(opened.err(), Some(Errno::EMFILE), "OPEN");
    }
    ensure_eq!(device.list()?.len(), 1, "arenas");
    spare.pop();
    let one = device.create("one more", 4)?;
    ensure_eq!(
        device.create("two more", 4).err(),
        Some(Errno::EMFILE),
        "CREATE"
    );
    drop(arena);
    ensure_eq!(device.list()?.len(), 1, "arenas when the first is closed");
    ensure_eq!(one.commit()?.epoch, 1, "epoch");
    Ok(())
}

// Without the INFO call that the wrapper makes on a duplicate.
fn raw_open(device: &Device, id: u64) -> Result<(), Errno> {
    let mut open = abi::ckpt_open {
        size: size_of::<abi::ckpt_open>() as u32,
        id,
        ..abi::ckpt_open::ZERO
    };
    crate::ioctl::call(device, abi::CKPT_IOC_OPEN, &mut open)
}

fn a_full_file_table_is_enfile_and_leaves_nothing(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("there", 4)?;
    let setting = Setting::new("/proc/sys/fs/file-max", "1")?;
    // The limit does not hold for the capable.
    let outcome = in_child(|| {
        become_user(SOMEBODY)?;
        for _ in 0..100 {
            ensure_eq!(
                device.create("one more", 4).err(),
                Some(Errno::ENFILE),
                "CREATE"
            );
        }
        Ok(())
    });
    drop(setting);
    outcome?;
    ensure_eq!(device.list()?.len(), 1, "arenas");
    ensure_eq!(
        arena.info()?.len_bytes,
        4 * PAGE as u64,
        "size of the one that was there"
    );
    Ok(())
}

fn hundreds_of_arenas_are_kept_apart(_: &Options) -> Outcome {
    const ARENAS: usize = 300;
    let device = Device::open()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(4 * ARENAS as u64), hard)?;
    let mut arenas: Vec<Arena> = Vec::new();
    for number in 0..ARENAS {
        let arena = device.create(&format!("arena {number}"), 64)?;
        let map = arena.map_all()?;
        map.set(number % 64 * PAGE, number as u8);
        map.set((number + 1) % 64 * PAGE, number as u8);
        arenas.push(arena);
    }
    ensure_eq!(device.list()?.len(), ARENAS, "arenas listed");
    for (number, arena) in arenas.iter().enumerate() {
        let mut expected = vec![number as u64 % 64, (number as u64 + 1) % 64];
        expected.sort_unstable();
        for _ in 0..=number % 3 {
            arena.commit()?;
        }
        ensure_eq!(arena.delta(0)?.pages(), expected, "delta of arena {number}");
        ensure_eq!(
            arena.info()?.epoch,
            number as u64 % 3 + 1,
            "epoch of arena {number}"
        );
        let byte = arena.pread((number % 64 * PAGE) as u64, 1)?;
        ensure_eq!(byte, vec![number as u8], "content of arena {number}");
    }
    Ok(())
}

/// Repeats `body` and fails when that uses up memory: what is lost in one round
/// would be lost in each.
fn ensure_no_drift(rounds: u64, per_round: u64, mut body: impl FnMut() -> Outcome) -> Outcome {
    // The first rounds fill caches.
    for _ in 0..rounds / 4 {
        body()?;
    }
    let before = available_bytes()?;
    for _ in 0..rounds {
        body()?;
    }
    let lost = before.saturating_sub(available_bytes()?);
    ensure!(
        lost < rounds * per_round / 2,
        "{lost} bytes less available after {rounds} rounds, each of which used {per_round}"
    );
    Ok(())
}

fn making_and_freeing_arenas_leaves_no_memory_behind(_: &Options) -> Outcome {
    const PAGES: u64 = 256;
    let device = Device::open()?;
    ensure_no_drift(60, PAGES * PAGE as u64, || {
        let arena = device.create("round", 1 << 32)?;
        let map = arena.map(1000, PAGES)?;
        for page in 0..PAGES as usize {
            map.touch(page, 1);
        }
        arena.commit()?;
        arena.delta_in_steps(0, 1)?;
        map.touch(0, 1);
        Ok(())
    })?;
    // A page in a chunk of its own each: the bookkeeping is what could be lost.
    ensure_no_drift(60, PAGES * PAGE as u64, || {
        let arena = device.create("round", 1 << 32)?;
        let map = arena.map_all()?;
        for chunk in 0..PAGES as usize / 2 {
            map.touch(chunk * 512 * 999, 1);
        }
        arena.commit()?;
        arena.delta(0)?;
        Ok(())
    })
}

fn making_and_refusing_arenas_leaves_no_memory_behind(_: &Options) -> Outcome {
    let device = Device::open()?;
    // What a refused call could forget is small, so many calls make a round.
    ensure_no_drift(20, 1000 * 1024, || {
        for _ in 0..1000 {
            let mut create = crate::device::create_request("refused", 1);
            create.epoch = 1 << 63;
            ensure_eq!(
                device.create_with(&mut create).err(),
                Some(Errno::EINVAL),
                "CREATE"
            );
            ensure_eq!(
                raw_open(&device, 1 << 60).err(),
                Some(Errno::ENOENT),
                "OPEN"
            );
        }
        Ok(())
    })
}
