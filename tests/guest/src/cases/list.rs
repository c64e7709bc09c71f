// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_LIST, apart from who sees what: that is in `access`.

use nix::errno::Errno;

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::list_request;
use crate::device::name_of;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    without_arenas_the_list_is_empty,
    arenas_are_listed_by_ascending_id,
    a_list_in_steps_of_any_size_is_the_whole_list,
    more_is_told_only_when_there_is_more,
    a_list_starts_at_the_wanted_id,
    an_entry_is_what_info_says,
    capacity_zero_is_refused,
    a_wrong_entry_size_is_refused,
    a_larger_entry_is_filled_with_zeros,
    entries_that_cannot_be_written_are_refused,
    a_capacity_beyond_all_memory_costs_nothing,
];

fn some_arenas(device: &Device, count: u64) -> Result<Vec<Arena>, Failure> {
    let mut arenas = Vec::new();
    for number in 0..count {
        arenas.push(device.create(&format!("arena {number}"), number + 1)?);
    }
    Ok(arenas)
}

fn ids(entries: &[abi::ckpt_info]) -> Vec<u64> {
    entries.iter().map(|entry| entry.id).collect()
}

fn without_arenas_the_list_is_empty(_: &Options) -> Outcome {
    let (entries, list) = Device::open()?.list_from(0, 4)?;
    ensure_eq!(entries.len(), 0, "entries");
    ensure_eq!((list.count, list.more), (0, 0), "count and more");
    Ok(())
}

fn arenas_are_listed_by_ascending_id(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut arenas = some_arenas(&device, 20)?;
    // Holes in the numbers must not matter.
    for index in [17, 9, 8, 0] {
        drop(arenas.remove(index));
    }
    let mut expected: Vec<_> = arenas.iter().map(Arena::id).collect();
    expected.sort_unstable();
    ensure_eq!(ids(&device.list()?), expected, "ids");
    Ok(())
}

fn a_list_in_steps_of_any_size_is_the_whole_list(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 13)?;
    let expected: Vec<_> = arenas.iter().map(Arena::id).collect();
    for capacity in [1, 2, 3, 12, 13, 14, 100] {
        let mut listed = Vec::new();
        let mut start_id = 0;
        loop {
            let (entries, list) = device.list_from(start_id, capacity)?;
            ensure_eq!(list.count as usize, entries.len(), "count");
            listed.extend(ids(&entries));
            if list.more == 0 {
                break;
            }
            ensure_eq!(list.more, 1, "more");
            ensure_eq!(entries.len(), capacity, "entries of a call that has more");
            start_id = list.start_id;
        }
        ensure_eq!(listed, expected, "ids in steps of {capacity}");
    }
    Ok(())
}

fn more_is_told_only_when_there_is_more(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 5)?;
    for (capacity, more) in [(4, 1), (5, 0), (6, 0)] {
        let (_, list) = device.list_from(0, capacity)?;
        ensure_eq!(
            list.more,
            more,
            "more with room for {capacity} of {}",
            arenas.len()
        );
    }
    Ok(())
}

fn a_list_starts_at_the_wanted_id(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 5)?;
    let third = arenas[2].id();
    ensure_eq!(
        ids(&device.list_from(third, 9)?.0),
        vec![third, third + 1, third + 2],
        "from it"
    );
    ensure_eq!(
        ids(&device.list_from(third + 1, 1)?.0),
        vec![third + 1],
        "from the next"
    );
    for start_id in [third + 3, third + 1000, u64::MAX] {
        let (entries, list) = device.list_from(start_id, 9)?;
        ensure_eq!((entries.len(), list.more), (0, 0), "from {start_id}");
    }
    Ok(())
}

fn an_entry_is_what_info_says(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 3)?;
    arenas[1].map_all()?.touch(1, 1);
    arenas[1].commit()?;
    arenas[1].map_all()?.touch(0, 1);
    for (arena, entry) in arenas.iter().zip(device.list()?) {
        let info = arena.info()?;
        ensure_eq!(entry.size as usize, size_of::<abi::ckpt_info>(), "size");
        ensure_eq!(
            format!("{entry:?}"),
            format!("{info:?}"),
            "entry of {}",
            name_of(&info.name)
        );
    }
    Ok(())
}

