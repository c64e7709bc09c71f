// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How what a commit closed gets into the chain.
//!
//! A commit in the background takes a snapshot of what changed since the commit before it and
//! puts it into a [`queue`]; a thread, the [`worker`], appends one after the other to the chain.
//! Each record builds on the one before, so when one cannot be saved, those behind it in the
//! queue cannot either. They are all given up, and the next commit takes everything since the
//! last *durable* epoch: the tracker can still tell, and nothing is lost. That commit waits for
//! its record, so that whoever only commits learns of a disk that stays full.
//!
//! A synchronous commit waits until the queue is empty and appends by itself, straight from the
//! arena.

pub(crate) mod chain_end;
mod closings;
mod numbers;
pub(crate) mod queue;
mod stats;
pub(crate) mod tending;
pub(crate) mod watch;
pub(crate) mod worker;

use std::env;

use crate::error::Error;
pub(crate) use chain_end::ChainEnd;
pub(crate) use queue::Job;
pub(crate) use queue::Queue;
pub use stats::Stats;
pub use tending::COMPACT;
pub use tending::Compacting;
pub(crate) use tending::Tending;

/// Variable that says when a commit returns.
pub const COMMIT: &str = "CKPT_COMMIT";

/// Commits that can be on their way to the chain at the same time.
pub const IN_FLIGHT_MAX: usize = 4;

/// When a commit returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Saving {
    /// As soon as the epoch is closed; it is saved in the background.
    #[default]
    Background,
    /// When the epoch is durable.
    Synchronous,
}

impl Saving {
    /// What `CKPT_COMMIT` says.
    pub fn from_environment() -> Result<Saving, Error> {
        match env::var(COMMIT).as_deref() {
            Err(env::VarError::NotPresent) | Ok("" | "async") => Ok(Saving::Background),
            Ok("sync") => Ok(Saving::Synchronous),
            _ => Err(Error::Environment {
                name: COMMIT,
                value: env::var_os(COMMIT)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                expected: "it can be sync or async",
            }),
        }
    }
}
