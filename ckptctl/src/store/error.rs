// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong with a chain. Every message says what to do.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::damage::Damage;

/// What went wrong with a chain.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no chain in the directory.
    #[error("no chain in {}: give the directory that a program was run with (ckptctl run --store DIR)", dir.display())]
    NoChain {
        /// The directory.
        dir: PathBuf,
    },

    /// A chain cannot be begun among other files.
    #[error("{} holds other files ({}) and no chain: give an empty or a new directory", dir.display(), name.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of the files in it.
        name: PathBuf,
    },

    /// Another writer has the chain.
    #[error("{} is being written by {}", dir.display(), holder_text(*pid, *alive, dir))]
    Locked {
        /// The chain.
        dir: PathBuf,
        /// Process that took the lock, if it is known.
        pid: Option<u32>,
        /// Whether a process with this id is there.
        alive: bool,
    },

    /// Somebody compacts the chain already.
    #[error("{} is being compacted by {}: wait until that is done", dir.display(), pid.map_or("another process".into(), |pid| format!("process {pid}")))]
    Compacting {
        /// The chain.
        dir: PathBuf,
        /// Who, if it is known and there.
        pid: Option<u32>,
    },

    /// A compaction did not come to its end. The chain is as it was.
    #[error("compacting {} was given up, nothing was changed: {why}", dir.display())]
    GivenUp {
        /// The chain.
        dir: PathBuf,
        /// Why, and what to do.
        why: &'static str,
    },

    /// Made by a version that this one cannot follow.
    #[error("{} {what}: use the version of ckptctl that wrote it, or a newer one", file.display())]
    Unsupported {
        /// The segment.
        file: PathBuf,
        /// What this version does not know.
        what: String,
    },

    /// Something that is needed is damaged.
    #[error("chain damaged: {damage}. {advice}")]
    Damaged {
        /// Where, what and at what cost.
        damage: Box<Damage>,
        /// What to do.
        advice: String,
    },

    /// The chain has no such epoch.
    #[error("{} has no epoch {epoch}: {}", dir.display(), available(*oldest, *newest, dir))]
    NoSuchEpoch {
        /// The chain.
        dir: PathBuf,
        /// What was asked for.
        epoch: u64,
        /// The oldest epoch there.
        oldest: Option<u64>,
        /// The newest epoch there.
        newest: Option<u64>,
    },

    /// An export is not what it should be. Nothing was made of it.
    #[error("the export cannot be used, nothing was changed: {what}")]
    Archive {
        /// What is wrong with it.
        what: String,
    },

    /// Epochs with pages of different sizes cannot be compared.
    #[error("pages of {} and of {} bytes cannot be compared: take epochs of programs that ran with pages of one size", bytes[0], bytes[1])]
    PageSizes {
        /// The sizes.
        bytes: [u64; 2],
    },

    /// A commit's epoch must be above all in the chain.
    #[error("epoch {epoch} cannot follow epoch {newest} in {}: commit with an epoch above it; after a restore, create the arena with the chain's newest epoch", dir.display())]
    EpochOrder {
        /// The chain.
        dir: PathBuf,
        /// What was to be appended.
        epoch: u64,
        /// The highest epoch there.
        newest: u64,
    },

    /// What was to be appended cannot be stored.
    #[error("epoch {epoch} cannot be stored: {what}")]
    Invalid {
        /// What was to be appended.
        epoch: u64,
        /// Why not, and what to do.
        what: String,
    },

    /// The file system has no room. The chain is as it was.
    #[error("no room for epoch {epoch} in {}: {source}; make room and commit again, the chain is as it was", dir.display())]
    NoSpace {
        /// The chain.
        dir: PathBuf,
        /// What was to be appended.
        epoch: u64,
        /// What the system said.
        source: io::Error,
    },

    /// A failed append could not be undone.
    #[error("no more can be appended to {}: {why}; open the chain again, which examines it and goes on from what is durable", dir.display())]
    Poisoned {
        /// The chain.
        dir: PathBuf,
        /// What had failed.
        why: String,
    },

    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    NoThread(io::Error),

    /// The system refused something.
    #[error("cannot {doing} {}: {source}; {}", path.display(), io_advice(source))]
    Io {
        /// What was tried, as the end of a sentence.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Makes an [`StoreError::Io`] of an error from the system.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io {
            doing,
            path,
            source,
        }
    }

    /// True when the chain itself is at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, StoreError::Damaged { .. })
    }
}

fn holder_text(pid: Option<u32>, alive: bool, dir: &Path) -> String {
    let lock = dir.join(super::lock::LOCK_NAME);
    match pid {
        Some(pid) if alive => format!("process {pid}: end it first, or use another directory"),
        Some(pid) => format!(
            "a child of process {pid}, which is gone: find it with `fuser -v {}` and end it",
            lock.display()
        ),
        None => format!(
            "another process: find it with `fuser -v {}`",
            lock.display()
        ),
    }
}

fn available(oldest: Option<u64>, newest: Option<u64>, dir: &Path) -> String {
    match oldest.zip(newest) {
        Some((oldest, newest)) => format!(
            "its epochs lie between {oldest} and {newest}, see `ckptctl log {}`",
            dir.display()
        ),
        None => "nothing was committed to it yet".into(),
    }
}

fn io_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            "check the path"
        }
        io::ErrorKind::PermissionDenied => {
            "check who owns it, a chain is readable by its owner only"
        }
        io::ErrorKind::ReadOnlyFilesystem => "a chain that is written needs a writable file system",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room and try again",
        _ => "look at the kernel's log (dmesg) for what the device says",
    }
}