fn capacity_zero_is_refused(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arena = device.create("one", 1)?;
    ensure_eq!(
        device.list_from(0, 0).err(),
        Some(Errno::EINVAL),
        "capacity 0"
    );
    ensure_eq!(
        device.list_from(arena.id() + 1, 0).err(),
        Some(Errno::EINVAL),
        "without entries"
    );
    Ok(())
}

fn a_wrong_entry_size_is_refused(_: &Options) -> Outcome {
    let device = Device::open()?;
    let _arena = device.create("one", 1)?;
    let mut entries = vec![abi::ckpt_info::ZERO; 64];
    let first = size_of::<abi::ckpt_info>() as u32;
    for entry_size in [0, 1, 8, first - 8, first - 1, 4097, 8192, 1 << 31, u32::MAX] {
        let mut list = list_request(&mut entries);
        list.entry_size = entry_size;
        list.capacity = 1;
        let result = ioctl::call(&device, abi::CKPT_IOC_LIST, &mut list);
        ensure_eq!(result, Err(Errno::EINVAL), "entry_size {entry_size}");
    }
    Ok(())
}

fn a_larger_entry_is_filled_with_zeros(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 3)?;
    let first = size_of::<abi::ckpt_info>();
    for entry_size in [first + 1, first + 8, first + 100, 4096] {
        let mut buffer = vec![0xa5_u8; entry_size * 4];
        let mut list = list_request(&mut []);
        list.entries = buffer.as_mut_ptr().expose_provenance() as u64;
        list.entry_size = entry_size as u32;
        list.capacity = 4;
        ioctl::call(&device, abi::CKPT_IOC_LIST, &mut list)?;
        ensure_eq!(list.count, 3, "count");
        for (arena, entry) in arenas.iter().zip(buffer.chunks(entry_size)) {
            let id_at = std::mem::offset_of!(abi::ckpt_info, id);
            ensure_eq!(entry[id_at..id_at + 8], arena.id().to_ne_bytes(), "id");
            ensure_eq!(entry[..4], (first as u32).to_ne_bytes(), "size");
            ensure!(
                entry[first..].iter().all(|byte| *byte == 0),
                "the tail of an entry of {entry_size} bytes is not zero"
            );
        }
    }
    Ok(())
}

fn entries_that_cannot_be_written_are_refused(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 3)?;
    let pages = Mapping::anonymous(2 * PAGE)?;
    pages.protect(1, 1, libc::PROT_READ)?;
    // The last place has room for one entry and a half.
    let split = pages.at(PAGE) - size_of::<abi::ckpt_info>() * 3 / 2;
    for address in [0, 8, pages.at(PAGE), 1 << 47, !0xfff, split] {
        let mut list = list_request(&mut []);
        list.entries = address as u64;
        list.capacity = 3;
        let result = ioctl::call(&device, abi::CKPT_IOC_LIST, &mut list);
        ensure_eq!(result, Err(Errno::EFAULT), "entries at {address:#x}");
    }
    ensure_eq!(device.list()?.len(), arenas.len(), "arenas afterwards");
    Ok(())
}

fn a_capacity_beyond_all_memory_costs_nothing(_: &Options) -> Outcome {
    let device = Device::open()?;
    let arenas = some_arenas(&device, 3)?;
    let mut entries = vec![abi::ckpt_info::ZERO; 3];
    let mut list = list_request(&mut entries);
    list.capacity = u32::MAX;
    ioctl::call(&device, abi::CKPT_IOC_LIST, &mut list)?;
    ensure_eq!((list.count, list.more), (3, 0), "count and more");
    ensure_eq!(
        ids(&entries),
        arenas.iter().map(Arena::id).collect::<Vec<_>>(),
        "ids"
    );
    Ok(())
}
