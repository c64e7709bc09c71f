// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The heap of a context, under many operations and over restores.

use super::*;

/// A reproducible sequence of numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// A block that the test believes in: address, length, and the byte it is filled with.
type Block = (NonNull<u8>, usize, u8);

fn fill_block(&(at, len, byte): &Block) {
    // SAFETY: The block has `len` bytes.
    unsafe { at.write_bytes(byte, len) }
}

fn check_block(&(at, len, byte): &Block) {
    // SAFETY: The block has `len` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), len) };
    assert!(
        bytes.iter().all(|&b| b == byte),
        "block at {at:p} of {len} bytes was overwritten"
    );
}

fn churn(context: &Context, blocks: &mut Vec<Block>, rng: &mut Rng, operations: u32) {
    for _ in 0..operations {
        let size = match rng.below(20) {
            0 => 1 + rng.below(200_000) as usize,
            _ => 1 + rng.below(300) as usize,
        };
        let byte = rng.below(256) as u8;
        let any = rng.below(blocks.len().max(1) as u64) as usize;
        match rng.below(5) {
            0 | 1 => {
                let align = 1 << rng.below(9);
                let at = context.allocate(size, align).unwrap();
                assert_eq!(at.as_ptr() as usize % align.max(16), 0);
                blocks.push((at, size, byte));
                fill_block(blocks.last().unwrap());
            }
            2 if !blocks.is_empty() => {
                let block = blocks.swap_remove(any);
                check_block(&block);
                context.free(block.0).unwrap();
            }
            3 if !blocks.is_empty() => {
                let (at, len, old) = blocks[any];
                let moved = context.reallocate(at, size).unwrap();
                check_block(&(moved, len.min(size), old));
                blocks[any] = (moved, size, byte);
                fill_block(&blocks[any]);
            }
            _ if !blocks.is_empty() => check_block(&blocks[any]),
            _ => {}
        }
    }
}

fn check_all(blocks: &[Block]) {
    blocks.iter().for_each(check_block);
    let mut places: Vec<(usize, usize)> = blocks
        .iter()
        .map(|(at, len, _)| (at.as_ptr() as usize, *len))
        .collect();
    places.sort_unstable();
    let apart = places
        .windows(2)
        .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
    assert!(apart, "blocks overlap");
}

#[test]
fn the_heap_goes_on_over_restores_without_overlaps() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(7);
    let mut blocks = Vec::new();
    let context = open(dir.path());
    churn(&context, &mut blocks, &mut rng, 20_000);
    check_all(&blocks);
    context.commit().unwrap();
    let saved = blocks.clone();
    churn(&context, &mut blocks, &mut rng, 5_000);
    drop(context);

    blocks = saved;
    for _ in 0..3 {
        let context = open(dir.path());
        check_all(&blocks);
        churn(&context, &mut blocks, &mut rng, 20_000);
        check_all(&blocks);
        context.commit().unwrap();
    }
    let context = open(dir.path());
    for (at, ..) in blocks {
        context.free(at).unwrap();
    }
    let len = context.region_len("heap").unwrap();
    let all = context
        .allocate(len.unwrap() as usize * 9 / 10, 16)
        .unwrap();
    context.free(all).unwrap();
    assert_eq!(
        context.region_len("heap").unwrap(),
        len,
        "freed memory was not joined"
    );
}

#[test]
fn what_the_heap_did_not_give_cannot_be_freed_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let block = context.allocate(100, 16).unwrap();
    let refused = |at: NonNull<u8>| context.free(at).unwrap_err().errno();
    let mut local = [0u8; 64];
    assert_eq!(refused(NonNull::from(&mut local).cast()), libc::EINVAL);
    // SAFETY: Only the addresses are used.
    let (inside, odd) = unsafe { (block.add(16), block.add(1)) };
    assert_eq!(refused(inside), libc::EINVAL);
    assert_eq!(refused(odd), libc::EINVAL);
    context.free(block).unwrap();
    assert_eq!(refused(block), libc::EINVAL);
}

#[test]
fn a_heap_that_is_used_up_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let context = Context::open(options(dir.path()).arena_bytes(16 << 20)).unwrap();
    let mut blocks = Vec::new();
    let error = loop {
        match context.allocate(100_000, 16) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(error.errno(), libc::ENOMEM);
    assert!(
        blocks.len() > 70,
        "half of the arena is the heap's, {} blocks",
        blocks.len()
    );
    assert!(context.allocate(usize::MAX - 8, 16).is_err());
    context.free(blocks.pop().unwrap()).unwrap();
    context.allocate(100_000, 16).unwrap();
    context.commit().unwrap();
}

#[test]
fn threads_may_allocate_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let context = open(dir.path());
    let all = Mutex::new(Vec::new());
    // Blocks are addresses in memory that all threads share.
    struct Sent(Vec<Block>);
    // SAFETY: As above.
    unsafe impl Send for Sent {}
    thread::scope(|scope| {
        for seed in 0..4 {
            let (context, all) = (&context, &all);
            scope.spawn(move || {
                let mut blocks = Vec::new();
                churn(context, &mut blocks, &mut Rng(seed), 5_000);
                all.lock().unwrap().push(Sent(blocks));
            });
        }
    });
    let all: Vec<Block> = all
        .into_inner()
        .unwrap()
        .into_iter()
        .flat_map(|sent| sent.0)
        .collect();
    check_all(&all);
}
