// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells a program which of its epochs are on another host.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use ckptctl::sys::consumers::Level;

use super::target::Target;

/// The program that writes a chain, as far as it can be told anything.
pub struct Acknowledger {
    dir: PathBuf,
    target: Mutex<Option<Target>>,
}

impl Acknowledger {
    /// Of whatever program writes the chain in `dir`, from now on or later.
    pub fn new(dir: &Path) -> Acknowledger {
        Acknowledger {
            dir: dir.to_owned(),
            target: Mutex::default(),
        }
    }

    /// An epoch, and all before it, is on another host. A program that is not there, or has not
    /// begun, is told with the next one.
    pub fn replicated(&self, epoch: u64) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if !target.as_ref().is_some_and(Target::is_there) {
            *target = Target::find(self.dir.as_os_str()).ok();
        }
        let told = match &*target {
            Some(Target::Arena(live)) => live.arena.acknowledge(epoch, Level::Replicated).is_ok(),
            Some(Target::Chain(_, page)) => {
                page.replicated_up_to(epoch);
                true
            }
            None => true,
        };
        if !told {
            // Another program may have taken its place.
            *target = None;
        }
    }
}
