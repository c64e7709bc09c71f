// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that saves.

use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use super::Job;
use super::Queue;
use crate::error::Error;
use crate::store::CommitInfo;
use crate::store::CommitMeta;
use crate::track::Snapshot;

/// Name of the thread, as the system shows it.
pub(crate) const NAME: &str = "ckpt-save";

/// What the thread does for the context it belongs to.
pub(crate) trait Place {
    fn queue(&self) -> &Queue;

    /// Appends a record to the chain.
    fn append(&self, meta: &CommitMeta, snapshot: &mut dyn Snapshot) -> Result<CommitInfo, Error>;

    /// Tells hooks that their epoch is durable.
    fn tell(&self, hooks: &crate::hooks::Hooks, epoch: u64);
}

/// Saves commits as they come, until the queue is closed and empty.
pub(crate) fn run(place: &impl Place) {
    let queue = place.queue();
    while let Some((job, parent)) = queue.next() {
        let Job {
            mut meta,
            mut snapshot,
            closed_at,
            hooks,
        } = job;
        meta.parent = parent;
        let appended = catch_unwind(AssertUnwindSafe(|| place.append(&meta, &mut *snapshot)));
        // The program's writers do not wait for its hooks.
        drop(snapshot);
        match appended.unwrap_or_else(|_| Err(bug())) {
            Ok(info) => {
                queue.durable_now(&info, closed_at);
                // A hook that panics has said so itself, and its epoch is durable all the same.
                let _ = catch_unwind(AssertUnwindSafe(|| place.tell(&hooks, info.epoch)));
                queue.told(info.epoch);
            }
            Err(error) => queue.failed(error),
        }
    }
}

fn bug() -> Error {
    Error::System {
        doing: "save a commit",
        source: io::Error::other("the library panicked, see stderr: this is worth a report"),
    }
}
