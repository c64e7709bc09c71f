// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pagemap of this process: a word per page.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Context;
use anyhow::Result;

use super::memory::PAGE;

/// The pagemap, and room for some of it.
pub struct Pagemap {
    file: File,
    words: Vec<u8>,
}

/// Pages read at once.
const AT_ONCE: usize = 8192;

impl Pagemap {
    /// Opens it.
    pub fn open() -> Result<Pagemap> {
        Ok(Pagemap {
            file: File::open("/proc/self/pagemap").context("opening pagemap")?,
            words: vec![0; AT_ONCE * 8],
        })
    }

    /// Calls `found` with each of `pages` pages at an address whose word has a bit set.
    pub fn with_bit(
        &mut self,
        address: usize,
        pages: usize,
        bit: u64,
        found: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut page = 0;
        while page < pages {
            let some = (pages - page).min(AT_ONCE);
            let words = &mut self.words[..some * 8];
            let at = (address / PAGE + page) as u64 * 8;
            self.file
                .read_exact_at(words, at)
                .context("reading pagemap")?;
            for (index, word) in words.chunks_exact(8).enumerate() {
                let word = word.try_into().map(u64::from_ne_bytes).unwrap_or(0);
                if word & bit != 0 {
                    found((page + index) as u64, 1);
                }
            }
            page += some;
        }
        Ok(())
    }
}
