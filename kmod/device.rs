// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/ckpt`: makes arenas, finds them.

use core::marker::PhantomData;

use kernel::bindings;
use kernel::fs::file::FileDescriptorReservation;
use kernel::fs::File;
use kernel::miscdevice::MiscDevice;
use kernel::miscdevice::MiscDeviceRegistration;
use kernel::page::PAGE_SHIFT;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

use crate::arena::Geometry;
use crate::arena::Name;
use crate::arena::EPOCH_MAX;
use crate::arena_file::ArenaFile;
use crate::mm::compat;
use crate::mm::file::NewFile;
use crate::mm::mapping;
use crate::registry;
use crate::uapi;
use crate::uapi::same_command;
use crate::uapi::Entries;
use crate::uapi::Passed;

/// Version of the module, as `CKPT_IOC_VERSION` tells it.
const RELEASE: &[u8] = b"0.1.0";

/// Arenas listed in one go, with the registry locked.
const LIST_BATCH: usize = 16;

/// An open descriptor of the device. It has nothing to remember.
pub(crate) struct Device {
    _nothing: PhantomData<()>,
}

#[vtable]
impl MiscDevice for Device {
    type Ptr = KBox<Self>;

    fn open(file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        compat::keep_loaded::<Self>(file)?;
        let device = Device {
            _nothing: PhantomData,
        };
        Ok(KBox::new(device, GFP_KERNEL)?)
    }

    fn ioctl(_device: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            cmd if same_command(cmd, uapi::CKPT_IOC_VERSION) => version(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_CREATE) => create(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_OPEN) => open(cmd, arg),
            cmd if same_command(cmd, uapi::CKPT_IOC_LIST) => list(cmd, arg),
            _ => Err(ENOTTY),
        }?;
        Ok(0)
    }
}

fn version(cmd: u32, arg: usize) -> Result {
    let (passed, mut version) = Passed::read::<uapi::ckpt_version>(cmd, arg)?;
    version.abi_version = uapi::CKPT_ABI_VERSION;
    version.trackers = uapi::CKPT_TRACKER_ARMED;
    if mapping::ADAPTS {
        version.trackers |= uapi::CKPT_TRACKER_ADAPTIVE;
    }
    version.page_shift = PAGE_SHIFT as u32;
    version.arena_max_bytes = uapi::CKPT_ARENA_MAX_BYTES;
    version.release = [0; 32];
    version.release[..RELEASE.len()].copy_from_slice(RELEASE);
    passed.write(&version)
}

/// A name of 1 to 63 printable bytes; what follows its NUL is dropped.
fn checked_name(given: &Name) -> Result<Name> {
    let len = given.iter().position(|&byte| byte == 0).ok_or(EINVAL)?;
    if len == 0 || !given[..len].iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(EINVAL);
    }
    let mut name = [0; uapi::CKPT_NAME_MAX as usize];
    name[..len].copy_from_slice(&given[..len]);
    Ok(name)
}

fn create(cmd: u32, arg: usize) -> Result {
    let (passed, mut create) = Passed::read::<uapi::ckpt_create>(cmd, arg)?;
    uapi::check_flags(create.flags, uapi::CKPT_CREATE_PRIVATE)?;
    let aligned = create.len_bytes % PAGE_SIZE as u64 == 0;
    let in_range = (1..=uapi::CKPT_ARENA_MAX_BYTES).contains(&create.len_bytes);
    if create.reserved != 0 || !aligned || !in_range || create.epoch > EPOCH_MAX {
        return Err(EINVAL);
    }
    let geometry = Geometry {
        len_bytes: create.len_bytes,
        epoch: create.epoch,
        name: checked_name(&create.name)?,
        private: create.flags & uapi::CKPT_CREATE_PRIVATE != 0,
    };
    let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
    let file = NewFile::<ArenaFile>::new(c"[ckpt]", true)?;
    let mapping = file.mapping(geometry.len_bytes);
    let arena = registry::create(geometry, mapping)?;
    create.id = arena.id;
    create.fd = fd.reserved_fd() as i32;
    passed.write(&create)?;
    fd.fd_install(file.open(KBox::new(ArenaFile::new(arena), GFP_KERNEL)?));
    Ok(())
}

fn open(cmd: u32, arg: usize) -> Result {
    let (passed, mut open) = Passed::read::<uapi::ckpt_open>(cmd, arg)?;
    uapi::check_flags(open.flags, uapi::CKPT_OPEN_RDONLY)?;
    if open.reserved != 0 {
        return Err(EINVAL);
    }
    let arena = registry::open(open.id)?;
    let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
    let writable = open.flags & uapi::CKPT_OPEN_RDONLY == 0;
    let file = NewFile::<ArenaFile>::new(c"[ckpt]", writable)?;
    // SAFETY: The file's content, made below, has the claim on the arena, which owns the
    // mapping.
    unsafe { file.share(arena.mapping()) };
    open.fd = fd.reserved_fd() as i32;
    let file: ARef<File> = file.open(KBox::new(ArenaFile::new(arena), GFP_KERNEL)?);
    passed.write(&open)?;
    fd.fd_install(file);
    Ok(())
}

fn list(cmd: u32, arg: usize) -> Result {
    let (passed, mut list) = Passed::read::<uapi::ckpt_list>(cmd, arg)?;
    uapi::check_flags(list.flags, 0)?;
    if list.capacity == 0 {
        return Err(EINVAL);
    }
    let entries = Entries::new::<uapi::ckpt_info>(list.entries, list.entry_size)?;
    let mut infos = KVec::<uapi::ckpt_info>::with_capacity(LIST_BATCH, GFP_KERNEL)?;
    let mut next = Some(list.start_id);
    list.count = 0;
    while let Some(start) = next {
        if list.count == list.capacity {
            break;
        }
        infos.clear();
        next = registry::list(start, &mut infos);
        for info in infos.iter() {
            if list.count == list.capacity {
                next = Some(info.id);
                break;
            }
            entries.write(list.count, info)?;
            list.count += 1;
        }
    }
    list.more = u32::from(next.is_some());
    list.start_id = next.unwrap_or(u64::MAX);
    passed.write(&list)
}
