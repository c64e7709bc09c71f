// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What processes of this host that replicate tell of themselves: a file each, in a directory of the
//! system's or the user's for what runs, gone with the process.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use ckptctl::sys::users;
use serde::Deserialize;
use serde::Serialize;

use super::target::is_there;

/// How often it is written anew.
const EVERY: Duration = Duration::from_secs(1);

/// A process that replicates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    /// `primary` or `spare`.
    pub role: String,
    pub service: String,
    pub node: String,
    pub term: u64,
    /// The chain's directory.
    pub dir: PathBuf,
    /// Its newest epoch.
    pub epoch: Option<u64>,
    /// Of a primary: those that it sends to. Of a spare: the primary, when it is connected.
    pub peers: Vec<Peer>,
}

/// The other side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub node: String,
    pub address: String,
    pub connected: bool,
    /// The newest epoch that the spare has on its disk.
    pub durable: u64,
    /// The newest epoch that the spare has in its arena.
    pub applied: u64,
    /// Commits that the primary has and the spare does not.
    pub lag_epochs: u64,
    /// Their bytes, as they are in the chain.
    pub lag_bytes: u64,
    /// How long ago the first of them was made.
    pub lag_s: f64,
    /// Bytes sent, or received, since the process was started.
    pub bytes: u64,
    /// Why there is no link.
    pub lost: Option<String>,
}

/// The file of this process, or of one of those that it is.
pub struct StatusFile {
    path: Option<PathBuf>,
    written: Option<Instant>,
}

/// The directory: the system's for root, else the user's, if there is one.
fn directory() -> Option<PathBuf> {
    let run = match users::effective_uid() {
        0 => PathBuf::from("/run"),
        _ => PathBuf::from(env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?),
    };
    Some(run.join("ckpt"))
}

impl StatusFile {
    /// A file that is not there yet. Where there is no place for it there will be none.
    pub fn new() -> StatusFile {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = directory().and_then(|dir| {
            let made = fs::DirBuilder::new().mode(0o755).create(&dir);
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => None,
                _ => Some(dir.join(format!("{}-{number}.json", process::id()))),
            }
        });
        StatusFile {
            path,
            written: None,
        }
    }

    /// None.
    pub fn none() -> StatusFile {
        StatusFile {
            path: None,
            written: None,
        }
    }

    /// Writes it, unless it was written a moment ago.
    pub fn publish(&mut self, status: impl FnOnce() -> Status) {
        let Some(path) = &self.path else { return };
        if self
            .written
            .is_some_and(|written| written.elapsed() < EVERY)
        {
            return;
        }
        self.written = Some(Instant::now());
        let beside = path.with_extension("tmp");
        let written = serde_json::to_vec(&status())
            .map_err(io::Error::from)
            .and_then(|bytes| {
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&beside)?;
                io::Write::write_all(&mut file, &bytes)?;
                fs::rename(&beside, path)
            });
        // Nobody looks where it cannot be written, and it is for looking only.
        drop(written);
    }
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// All processes that replicate and that this user can see, by service and role.
pub fn all() -> Vec<Status> {
    let entries = directory().and_then(|dir| fs::read_dir(dir).ok());
    let files = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut all: Vec<Status> = files
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .filter(|status: &Status| is_there(status.pid))
        .collect();
    all.sort_by(|a, b| (&a.service, &a.role, a.pid).cmp(&(&b.service, &b.role, b.pid)));
    all
}
