// SPDX-License-Identifier: GPL-2.0-only
//! Harvesting straight from the page tables of the committing process.
//!
//! That is possible when all areas of the arena are in its own memory map, which is the
//! usual case: then the map can be locked before the barrier, and its tables hold still.
//! Entries are looked at and changed in place, and the translation buffers are flushed
//! once, when the commit is done with all chunks. Otherwise, and where this file is not
//! sure of the kernel, `Mapping::harvest` does the work by what the kernel offers for
//! ranges, which costs more and is always possible.
//!
//! # The flush
//!
//! Modules cannot flush a memory map. But whoever changes entries under a shared lock and
//! flushes later announces it by `tlb_flush_pending`; and everybody who gathers entries
//! to take away, and sees such an announcement by another, flushes the whole map when he is
//! done (`tlb_finish_mmu`). So a commit announces itself, changes its entries, and then has
//! the kernel take away the entry of one page that is most likely not there: that call ends
//! with a flush of everything.
//!
//! This is a property of the kernel and not a promise, so it is not taken on trust: each
//! such flush has to be seen in the map's generation of translations, and before the first
//! one is relied on, it is tried with an entry that is certain to be missing, so that
//! nothing else can have caused it. If it ever fails to appear, all entries of the arena
//! are taken away instead, which the kernel has to flush, and direct harvesting ends.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;

use kernel::bindings;
use kernel::error::to_result;
use kernel::page::PAGE_SHIFT;
use kernel::prelude::*;
use kernel::types::NotThreadSafe;

use super::areas::Areas;
use super::areas::Known;
use super::mapping::Mapping;
use super::shim;
use super::table;
use crate::tracking::bits::Bits;
use crate::tracking::tracker::Plan;

/// Areas that are harvested directly; an arena mapped in more pieces is not.
const AREAS_MAX: usize = 8;

/// Areas of the map that are looked through to find ours.
const LOOK_NEAR: usize = 64;
const LOOK_ALL: usize = 4096;

/// The memory map of the calling process, locked for reading.
///
/// # Invariants
///
/// `mm` is valid, the calling thread's own, and its mmap lock is held for reading by this.
pub(crate) struct OwnMap {
    mm: NonNull<bindings::mm_struct>,
    _not_send: NotThreadSafe,
}

impl OwnMap {
    /// Locks the map, if all areas of the arena seem to be in it. `EINTR` when a fatal signal
    /// comes first.
    pub(crate) fn lock(areas: &Areas) -> Result<Option<Self>> {
        // SAFETY: Only asks for a pointer; null in a kernel thread.
        let mm = unsafe { shim::ckpt_current_mm() };
        let Some(mm) = NonNull::new(mm) else {
            return Ok(None);
        };
        if !trusted() || areas.known(mm.as_ptr()).is_none() {
            return Ok(None);
        }
        // SAFETY: The calling thread's map is valid as long as it is in this call.
        to_result(unsafe { shim::ckpt_mmap_read_lock_killable(mm.as_ptr()) })?;
        // INVARIANT: Locked just now.
        Ok(Some(OwnMap {
            mm,
            _not_send: NotThreadSafe,
        }))
    }
}

impl Drop for OwnMap {
    fn drop(&mut self) {
        // SAFETY: By the invariant the lock is ours.
        unsafe { shim::ckpt_mmap_read_unlock(self.mm.as_ptr()) };
    }
}

/// A commit that harvests directly.
///
/// # Invariants
///
/// `areas[..number]` are all areas of the arena, in the locked map. While this lives nobody
/// makes an entry of the arena writable, which is the caller's part, by the barrier.
pub(crate) struct Direct<'a> {
    map: &'a OwnMap,
    mapping: &'a Mapping,
    known: Known,
    areas: [*mut bindings::vm_area_struct; AREAS_MAX],
    number: usize,
    /// The flush is announced.
    announced: bool,
    /// Entries were changed since the last flush.
    changed: bool,
    /// Flushes made.
    pub(crate) flushes: u64,
}

impl<'a> Direct<'a> {
    /// Begins, if it is possible. The barrier is held for writing until this is dropped.
    pub(crate) fn begin(map: &'a OwnMap, mapping: &'a Mapping, areas: &Areas) -> Option<Self> {
        let mm = map.mm.as_ptr();
        // Areas in another map that appear from now on have no writable entry before the
        // barrier is released.
        let known = areas.known(mm)?;
        // SAFETY: The map is valid. One that is watched by others (a virtual machine's, say)
        // needs them told of each change, which the kernel's own functions do.
        if unsafe { shim::ckpt_mm_has_notifiers(mm) } {
            return None;
        }
        let wanted = known.number as usize;
        if wanted > AREAS_MAX {
            return None;
        }
        let mut direct = Direct {
            map,
            mapping,
            known,
            areas: [core::ptr::null_mut(); AREAS_MAX],
            number: 0,
            announced: false,
            changed: false,
            flushes: 0,
        };
        let hint = direct.known.hint;
        if !direct.look(hint, LOOK_NEAR, wanted) {
            if !direct.look(0, LOOK_ALL, wanted) {
                return None;
            }
            // SAFETY: An area of the locked map.
            areas.found(unsafe { extent(direct.areas[0]) }.0);
        }
        // Before any table's lock is taken, so that whoever takes it next sees it.
        //
        // SAFETY: The map is valid; undone on drop.
        unsafe { shim::ckpt_tlb_flush_pending_inc(mm) };
        direct.announced = true;
        Some(direct)
    }

