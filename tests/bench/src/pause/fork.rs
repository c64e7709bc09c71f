// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fork, and the child writes the memory. It cannot know what changed, so it writes all of it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::fork;

use super::Means;
use super::Took;
use super::program;
use crate::tracking::Private;

/// The program's memory, here.
pub struct Fork {
    memory: Private,
    image: PathBuf,
}

impl Fork {
    pub fn new(folder: &Path) -> Result<Fork> {
        Ok(Fork {
            memory: program::memory()?,
            image: folder.join("image"),
        })
    }

    fn save(&mut self) -> std::io::Result<()> {
        let mut file = File::create(&self.image)?;
        file.write_all(self.memory.bytes())?;
        file.sync_data()
    }
}

impl Means for Fork {
    fn checkpoint(&mut self, changed: usize, seed: u64) -> Result<Took> {
        program::change(self.memory.bytes(), changed, seed);
        let begun = Instant::now();
        // SAFETY: There is one thread, and the child ends without returning.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Child => std::process::exit(i32::from(self.save().is_err())),
            ForkResult::Parent { child } => {
                let pause = begun.elapsed();
                let ended = waitpid(child, None).context("waitpid")?;
                anyhow::ensure!(
                    ended == WaitStatus::Exited(child, 0),
                    "the child ended by {ended:?}"
                );
                Ok(Took {
                    pause,
                    total: begun.elapsed(),
                    written: self.memory.len() as u64,
                })
            }
        }
    }
}
