// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The heap: an allocator whose whole state is in the arena.
//!
//! The allocator is talc, over memory that it is given by hand. Its state stands at the
//! start of the region `heap`, its bins and blocks behind it. What is kept outside is only
//! the lock. Every block has a header of [`HEADER`] bytes in front, because `free` is not
//! told what `malloc` was.

use std::alloc::Layout;
use std::ptr::NonNull;

use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Manual;

use super::Arena;
use super::RegionSpec;
use super::head::Head;
use crate::error::Error;
use crate::sys::memory::PAGE;

/// Name of the heap's region.
const NAME: &str = "heap";
/// Type of the heap's region: "HEAP".
const KIND: u32 = u32::from_le_bytes(*b"HEAP");
/// The least by which the heap grows.
const STEP_MIN: u64 = 1 << 20;
/// The most by which the heap grows, if not more is asked for at once.
const STEP_MAX: u64 = 64 << 20;
/// What talc may need around a block.
const SLACK: u64 = 4096;

/// Alignment of every block.
const ALIGN: usize = 16;
/// Bytes in front of a block.
const HEADER: usize = 16;
const MAGIC: u32 = 0x6b70_6361;

type State = Talc<Manual, DefaultBinning>;

/// What stands in front of a block.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// Bytes asked for.
    size: u64,
    /// log2 of the alignment; the block begins that far, or [`HEADER`], behind its memory.
    align_shift: u32,
    magic: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER);
const _: () = assert!(align_of::<State>() <= ALIGN);

