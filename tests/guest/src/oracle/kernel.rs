// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The module as an oracle's backend.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;

use super::backend::Backend;
use super::backend::Committed;
use super::backend::DeltaPart;
use super::backend::Facts;
use super::geometry::Geometry;
use super::helper::Helper;
use super::op::Advice;
use super::op::Means;
use super::op::Op;
use super::op::Place;
use super::op::Write;
use crate::arena::Arena;
use crate::device::Device;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::pipe::pipe;
use crate::process::End;
use crate::process::end_of;
use crate::scratch::DirectFile;

/// An arena of the module, mapped by this process and a helper.
pub struct Kernel {
    arena: Arena,
    geometry: Geometry,
    slots: Vec<Option<Mapping>>,
    helper: Helper,
    pipe: (File, File),
    source: File,
    direct: Option<DirectFile>,
}

impl Kernel {
    /// A new arena. `source` is what [`Means::ReadFile`] reads, and `direct` a
    /// file with the same bytes for O_DIRECT, where there is one.
    pub fn new(
        geometry: Geometry,
        source: &[u8],
        direct: Option<DirectFile>,
    ) -> Result<Self, Failure> {
        let arena = Device::open()?.create("oracle", geometry.len_pages)?;
        let helper = Helper::start(&arena, &geometry)?;
        let mut file = File::from(memfd_create("source", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(source)?;
        Ok(Self {
            slots: (0..16).map(|_| None).collect(),
            pipe: pipe()?,
            source: file,
            arena,
            geometry,
            helper,
            direct,
        })
    }

    /// Ends the helper and gives the arena's descriptor back.
    pub fn finish(self) -> Outcome {
        self.helper.finish()
    }

    fn slot(&self, index: usize) -> Result<&Mapping, Failure> {
        self.slots[index]
            .as_ref()
            .ok_or_else(|| Failure::new(format!("slot {index} is not mapped")))
    }

    fn write(&self, write: &Write) -> Outcome {
        let data = &write.data;
        match write.place {
            Place::Helper(window) => match write.means {
                Means::HelperCopy => self.helper.write(window, write.offset, data),
                Means::HelperVmWrite => self.helper.vm_write_into(window, write.offset, data),
                Means::HelperProcMem => self.helper.proc_mem_write(window, write.offset, data),
                Means::HelperPoke => {
                    let word = i64::from_ne_bytes(data.as_slice().try_into()?);
                    self.helper.poke(window, write.offset, word)
                }
                other => Err(Failure::new(format!("{other:?} through the helper"))),
            },
            Place::Slot(slot) => self.write_here(write, self.slot(slot)?),
        }
    }

    fn write_here(&self, write: &Write, mapping: &Mapping) -> Outcome {
        let (offset, data) = (write.offset, &write.data);
        let address = mapping.at(offset);
        let filled = |result: isize| {
            let read = Errno::result(result)?;
            crate::ensure_eq!(read as usize, data.len(), "bytes read into the arena");
            Ok(())
        };
        match write.means {
            Means::Store => mapping.store(offset, data),
            Means::Copy => mapping.write(offset, data),
            Means::Exchange => {
                let value = u64::from_ne_bytes(data.as_slice().try_into()?);
                let target = std::ptr::with_exposed_provenance_mut(address);
                // SAFETY: aligned by the generator, mapped, and alive during the call.
                unsafe { AtomicU64::from_ptr(target) }.swap(value, Ordering::Relaxed);
            }
            Means::Fill => {
                // SAFETY: stores `data.len()` bytes inside the mapping.
                unsafe {
                    std::arch::asm!(
                        "rep stosb",
                        inout("rdi") address => _,
                        inout("rcx") data.len() => _,
                        in("al") data[0],
                        options(nostack, preserves_flags)
                    );
                }
            }
            Means::ReadPipe => {
                (&self.pipe.1).write_all(data)?;
                let fd = self.pipe.0.as_raw_fd();
                // SAFETY: the target is a part of the mapping.
                filled(unsafe { libc::read(fd, pointer(address), data.len()) })?;
            }
            Means::ReadFile => {
                let fd = self.source.as_raw_fd();
                // SAFETY: the target is a part of the mapping.
                filled(unsafe {
                    libc::pread(fd, pointer(address), data.len(), write.source as i64)
                })?;
            }
            Means::ReadDirect => {
                let direct = self.direct.as_ref();
                let fd = direct
                    .ok_or_else(|| Failure::new("no file for O_DIRECT"))?
                    .as_fd()
                    .as_raw_fd();
                // SAFETY: the target is a part of the mapping.
                filled(unsafe {
                    libc::pread(fd, pointer(address), data.len(), write.source as i64)
                })?;
            }
            Means::VmWrite => self.helper.vm_write(address, data)??,
            other => return Err(Failure::new(format!("{other:?} through a slot"))),
        }
        Ok(())
    }

    // Both ways in which the kernel is asked to write to a read-only page.
    fn refused(&self, slot: usize, page: usize) -> Outcome {
        let address = self.slot(slot)?.at(page * crate::device::PAGE + 8);
        let fd = self.source.as_raw_fd();
        // SAFETY: the kernel checks the target, which is a read-only page here.
        let read = Errno::result(unsafe { libc::pread(fd, pointer(address), 8, 0) });
        crate::ensure_eq!(read, Err(Errno::EFAULT), "pread into a read-only page");
        let written = self.helper.vm_write(address, &[0x55; 8])?;
        crate::ensure_eq!(
            written,
            Err(Errno::EFAULT),
            "process_vm_writev into a read-only page"
        );
        Ok(())
    }

    fn carry_out(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::Write(ref write) => self.write(write)?,
            Op::Map { slot, dense, pages } => {
                let pgoff = self.geometry.pgoff(dense);
                self.slots[slot] = Some(self.arena.map(pgoff, pages as u64)?);
            }
            Op::Unmap { slot } => {
                let mapping = self.slots[slot].take();
                mapping.map_or(Ok(()), Mapping::unmap)?;
            }
            Op::Move { slot } => {
                if let Some(mapping) = &mut self.slots[slot] {
                    mapping.move_elsewhere()?;
                }
            }
            Op::Protect {
                slot,
                page,
                pages,
                writable,
            } => {
                let protection = if writable {
                    libc::PROT_READ | libc::PROT_WRITE
                } else {
                    libc::PROT_READ
                };
                self.slot(slot)?.protect(page, pages, protection)?;
            }
            Op::Advise {
                slot,
                page,
                pages,
                advice,
            } => {
                let advice = match advice {
                    Advice::DontNeed => libc::MADV_DONTNEED,
                    Advice::PopulateRead => libc::MADV_POPULATE_READ,
                    Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
                };
                self.slot(slot)?.advise(page, pages, advice)?;
            }
            Op::Refused { slot, page } => self.refused(slot, page)?,
            Op::Fork => {
                crate::ensure_eq!(end_of(|| ())?, End::Exited(0), "the forked child");
            }
            Op::HelperRemap { window } => self.helper.remap(window)?,
            Op::HelperDontNeed { window } => self.helper.dont_need(window)?,
            ref other => return Err(Failure::new(format!("no action: {other}"))),
        }
        Ok(())
    }
}

impl Backend for Kernel {
    fn supports(&self, means: Means) -> bool {
        means != Means::ReadDirect || self.direct.is_some()
    }

