// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `/proc/self/pagemap`, which tells the written pages of memory that is protected by
//! [`super::userfault`], and protects them anew.
//!
//! The definitions are those of `linux/fs.h`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::libc;

use super::gate::Call;
use super::gate::call;

const PATH: &str = "/proc/self/pagemap";

/// `struct page_region`: pages one behind the other that are alike.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
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

/// PAGE_IS_WRITTEN: there, and not protected.
const WRITTEN: u64 = 1 << 1;
/// PAGE_IS_PRESENT.
const PRESENT: u64 = 1 << 3;
/// PAGE_IS_SWAPPED.
const SWAPPED: u64 = 1 << 4;
/// PAGE_IS_PFNZERO: was read and never written, and shares the kernel's page of zeros.
const PFNZERO: u64 = 1 << 5;

/// PM_SCAN_WP_MATCHING: protect what is told as written.
const WP_MATCHING: u64 = 1 << 0;
/// PM_SCAN_CHECK_WPASYNC: fail where memory is not registered.
const CHECK_WPASYNC: u64 = 1 << 1;

/// PAGEMAP_SCAN.
const SCAN: libc::Ioctl = libc::_IOWR::<Scan>(b'f' as u32, 16);

/// Regions that a call can tell.
const REGIONS: usize = 4096;

/// The pagemap of this process.
pub struct Pagemap {
    file: File,
    regions: Vec<Region>,
}

impl Pagemap {
    /// Opens it.
    pub fn open() -> io::Result<Pagemap> {
        let file = call(Call::OpenPagemap, || File::open(PATH))?;
        Ok(Pagemap {
            file,
            regions: vec![Region::default(); REGIONS],
        })
    }

    /// Tells, by ascending addresses, every page of a range that holds memory of its own, and
    /// whether it was written since it was protected; and protects those that were. All others
    /// read as zeros.
    ///
    /// A page that is written while this runs is told by this scan or by the next one, or both.
    ///
    /// # Errors
    ///
    /// `EPERM` when a part of the range is mapped otherwise than it was. Pages may be protected
    /// then that were not told.
    pub fn scan(
        &mut self,
        addresses: Range<u64>,
        mut found: impl FnMut(Range<u64>, bool),
    ) -> io::Result<()> {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: WP_MATCHING | CHECK_WPASYNC,
            start: addresses.start,
            end: addresses.end,
            vec: self.regions.as_mut_ptr() as u64,
            vec_len: self.regions.len() as u64,
            category_mask: PFNZERO,
            category_inverted: PFNZERO,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: WRITTEN,
            ..Scan::default()
        };
        while scan.start < scan.end {
            let count = call(Call::Ioctl(SCAN as u32), || {
                // SAFETY: The structure is the command's, and the vector has as many places as
                // it says. Protecting pages of the process changes nothing that it sees.
                match unsafe { libc::ioctl(self.file.as_raw_fd(), SCAN, &raw mut scan) } {
                    ..0 => Err(io::Error::last_os_error()),
                    count => Ok(count as usize),
                }
            })?;
            for region in &self.regions[..count] {
                found(region.start..region.end, region.categories & WRITTEN != 0);
            }
            scan.start = scan.walk_end;
        }
        Ok(())
    }
}
