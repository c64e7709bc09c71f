// SPDX-License-Identifier: Apache-2.0 OR MIT
//! This project's library.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use ckptctl::Context;
use ckptctl::RegionSpec;
use ckptctl::Restore;

use super::BYTES;
use super::Means;
use super::Took;
use super::program;

/// A context with the program's memory in a region.
pub struct Ckpt {
    context: Context,
    chain: PathBuf,
    memory: &'static mut [u8],
}

impl Ckpt {
    pub fn new(folder: &Path) -> Result<Ckpt> {
        let chain = folder.join("chain");
        let _ = fs::remove_dir_all(&chain);
        let options = ckptctl::Options::new().dir(&chain).name("pause");
        let options = options.arena_bytes(BYTES as u64 * 2).no_code_pointers();
        let context = Context::open(options.restore(Restore::Nothing))?;
        let region = context.region(&RegionSpec {
            name: "memory",
            kind: 0,
            len_bytes: BYTES as u64,
            reserve_bytes: 0,
        })?;
        // SAFETY: The region is of that size, nobody else uses it, and it lives as long as the
        // context, with which the slice goes.
        let memory = unsafe { std::slice::from_raw_parts_mut(region.as_ptr(), BYTES) };
        program::fill(memory, 1);
        context.commit_sync()?;
        Ok(Ckpt {
            context,
            chain,
            memory,
        })
    }

    fn stored(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.chain)? {
            bytes += entry?.metadata()?.len();
        }
        Ok(bytes)
    }
}

impl Means for Ckpt {
    fn checkpoint(&mut self, changed: usize, seed: u64) -> Result<Took> {
        program::change(self.memory, changed, seed);
        let before = self.stored()?;
        let begun = Instant::now();
        let commit = self.context.commit()?;
        let pause = begun.elapsed();
        self.context.wait(commit.epoch, None)?;
        Ok(Took {
            pause,
            total: begun.elapsed(),
            written: self.stored()? - before,
        })
    }
}