    fn act(&mut self, op: &Op) -> Result<(), String> {
        self.carry_out(op).map_err(words)
    }

    fn load(&mut self, slot: usize, offset: usize, len: usize) -> Result<Vec<u8>, String> {
        Ok(self.slot(slot).map_err(words)?.read(offset, len))
    }

    fn pread(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        self.arena
            .pread(offset, len)
            .map_err(|errno| errno.to_string())
    }

    fn commit(&mut self) -> Result<Committed, String> {
        let commit = self.arena.commit().map_err(|errno| errno.to_string())?;
        Ok(Committed {
            epoch: commit.epoch,
            changed_pages: commit.changed_pages,
        })
    }

    fn delta(&mut self, since: u64, start: u64, capacity: usize) -> Result<DeltaPart, String> {
        let (ranges, delta) = self
            .arena
            .delta_from(since, start, capacity)
            .map_err(|errno| errno.to_string())?;
        Ok(DeltaPart {
            epoch: delta.epoch,
            ranges: ranges
                .iter()
                .map(|range| (range.pgoff, range.pages))
                .collect(),
            pages: delta.pages,
            next: (delta.more != 0).then_some(delta.start_pgoff),
        })
    }

    fn facts(&mut self) -> Result<Facts, String> {
        let info = self.arena.info().map_err(|errno| errno.to_string())?;
        Ok(Facts {
            epoch: info.epoch,
            resident_pages: info.resident_pages,
            changed_pages: info.changed_pages,
        })
    }
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Failed(text) | Failure::Skipped(text) => text,
    }
}

fn pointer(address: usize) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(address)
}
