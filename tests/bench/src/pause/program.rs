// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program: memory full of bytes that do not compress, some pages of which it changes.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;

use super::BYTES;
use crate::tracking::Numbers;
use crate::tracking::Private;

const PAGE: usize = 4096;

/// Fills pages with bytes of a sequence.
pub fn fill(memory: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for word in memory.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_ne_bytes());
    }
}

/// Changes so many random pages.
pub fn change(memory: &mut [u8], changed: usize, seed: u64) {
    let pages = (memory.len() / PAGE) as u64;
    for page in Numbers::new(seed).pages(pages, changed as u64) {
        let first = page as usize * PAGE;
        fill(&mut memory[first..first + PAGE], seed ^ page);
    }
}

/// The program's memory, filled. No page is huge: else trackers by the page tables would find
/// 2 MiB changed where 4 KiB are.
pub fn memory() -> Result<Private> {
    let mut memory = Private::new((BYTES / PAGE) as u64)?;
    fill(memory.bytes(), 1);
    Ok(memory)
}

/// Runs as the program of its own that others checkpoint. At each SIGUSR1 it reads what to
/// change from `FOLDER/orders`, "CHANGED SEED", and writes to `FOLDER/done` when it did. It has
/// nothing open meanwhile.
pub fn run(folder: &Path) -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.thread_block().context("blocking SIGUSR1")?;
    let mut memory = memory()?;
    fs::write(folder.join("done"), "ready")?;
    loop {
        signals.wait().context("waiting for SIGUSR1")?;
        let orders = fs::read_to_string(folder.join("orders"))?;
        let mut numbers = orders.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(changed)), Some(Ok(seed))) = (numbers.next(), numbers.next()) else {
            anyhow::bail!("no orders: {orders}");
        };
        change(memory.bytes(), changed as usize, seed);
        fs::write(folder.join("done"), seed.to_string())?;
    }
}
