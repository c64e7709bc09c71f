// SPDX-License-Identifier: Apache-2.0 OR MIT
//! PAGEMAP_SCAN over asynchronous userfaultfd write protection.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use anyhow::Context;
use anyhow::Result;
use nix::libc;

use super::memory::PAGE;
use super::memory::Private;
use super::runs::Mechanism;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

// From linux/userfaultfd.h and linux/fs.h.
const UFFD_API: u64 = 0xAA;
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PM_SCAN_WP_MATCHING: u64 = 1 << 0;
const PM_SCAN_CHECK_WPASYNC: u64 = 1 << 1;

nix::ioctl_readwrite!(uffdio_api, 0xAA, 0x3F, UffdioApi);
nix::ioctl_readwrite!(uffdio_register, 0xAA, 0x00, UffdioRegister);
nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);

/// Regions that a call can tell.
const REGIONS: usize = 4096;

/// Private memory, registered.
pub struct PagemapScan {
    memory: Private,
    pagemap: File,
    regions: Vec<PageRegion>,
    _uffd: OwnedFd,
}

impl PagemapScan {
    /// Memory of so many pages.
    pub fn new(pages: u64) -> Result<PagemapScan> {
        let memory = Private::new(pages)?;
        // SAFETY: Makes a descriptor.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("userfaultfd");
        }
        // SAFETY: New and ours.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut api = UffdioApi {
            api: UFFD_API,
            features: UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
            ioctls: 0,
        };
        let mut register = UffdioRegister {
            start: memory.base().as_ptr() as u64,
            len: memory.len() as u64,
            mode: UFFDIO_REGISTER_MODE_WP,
            ioctls: 0,
        };
        // SAFETY: The structures are those of the calls; the range is ours.
        unsafe {
            uffdio_api(uffd.as_raw_fd(), &mut api).context("UFFDIO_API")?;
            uffdio_register(uffd.as_raw_fd(), &mut register).context("UFFDIO_REGISTER")?;
        }
        let mut regions = Vec::new();
        regions.resize_with(REGIONS, || PageRegion {
            start: 0,
            end: 0,
            categories: 0,
        });
        let mut scan = PagemapScan {
            memory,
            pagemap: File::open("/proc/self/pagemap").context("opening pagemap")?,
            regions,
            _uffd: uffd,
        };
        // Armed before the first write.
        scan.commit(&mut || {}, &mut |_, _| {})?;
        Ok(scan)
    }
}

impl Mechanism for PagemapScan {
    fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    fn commit(&mut self, _told: &mut dyn FnMut(), found: &mut dyn FnMut(u64, u64)) -> Result<bool> {
        let base = self.memory.base().as_ptr() as u64;
        let mut scan = PmScanArg {
            size: size_of::<PmScanArg>() as u64,
            flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
            start: base,
            end: base + self.memory.len() as u64,
            vec: self.regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            category_mask: PAGE_IS_WRITTEN,
            return_mask: PAGE_IS_WRITTEN,
            ..PmScanArg::default()
        };
        while scan.start < scan.end {
            // SAFETY: The structure is the call's, and the vector has as many places as it says.
            let count = unsafe { pagemap_scan(self.pagemap.as_raw_fd(), &mut scan) }
                .context("PAGEMAP_SCAN")?;
            for region in &self.regions[..count as usize] {
                let first = (region.start - base) / PAGE as u64;
                found(first, (region.end - region.start) / PAGE as u64);
            }
            scan.start = scan.walk_end;
        }
        Ok(true)
    }
}
