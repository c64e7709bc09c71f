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
use super::backend::GatherCall;
use super::backend::Gathered;
use super::backend::SnapshotFacts;
use super::backend::SnapshotMade;
use super::geometry::Geometry;
use super::helper::Helper;
use super::op::Advice;
use super::op::Closing;
use super::op::Means;
use super::op::Op;
use super::op::Place;
use super::op::Watch;
use super::op::Write;
use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::pipe::pipe;
use crate::process::End;
use crate::process::Peer;
use crate::process::end_of;
use crate::scratch::DirectFile;
use crate::snapshot;
use crate::snapshot::Snapshot;
use crate::write_protect;
use crate::write_protect::Cleared;
use crate::write_protect::WriteProtector;

/// An arena of the module, mapped by this process and a helper.
pub struct Kernel {
    arena: Arena,
    geometry: Geometry,
    slots: Vec<Option<Mapping>>,
    // The arena's page that each slot begins with.
    pgoffs: Vec<u64>,
    snapshots: Vec<Option<Snapshot>>,
    makes_snapshots: bool,
    protector: Option<WriteProtector>,
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
            pgoffs: vec![0; 16],
            snapshots: (0..16).map(|_| None).collect(),
            makes_snapshots: snapshot::are_there()?,
            protector: WriteProtector::new().ok(),
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

    // None of this may change what the arena tells. Ranges that nobody registered are refused,
    // and after a move nobody is registered any more.
    fn watch(&self, slot: usize, page: usize, pages: usize, watch: Watch) -> Outcome {
        let mapping = self.slot(slot)?;
        let (address, len) = (mapping.at(page * PAGE), pages * PAGE);
        match (watch, &self.protector) {
            (Watch::ClearReferenced, _) => write_protect::clear(Cleared::Referenced)?,
            (Watch::ClearSoftDirty, _) => write_protect::clear(Cleared::SoftDirty)?,
            (Watch::Compact, _) => write_protect::compact_memory()?,
            (Watch::Register, Some(protector)) => {
                let _ = protector.register(mapping.address(), mapping.len());
            }
            (Watch::Protect, Some(protector)) => {
                let _ = protector.protect(address, len, true);
            }
            (Watch::Unprotect, Some(protector)) => {
                let _ = protector.protect(address, len, false);
            }
            (_, None) => {}
        }
        Ok(())
    }

    fn snapshot(&self, shot: usize) -> Result<&Snapshot, String> {
        let open = self.snapshots[shot].as_ref();
        open.ok_or_else(|| format!("snapshot {shot} is not open"))
    }

    fn give_up(&mut self, shot: usize, how: Closing) -> Outcome {
        let snapshot = self.snapshots[shot]
            .take()
            .ok_or_else(|| Failure::new(format!("snapshot {shot} is not open")))?;
        match how {
            Closing::Close => drop(snapshot),
            Closing::CloseBoth => {
                let other = Snapshot::new(snapshot.as_fd().try_clone_to_owned()?);
                drop(snapshot);
                other.info()?;
            }
            Closing::Kill => {
                let heir = Peer::start(|link| {
                    snapshot.info()?;
                    link.send_number(0)?;
                    link.receive()?;
                    Ok(())
                })?;
                heir.link.receive_number()?;
                drop(snapshot);
                heir.kill()?;
            }
        }
        Ok(())
    }

    // Both ways in which the kernel is asked to write to a read-only page.
    fn refused(&self, slot: usize, page: usize) -> Outcome {
        let address = self.slot(slot)?.at(page * PAGE + 8);
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
            Op::Sweep(ref sweep) => {
                let mapping = self.slot(sweep.slot)?;
                for (offset, value) in sweep.stores() {
                    mapping.store_word(offset, value);
                }
            }
            Op::Replace { slot, page, pages } => {
                let pgoff = self.pgoffs[slot] + page as u64;
                self.slot(slot)?.replace(&self.arena, pgoff, page, pages)?;
            }
            Op::Shrink { slot, pages } => {
                if let Some(mapping) = &mut self.slots[slot] {
                    mapping.shrink(pages)?;
                }
            }
            Op::Split { slot, page, to } => {
                if let Some(mapping) = &mut self.slots[slot] {
                    self.slots[to] = Some(mapping.split_off(page)?);
                    self.pgoffs[to] = self.pgoffs[slot] + page as u64;
                }
            }
            Op::Watch {
                slot,
                page,
                pages,
                watch,
            } => self.watch(slot, page, pages, watch)?,
            Op::Map { slot, dense, pages } => {
                let pgoff = self.geometry.pgoff(dense);
                self.slots[slot] = Some(self.arena.map(pgoff, pages as u64)?);
                self.pgoffs[slot] = pgoff;
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
        self.arena.pread(offset, len).map_err(text)
    }

    fn commit(&mut self) -> Result<Committed, String> {
        let commit = self.arena.commit().map_err(text)?;
        Ok(Committed {
            epoch: commit.epoch,
            changed_pages: commit.changed_pages,
        })
    }

    fn delta(&mut self, since: u64, start: u64, capacity: usize) -> Result<DeltaPart, String> {
        let (ranges, delta) = self
            .arena
            .delta_from(since, start, capacity)
            .map_err(text)?;
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
        let info = self.arena.info().map_err(text)?;
        Ok(Facts {
            epoch: info.epoch,
            resident_pages: info.resident_pages,
            changed_pages: info.changed_pages,
            counts_all: info.tracker & abi::CKPT_TRACKER_ADAPTIVE == 0,
        })
    }

    fn makes_snapshots(&self) -> bool {
        self.makes_snapshots
    }

    fn commit_with_snapshot(
        &mut self,
        shot: usize,
        since: u64,
        reserve: u64,
    ) -> Result<SnapshotMade, String> {
        let (snapshot, commit) =
            snapshot::commit_with_snapshot(&self.arena, since, reserve).map_err(text)?;
        self.snapshots[shot] = Some(snapshot);
        Ok(SnapshotMade {
            committed: Committed {
                epoch: commit.epoch,
                changed_pages: commit.changed_pages,
            },
            pages: commit.snapshot_pages,
            reserve_pages: commit.reserve_pages,
        })
    }

    fn gather(&mut self, shot: usize, call: &GatherCall) -> Result<Gathered, String> {
        let flags = if call.thaw { abi::CKPT_GATHER_THAW } else { 0 };
        self.snapshot(shot)?
            .gather(call.start, call.capacity, call.buffer_pages, flags)
            .map_err(text)
    }

    fn thaw(&mut self, shot: usize, pgoff: u64, pages: u64) -> Result<(), String> {
        self.snapshot(shot)?.thaw(pgoff, pages).map_err(text)
    }

    fn snapshot_facts(&mut self, shot: usize) -> Result<SnapshotFacts, String> {
        let info = self.snapshot(shot)?.info().map_err(text)?;
        if info.arena_id != self.arena.id() {
            return Err(format!("the snapshot tells arena {}", info.arena_id));
        }
        Ok(SnapshotFacts {
            epoch: info.epoch,
            since: info.since,
            pages: info.pages,
            held_pages: info.held_pages,
            copied_pages: info.copied_pages,
            reserve_pages: info.reserve_pages,
        })
    }

    fn close_snapshot(&mut self, shot: usize, how: Closing) -> Result<(), String> {
        self.give_up(shot, how).map_err(words)
    }
}

fn text(errno: Errno) -> String {
    errno.to_string()
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Failed(text) | Failure::Skipped(text) => text,
    }
}

fn pointer(address: usize) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(address)
}