    /// Looks for `wanted` areas from an address on. Whether all were found.
    fn look(&mut self, from: usize, limit: usize, wanted: usize) -> bool {
        self.number = 0;
        let mut at = from;
        for _ in 0..limit {
            // SAFETY: The map is valid and locked.
            let vma = unsafe { bindings::find_vma(self.map.mm.as_ptr(), at as c_ulong) };
            if vma.is_null() {
                return false;
            }
            // SAFETY: A valid area of the locked map.
            if unsafe { self.mapping.maps(vma) } {
                self.areas[self.number] = vma;
                self.number += 1;
                if self.number == wanted {
                    return true;
                }
            }
            // SAFETY: As above.
            at = unsafe { extent(vma) }.1;
        }
        false
    }

    /// As [`Hardware::harvest`](crate::tracking::tracker::Hardware::harvest), all at once at
    /// the next flush.
    pub(crate) fn harvest(&mut self, first: u64, plan: &Plan) -> Bits {
        let mut dirty = Bits::default();
        let mut changed = false;
        let arms = !plan.arm.is_empty();
        let keeps = !plan.keep.is_empty();
        let of = plan.arm.or(&plan.keep);
        for &vma in &self.areas[..self.number] {
            // SAFETY: By the invariant the area is an arena's, and the map is locked.
            unsafe {
                table::visit(vma, first, &of, |entries| {
                    if arms {
                        changed |= entries.arm(&plan.arm, &mut dirty);
                    }
                    if keeps && plan.freeze {
                        entries.dirty(&plan.keep, &mut dirty);
                    } else if keeps {
                        changed |= entries.clean(&plan.keep, &mut dirty);
                    }
                });
            }
        }
        // In all areas: a page that is dirty in one can be written through any.
        let freeze = dirty.and(&plan.keep);
        if plan.freeze && !freeze.is_empty() {
            for &vma in &self.areas[..self.number] {
                // SAFETY: As above.
                unsafe {
                    table::visit(vma, first, &freeze, |entries| {
                        changed |= entries.arm(&freeze, &mut dirty);
                    });
                }
            }
        }
        self.changed |= changed;
        dirty
    }

    /// Whether pages of the map may be pinned at all.
    pub(crate) fn may_be_pinned(&self) -> bool {
        // SAFETY: The map is valid.
        unsafe { shim::ckpt_mm_has_pinned(self.map.mm.as_ptr()) }
    }

    /// Makes all processors forget the entries that were changed.
    pub(crate) fn flush(&mut self) {
        if !core::mem::take(&mut self.changed) {
            return;
        }
        self.flushes += 1;
        // SAFETY: By the invariant an area of the locked map.
        let (start, end) = unsafe { extent(self.areas[0]) };
        // SAFETY: As above.
        let first = (unsafe { (*self.areas[0]).vm_pgoff }) as u64;
        let last = first + ((end - start) >> PAGE_SHIFT) as u64 - 1;
        let spare = match (first..=last).contains(&self.known.spare) {
            true => self.known.spare,
            false => last,
        };
        if trial_is_due() {
            // Takes the entry away, so that the second time there is none.
            self.mapping.unmap(spare, 1);
        }
        if self.flushed_by(|mapping| mapping.unmap(spare, 1)) {
            passed();
            self.known.spare = spare;
            return;
        }
        failed();
        self.mapping.unmap(0, 0);
    }

    /// The page that [`Direct::flush`] took away.
    pub(crate) fn spare(&self) -> u64 {
        self.known.spare
    }

    /// Whether translations of the map were given a new generation while `work` was done.
    #[cfg(CONFIG_X86_64)]
    fn flushed_by(&self, work: impl FnOnce(&Mapping)) -> bool {
        let mm = self.map.mm.as_ptr();
        // SAFETY: The map is valid.
        let before = unsafe { shim::ckpt_tlb_generation(mm) };
        work(self.mapping);
        // SAFETY: As above.
        before != unsafe { shim::ckpt_tlb_generation(mm) }
    }

    #[cfg(not(CONFIG_X86_64))]
    fn flushed_by(&self, _work: impl FnOnce(&Mapping)) -> bool {
        false
    }
}

impl Drop for Direct<'_> {
    fn drop(&mut self) {
        if self.announced {
            self.flush();
            // SAFETY: Announced in `begin`.
            unsafe { shim::ckpt_tlb_flush_pending_dec(self.map.mm.as_ptr()) };
        }
    }
}

/// Where an area begins and ends.
///
/// # Safety
///
/// The area is valid and its map locked.
unsafe fn extent(vma: *mut bindings::vm_area_struct) -> (usize, usize) {
    // SAFETY: As this function's contract.
    unsafe {
        let area = &(*vma).__bindgen_anon_1.__bindgen_anon_1;
        (area.vm_start, area.vm_end)
    }
}

/// Whether the kernel flushes as the head of this file says: not tried, yes, no.
static TRUST: AtomicU32 = AtomicU32::new(UNTRIED);
const UNTRIED: u32 = 0;
const YES: u32 = 1;
const NO: u32 = 2;

/// Whether it is possible at all: it has to be seen that the kernel flushes.
pub(super) const POSSIBLE: bool = cfg!(CONFIG_X86_64);

fn trusted() -> bool {
    POSSIBLE && TRUST.load(Ordering::Relaxed) != NO
}

fn trial_is_due() -> bool {
    TRUST.load(Ordering::Relaxed) == UNTRIED
}

fn passed() {
    let _ = TRUST.compare_exchange(UNTRIED, YES, Ordering::Relaxed, Ordering::Relaxed);
}

fn failed() {
    if TRUST.swap(NO, Ordering::Relaxed) != NO {
        pr_warn!("this kernel does not flush as expected; going on without direct harvesting\n");
    }
}