/// Which build of the allocator this is: another one may lay its state out differently.
fn layout() -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CKPT_COMPILER").as_bytes());
    hasher.update(b"talc 5.1.1");
    hasher.update(&(size_of::<State>() as u64).to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Examines the heap of a restored arena.
pub(super) fn check(head: &mut Head) -> Result<(), Error> {
    if head.heap != 0 && head.heap_layout != layout() {
        return Err(Error::Layout(
            "the heap was made by another build of the allocator".into(),
        ));
    }
    Ok(())
}

/// A layout's memory: the block, with its header in front.
fn whole(size: usize, align: usize) -> Option<(Layout, usize)> {
    let front = align.max(HEADER);
    let layout = Layout::from_size_align(size.checked_add(front)?, align).ok()?;
    Some((layout, front))
}

/// The allocator of an arena. One at a time may use it.
pub(crate) struct Heap(());

impl Heap {
    /// The allocator of `arena`. There is one for an arena.
    pub(crate) fn new() -> Heap {
        Heap(())
    }

    /// Allocates `size` bytes, above zero, aligned to `align`, a power of two.
    pub(crate) fn allocate(
        &mut self,
        arena: &mut Arena,
        size: usize,
        align: usize,
    ) -> Result<NonNull<u8>, Error> {
        let align = align.max(ALIGN);
        let (layout, front) = whole(size, align).ok_or(Error::HeapFull(size))?;
        let state = self.state(arena)?;
        // SAFETY: The state is that of this arena's heap, and `layout` is not of size zero.
        let memory = match unsafe { (*state).try_allocate(layout) } {
            Some(memory) => memory,
            None => {
                self.extend(arena, layout.size() as u64 + align as u64 + SLACK)?;
                // SAFETY: As above.
                unsafe { (*state).try_allocate(layout) }.ok_or(Error::HeapFull(size))?
            }
        };
        // SAFETY: The memory has `front` bytes before the block, the last of which the header
        // fits into, aligned.
        unsafe {
            let block = memory.add(front);
            block.sub(HEADER).cast::<Header>().write(Header {
                size: size as u64,
                align_shift: align.trailing_zeros(),
                magic: MAGIC,
            });
            Ok(block)
        }
    }

    /// Frees a block.
    pub(crate) fn free(&mut self, arena: &mut Arena, block: NonNull<u8>) -> Result<(), Error> {
        let (header, layout, front) = self.header(arena, block)?;
        let state = self.state(arena)?;
        // SAFETY: The header says that the block is one of ours, and how it was allocated. It
        // is marked first, so that freeing it again is noticed while nobody else has it.
        unsafe {
            let place = block.sub(HEADER).cast::<Header>();
            place.write(Header { magic: 0, ..header });
            (*state).deallocate(block.sub(front).as_ptr(), layout);
        }
        Ok(())
    }

    /// Makes a block `size` bytes long, above zero, perhaps elsewhere.
    pub(crate) fn reallocate(
        &mut self,
        arena: &mut Arena,
        block: NonNull<u8>,
        size: usize,
    ) -> Result<NonNull<u8>, Error> {
        let (header, layout, front) = self.header(arena, block)?;
        let state = self.state(arena)?;
        if let Some(new) = size.checked_add(front) {
            // SAFETY: As in `free`; both sizes are above zero.
            let in_place =
                unsafe { (*state).try_realloc_in_place(block.sub(front).as_ptr(), layout, new) };
            if in_place {
                let size = size as u64;
                // SAFETY: The header is the block's.
                unsafe {
                    block
                        .sub(HEADER)
                        .cast::<Header>()
                        .write(Header { size, ..header });
                }
                return Ok(block);
            }
        }
        let to = self.allocate(arena, size, 1 << header.align_shift)?;
        // SAFETY: Two blocks, each at least so long.
        unsafe { to.copy_from_nonoverlapping(block, size.min(header.size as usize)) };
        self.free(arena, block)?;
        Ok(to)
    }

    /// The header of a block, and the layout and front of its memory.
    fn header(
        &self,
        arena: &mut Arena,
        block: NonNull<u8>,
    ) -> Result<(Header, Layout, usize), Error> {
        let (from, to) = (arena.head().heap, arena.head().heap_end);
        let at = block.as_ptr() as u64;
        let wrong = || {
            Error::Invalid(format!(
                "{at:#x} is not a block of this heap: free only what ckpt_malloc gave, and once"
            ))
        };
        if from == 0 || at % ALIGN as u64 != 0 || at < from + HEADER as u64 || at >= to {
            return Err(wrong());
        }
        // SAFETY: Within the heap, so readable, and aligned.
        let header = unsafe { block.sub(HEADER).cast::<Header>().read() };
        let sane = header.magic == MAGIC && header.align_shift < 40;
        let parts = whole(header.size as usize, 1 << header.align_shift.min(40));
        match parts {
            Some((layout, front)) if sane => Ok((header, layout, front)),
            _ => Err(wrong()),
        }
    }

    /// The allocator's state, made now if there is none.
    fn state(&self, arena: &mut Arena) -> Result<*mut State, Error> {
        if arena.head().heap == 0 {
            self.begin(arena)?;
        }
        Ok(arena.head().heap as *mut State)
    }

    fn begin(&self, arena: &mut Arena) -> Result<(), Error> {
        let half = arena.len_bytes() / 2;
        let free = arena.head().free_pages() * PAGE as u64;
        let reserve_bytes = half.min(free) / PAGE as u64 * PAGE as u64;
        let len_bytes = STEP_MIN.min(reserve_bytes);
        let start = arena.region(&RegionSpec {
            name: NAME,
            kind: KIND,
            len_bytes,
            reserve_bytes,
        })?;
        let state = start.cast::<State>();
        let first = size_of::<State>().next_multiple_of(ALIGN);
        // SAFETY: The region is new, so nobody else uses it, and page-aligned. What talc is
        // given lies behind its state.
        let end = unsafe {
            state.write(Talc::new(Manual));
            (*state.as_ptr()).claim(start.add(first).as_ptr(), len_bytes as usize - first)
        };
        let end = end.ok_or(Error::HeapFull(len_bytes as usize))?;
        let head = arena.head();
        head.heap = state.as_ptr() as u64;
        head.heap_end = end.as_ptr() as u64;
        head.heap_layout = layout();
        Ok(())
    }

    /// Gives the allocator at least `need` bytes more.
    fn extend(&self, arena: &mut Arena, need: u64) -> Result<(), Error> {
        let len = arena.region_len(NAME).unwrap_or(0);
        let step = (len / 4).clamp(STEP_MIN, STEP_MAX).max(need);
        let reserve = arena
            .head()
            .find(NAME)
            .map_or(0, |entry| entry.reserve_pages() * PAGE as u64);
        // The last step may be shorter than wished.
        let new = match len + step {
            new if new <= reserve => new,
            _ if len + need <= reserve => reserve,
            _ => return Err(Error::HeapFull(need as usize)),
        };
        match arena.grow(NAME, new) {
            // Close to the limit only what is needed.
            Err(Error::Memlock { .. }) if need < new - len => arena.grow(NAME, len + need)?,
            other => other?,
        }
        let len = arena.region_len(NAME).unwrap_or(0);
        let (state, end) = (arena.head().heap, arena.head().heap_end);
        let start = state;
        let state = state as *mut State;
        // SAFETY: The state is that of this arena's heap, `end` is what talc gave for its
        // end, and the region has grown to `start + len`, which nobody else uses.
        let end = unsafe {
            let end = NonNull::new_unchecked(end as *mut u8);
            (*state).extend(end, (start + len) as *mut u8)
        };
        arena.head().heap_end = end.as_ptr() as u64;
        Ok(())
    }
}
