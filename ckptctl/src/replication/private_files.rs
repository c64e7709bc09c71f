// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading files that nobody else may have written, or even read.

use std::fs;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::libc;

use crate::sys::users;

/// Larger than any such file.
const LEN_MAX: u64 = 1 << 20;

/// Who besides the owner may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    Excluded,
    /// Read it.
    MayRead,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivacyError {
    /// It cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// It is something else.
    #[error("{path} is no {expected}: put one there, or name another directory")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it ought to be.
        expected: &'static str,
    },

    /// It is somebody else's.
    #[error("{path} belongs to {owner}, who can change it: chown {user} {path}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Whose it ought to be.
        user: String,
    },

    /// Others can read or write it.
    #[error("{path} has mode {mode:04o}, and others can {doing} it: chmod {remedy} {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What others can do.
        doing: &'static str,
        /// What `chmod` is to be told.
        remedy: &'static str,
    },

    /// It is too large to be what it ought to be.
    #[error("{path} is larger than any certificate: put the right file there")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Holds up that nobody but its owner, who is this user or root, can put files into a directory.
pub fn check_dir(path: &Path) -> Result<(), PrivacyError> {
    let file = open(path, libc::O_DIRECTORY)?;
    check(path, &file, Others::MayRead)
}

/// The content of a regular file that belongs to this user or root, and that others cannot change.
/// What is checked is the file that is read.
pub fn read(path: &Path, others: Others) -> Result<Vec<u8>, PrivacyError> {
    // Without waiting for the other end of what turns out to be a pipe.
    let file = open(path, libc::O_NONBLOCK)?;
    let told = |source| PrivacyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if !file.metadata().map_err(told)?.is_file() {
        return Err(PrivacyError::Kind {
            path: path.to_owned(),
            expected: "regular file",
        });
    }
    check(path, &file, others)?;
    let mut bytes = Vec::new();
    file.take(LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(told)?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(PrivacyError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn open(path: &Path, flags: i32) -> Result<fs::File, PrivacyError> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path);
    opened.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOTDIR) if flags & libc::O_DIRECTORY != 0 => PrivacyError::Kind {
            path: path.to_owned(),
            expected: "directory",
        },
        _ => PrivacyError::Unreadable {
            path: path.to_owned(),
            source,
        },
    })
}

fn check(path: &Path, file: &fs::File, others: Others) -> Result<(), PrivacyError> {
    let status = file.metadata().map_err(|source| PrivacyError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let user = users::effective_uid();
    if status.uid() != user && status.uid() != 0 {
        return Err(PrivacyError::Owner {
            path: path.to_owned(),
            owner: users::user_name(status.uid()),
            user: users::user_name(user),
        });
    }
    let (forbidden, remedy) = match others {
        Others::Excluded => (0o077, "600"),
        Others::MayRead => (0o022, "go-w"),
    };
    let mode = status.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(PrivacyError::Mode {
            path: path.to_owned(),
            mode,
            doing: match mode & 0o022 {
                0 => "read",
                _ => "change",
            },
            remedy,
        });
    }
    Ok(())
}
