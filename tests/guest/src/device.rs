// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `/dev/ckpt`, called as the header says it is to be called.

use std::fs::File;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::abi;
use crate::arena::Arena;
use crate::failure::Failure;
use crate::ioctl;

/// The bytes of a page. [`abi::ckpt_version::page_shift`] is checked against it.
pub const PAGE: usize = 4096;

/// A descriptor of `/dev/ckpt`.
pub struct Device {
    file: File,
}

impl Device {
    /// Opens the device node.
    pub fn open() -> Result<Self, Failure> {
        let path = abi::CKPT_DEVICE_PATH.to_str()?;
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Self { file }),
            Err(error) => Err(Failure::new(format!(
                "{path}: {error}; load the module and run as root"
            ))),
        }
    }

    /// CKPT_IOC_VERSION.
    pub fn version(&self) -> Result<abi::ckpt_version, Errno> {
        let mut version = abi::ckpt_version {
            size: size_of::<abi::ckpt_version>() as u32,
            ..abi::ckpt_version::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_VERSION, &mut version).map(|()| version)
    }

    /// CKPT_IOC_CREATE with the given structure.
    pub fn create_with(&self, create: &mut abi::ckpt_create) -> Result<Arena, Errno> {
        ioctl::call(self, abi::CKPT_IOC_CREATE, create)?;
        // SAFETY: a successful call returns a new descriptor, which is ours.
        let fd = unsafe { OwnedFd::from_raw_fd(create.fd) };
        Ok(Arena::new(fd, create.id, create.len_bytes))
    }

    /// A new arena of that many pages, without a past.
    pub fn create(&self, name: &str, len_pages: u64) -> Result<Arena, Errno> {
        self.create_with(&mut create_request(name, len_pages))
    }

    /// CKPT_IOC_OPEN.
    pub fn open_arena(&self, id: u64, flags: u32) -> Result<Arena, Errno> {
        let mut open = abi::ckpt_open {
            size: size_of::<abi::ckpt_open>() as u32,
            flags,
            id,
            ..abi::ckpt_open::ZERO
        };
        ioctl::call(self, abi::CKPT_IOC_OPEN, &mut open)?;
        // SAFETY: a successful call returns a new descriptor, which is ours.
        let fd = unsafe { OwnedFd::from_raw_fd(open.fd) };
        let len_bytes = Arena::new(fd.try_clone().map_err(|_| Errno::EMFILE)?, id, 0)
            .info()?
            .len_bytes;
        Ok(Arena::new(fd, id, len_bytes))
    }

    /// CKPT_IOC_LIST, one call: the entries and the structure as it came back.
    pub fn list_from(
        &self,
        start_id: u64,
        capacity: usize,
    ) -> Result<(Vec<abi::ckpt_info>, abi::ckpt_list), Errno> {
        let mut entries = vec![abi::ckpt_info::ZERO; capacity];
        let mut list = list_request(&mut entries);
        list.start_id = start_id;
        ioctl::call(self, abi::CKPT_IOC_LIST, &mut list)?;
        entries.truncate(list.count as usize);
        Ok((entries, list))
    }

    /// Every arena that this process could open.
    pub fn list(&self) -> Result<Vec<abi::ckpt_info>, Errno> {
        let mut all = Vec::new();
        let mut start_id = 0;
        loop {
            let (entries, list) = self.list_from(start_id, 64)?;
            all.extend(entries);
            if list.more == 0 {
                return Ok(all);
            }
            start_id = list.start_id;
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A CREATE argument that the header calls valid.
pub fn create_request(name: &str, len_pages: u64) -> abi::ckpt_create {
    abi::ckpt_create {
        size: size_of::<abi::ckpt_create>() as u32,
        len_bytes: len_pages * PAGE as u64,
        name: name_field(name.as_bytes()),
        ..abi::ckpt_create::ZERO
    }
}

/// A LIST argument for all of `entries`.
pub fn list_request(entries: &mut [abi::ckpt_info]) -> abi::ckpt_list {
    abi::ckpt_list {
        size: size_of::<abi::ckpt_list>() as u32,
        entries: entries.as_mut_ptr().expose_provenance() as u64,
        entry_size: size_of::<abi::ckpt_info>() as u32,
        capacity: entries.len() as u32,
        ..abi::ckpt_list::ZERO
    }
}

/// The name field of a structure, with zeros after the name.
pub fn name_field(name: &[u8]) -> [u8; abi::CKPT_NAME_MAX as usize] {
    let mut field = [0; abi::CKPT_NAME_MAX as usize];
    field[..name.len()].copy_from_slice(name);
    field
}

/// The name in a field, without what follows it.
pub fn name_of(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
