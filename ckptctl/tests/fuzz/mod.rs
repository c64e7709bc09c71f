// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tests with inputs at random have in common: a generator that can be replayed, and a count of
//! what is allocated.

#![allow(
    dead_code,
    reason = "every test binary has its own copy of this and uses a part of it"
)]

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::env;
use std::io;
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The input that is tried.
static SEED: AtomicU64 = AtomicU64::new(0);

fn add(bytes: usize) {
    if bytes > 1 << 30 {
        // It is refused, perhaps, and then nobody else can tell; not what keeps the words of a test
        // until its end either.
        let seed = SEED.load(Ordering::Relaxed);
        let _ = writeln!(
            io::stderr(),
            "{bytes} bytes are wanted; to see it again: CKPT_FUZZ_SEED={seed}"
        );
    }
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: Everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: As the caller promises.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does something with the input of a seed; the most bytes that were allocated at a time meanwhile.
/// One at a time.
pub fn measured<T>(seed: u64, examine: impl FnOnce() -> T) -> (T, usize) {
    SEED.store(seed, Ordering::Relaxed);
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = examine();
    let most = MOST.load(Ordering::Relaxed);
    (result, most.saturating_sub(before))
}

/// The number in a variable.
pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// The seeds of a run: the one of CKPT_FUZZ_SEED alone; or those that are tried each time, and then
/// `inputs` others, or as many as CKPT_FUZZ_INPUTS says.
pub fn seeds(always: Range<u64>, inputs: u64) -> Box<dyn Iterator<Item = u64>> {
    if let Some(seed) = number("CKPT_FUZZ_SEED") {
        return Box::new(std::iter::once(seed));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let first = now.unwrap().as_nanos() as u64;
    let inputs = number("CKPT_FUZZ_INPUTS").unwrap_or(inputs);
    Box::new(always.chain((0..inputs).map(move |input| first.wrapping_add(input))))
}

/// Numbers that follow from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    /// A number that programs trip over.
    pub fn odd_number(&mut self) -> u64 {
        const NUMBERS: [u64; 12] = [
            0,
            1,
            63,
            65,
            4095,
            1 << 20,
            u32::MAX as u64,
            1 << 32,
            1 << 40,
            (1 << 40) + 1,
            1 << 63,
            u64::MAX,
        ];
        match self.below(3) {
            0 => self.next(),
            1 => self.next() % 256,
            _ => NUMBERS[self.below(NUMBERS.len())],
        }
    }
}
