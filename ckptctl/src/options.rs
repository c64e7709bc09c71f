// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How to open a context, from a program and from its environment.

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;
use crate::hooks::Hook;
use crate::hooks::Hooks;
use crate::hooks::When;
use crate::saving::Compacting;
use crate::saving::Saving;
use crate::store;
use crate::store::Compression;
use crate::sys::lease_page::LeasePage;
use crate::sys::memory::PAGE;
use crate::track::Choice;

/// Variable with the chain's directory.
pub const STORE: &str = "CKPT_STORE";
/// Variable with the epoch to restore.
pub const RESTORE_EPOCH: &str = "CKPT_RESTORE_EPOCH";
/// Variable that says what is waited for before anything counts as safe.
pub const WAIT_FOR: &str = "CKPT_WAIT_FOR";
/// Variable with the spares that the program sends its chain to by itself: `HOST:PORT`, or several
/// with commas between them.
pub const REPLICATE_TO: &str = "CKPT_REPLICATE_TO";
/// Variable with the directory of this node's certificate.
pub const PKI: &str = "CKPT_PKI";
/// Variable with the name of the service that is replicated.
pub const SERVICE: &str = "CKPT_SERVICE";
/// Variable with the page by which the program knows that its host is the primary. Outputs are
/// released only as long as it is.
pub const LEASE: &str = "CKPT_LEASE";
/// Variable with the term in which a spare has taken over, for the first start of its program.
pub const TAKEOVER: &str = "CKPT_TAKEOVER";
/// Variable that says how pages are compressed.
pub const COMPRESS: &str = "CKPT_COMPRESS";

/// Address of an arena, unless the chain or the program says otherwise: far from where
/// kernel and loader put things.
pub const DEFAULT_BASE: u64 = 0x2000_0000_0000;
/// Address space of an arena, unless the chain or the program says otherwise.
pub const DEFAULT_ARENA_BYTES: u64 = 64 << 30;

/// By how much the epochs of a program that takes over are above all that its spare has seen. What
/// the host before committed and nobody received is never as much, so no number is given twice.
pub const TAKEOVER_GAP: u64 = 1_000_000_000;

/// When an epoch is safe, for those who wait for it and for outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitFor {
    /// When it is on this host's disk.
    #[default]
    Durable,
    /// When it is on another host as well: all spares that the chain is sent to have it on their
    /// disks.
    Replicated,
}

impl FromStr for WaitFor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<WaitFor, &'static str> {
        match text {
            "durable" => Ok(WaitFor::Durable),
            "replicated" => Ok(WaitFor::Replicated),
            _ => Err("it can be durable or replicated"),
        }
    }
}

/// What to restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restore {
    /// `CKPT_RESTORE_EPOCH` if it is set, else the newest commit, if there is one.
    #[default]
    Newest,
    /// This epoch.
    Epoch(u64),
    /// Nothing, even if there is something.
    Nothing,
}

/// How to open a context.
#[derive(Clone, Default)]
pub struct Options {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) name: Option<String>,
    pub(crate) arena_bytes: Option<u64>,
    pub(crate) base: Option<u64>,
    pub(crate) restore: Restore,
    pub(crate) no_code_pointers: bool,
    pub(crate) tracker: Option<Choice>,
    pub(crate) saving: Option<Saving>,
    pub(crate) compression: Option<Compression>,
    pub(crate) pack_threads: Option<usize>,
    pub(crate) no_sharing: bool,
    pub(crate) compacting: Option<Compacting>,
    pub(crate) wait_for: Option<WaitFor>,
    #[cfg(test)]
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) hooks: Hooks,
}

impl Options {
    /// The defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// The chain's directory; `CKPT_STORE` when it is not given.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Options {
        self.dir = Some(dir.into());
        self
    }

    /// A name for people: 1 to 63 printable ASCII characters. By default the program's.
    pub fn name(mut self, name: impl Into<String>) -> Options {
        self.name = Some(name.into());
        self
    }

    /// Address space for the arena, in bytes, rounded up to pages. A chain's arena never
    /// becomes smaller.
    pub fn arena_bytes(mut self, bytes: u64) -> Options {
        self.arena_bytes = Some(bytes);
        self
    }

    /// Address of the arena, page-aligned. A chain's arena does not move.
    pub fn base(mut self, base: u64) -> Options {
        self.base = Some(base);
        self
    }

    /// What to restore.
    pub fn restore(mut self, restore: Restore) -> Options {
        self.restore = restore;
        self
    }

    /// Declares that the state holds no pointers to code or to global data, so that it can be
    /// restored by another executable, or at other addresses.
    pub fn no_code_pointers(mut self) -> Options {
        self.no_code_pointers = true;
        self
    }

    /// Which tracker to use; `CKPT_TRACKER` when it is not given.
    pub fn tracker(mut self, tracker: Choice) -> Options {
        self.tracker = Some(tracker);
        self
    }

    /// When a commit returns; `CKPT_COMMIT` when it is not given.
    pub fn saving(mut self, saving: Saving) -> Options {
        self.saving = Some(saving);
        self
    }

    /// How pages are compressed; `CKPT_COMPRESS` when it is not given, else LZ4.
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = Some(compression);
        self
    }

    /// Threads that compress the pages of a large commit, beside the one that saves; with 0 that
    /// one does it. By default as many as there are processors but one, and at most 4.
    pub fn pack_threads(mut self, threads: usize) -> Options {
        self.pack_threads = Some(threads);
        self
    }

    /// Stores every page that was written, even if the chain has its content already. By default
    /// it is not stored again, which takes memory: 48 bytes for a page of 4 KiB.
    pub fn no_sharing(mut self) -> Options {
        self.no_sharing = true;
        self
    }

    /// When old epochs are dropped, so that the chain stays small; `CKPT_COMPACT` when it is not
    /// given, else when it has four times the bytes of its newest epoch.
    pub fn compacting(mut self, when: Compacting) -> Options {
        self.compacting = Some(when);
        self
    }

    /// What is waited for before an epoch counts as safe; `CKPT_WAIT_FOR` when it is not given.
    pub fn wait_for(mut self, what: WaitFor) -> Options {
        self.wait_for = Some(what);
        self
    }

    /// Registers a hook that is in place before anything is restored.
    pub fn hook(
        mut self,
        when: When,
        hook: impl Fn(&crate::Context, u64) -> i32 + Send + Sync + 'static,
    ) -> Options {
        let hook: std::sync::Arc<Hook> = std::sync::Arc::new(hook);
        self.hooks.add(when, hook);
        self
    }

    /// The chain's directory.
    pub(crate) fn chosen_dir(&self) -> Result<PathBuf, Error> {
        let from_environment = || env::var_os(STORE).filter(|dir| !dir.is_empty());
        let dir = self
            .dir
            .clone()
            .or_else(|| from_environment().map(PathBuf::from));
        dir.ok_or(Error::NoDirectory)
    }

    /// The arena's name.
    pub(crate) fn chosen_name(&self) -> Result<String, Error> {
        let Some(name) = &self.name else {
            let program = env::current_exe().unwrap_or_default();
            let program = program.file_name().unwrap_or_default().to_string_lossy();
            let mut name: String = program
                .chars()
                .filter(|c| (' '..='~').contains(c))
                .collect();
            name.truncate(63);
            return Ok(if name.is_empty() {
                "program".into()
            } else {
                name
            });
        };
        let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if name.is_empty() || name.len() > 63 || !printable {
            return Err(Error::Invalid(format!(
                "{name:?} cannot be an arena's name: it has 1 to 63 printable ASCII characters"
            )));
        }
        Ok(name.clone())
    }

    /// What to restore, with the environment looked at.
    pub(crate) fn chosen_restore(&self) -> Result<Restore, Error> {
        if self.restore != Restore::Newest {
            return Ok(self.restore);
        }
        let Some(value) = env::var_os(RESTORE_EPOCH).filter(|value| !value.is_empty()) else {
            return Ok(Restore::Newest);
        };
        let epoch = value.to_str().and_then(|value| value.parse().ok());
        epoch.map(Restore::Epoch).ok_or_else(|| Error::Environment {
            name: RESTORE_EPOCH,
            value: value.to_string_lossy().into_owned(),
            expected: "it is the number of an epoch, see `ckptctl log`",
        })
    }

    /// How the chain is written, with the environment looked at.
    pub(crate) fn chosen_store(&self) -> Result<store::Options, Error> {
        let compression = match self.compression {
            Some(compression) if compression.is_valid() => compression,
            Some(compression) => {
                return Err(Error::Invalid(format!(
                    "there is no compression {compression}: {}",
                    Compression::EXPECTED
                )));
            }
            None => compression_from_environment()?,
        };
        let mut chosen = store::Options {
            compression,
            share: !self.no_sharing,
            ..store::Options::default()
        };
        #[cfg(test)]
        if let Some(bytes) = self.segment_bytes {
            chosen.segment_bytes = bytes;
        }
        if let Some(threads) = self.pack_threads {
            if threads > store::Options::THREADS_MAX {
                return Err(Error::Invalid(format!(
                    "{threads} threads cannot compress: {} at most",
                    store::Options::THREADS_MAX
                )));
            }
            chosen.threads = threads;
        }
        Ok(chosen)
    }

    /// When the chain is compacted, with the environment looked at.
    pub(crate) fn chosen_compacting(&self) -> Result<Compacting, Error> {
        match self.compacting {
            Some(when) => Ok(when),
            None => Compacting::from_environment(),
        }
    }

    /// What is waited for, with the environment looked at.
    pub(crate) fn chosen_wait_for(&self) -> Result<WaitFor, Error> {
        if let Some(what) = self.wait_for {
            return Ok(what);
        }
        let Some(value) = env::var_os(WAIT_FOR).filter(|value| !value.is_empty()) else {
            return Ok(WaitFor::default());
        };
        let value = value.to_string_lossy().into_owned();
        value.parse().map_err(|expected| Error::Environment {
            name: WAIT_FOR,
            value,
            expected,
        })
    }

    /// Address and size of the arena, given what the chain has.
    pub(crate) fn chosen_place(&self, chain: Option<(u64, u64)>) -> Result<(u64, u64), Error> {
        let page = PAGE as u64;
        let asked = self
            .arena_bytes
            .map(|bytes| bytes.div_ceil(page).saturating_mul(page));
        if asked == Some(0) {
            return Err(Error::Invalid(
                "an arena of 0 bytes holds nothing: reserve more (arena_bytes)".into(),
            ));
        }
        if let Some(base) = self.base.filter(|base| base % page != 0) {
            return Err(Error::Invalid(format!(
                "{base:#x} cannot be the arena's address: it must be a multiple of {page}"
            )));
        }
        let (base, bytes) = match chain {
            None => (
                self.base.unwrap_or(DEFAULT_BASE),
                asked.unwrap_or(DEFAULT_ARENA_BYTES),
            ),
            Some((base, _)) if self.base.is_some_and(|asked| asked != base) => {
                return Err(Error::Invalid(format!(
                    "the chain's arena is at {base:#x} and cannot move: leave the base address out"
                )));
            }
            Some((base, bytes)) => (base, asked.unwrap_or(0).max(bytes)),
        };
        let least = (crate::arena::HEAD_PAGES + 1) * page;
        if bytes < least {
            return Err(Error::Invalid(format!(
                "an arena of {bytes} bytes is too small: it needs {least} at least"
            )));
        }
        Ok((base, bytes))
    }
}

/// What `CKPT_COMPRESS` says.
fn compression_from_environment() -> Result<Compression, Error> {
    let Some(value) = env::var_os(COMPRESS).filter(|value| !value.is_empty()) else {
        return Ok(Compression::default());
    };
    let value = value.to_string_lossy().into_owned();
    value.parse().map_err(|expected| Error::Environment {
        name: COMPRESS,
        value,
        expected,
    })
}

/// The page that `CKPT_LEASE` names.
pub(crate) fn lease() -> Result<Option<LeasePage>, Error> {
    let Some(path) = env::var_os(LEASE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let page = LeasePage::in_file(Path::new(&path)).map_err(|source| Error::System {
        doing: "learn whether this host is the primary (CKPT_LEASE)",
        source,
    })?;
    match page {
        Some(page) => Ok(Some(page)),
        None => Err(Error::Environment {
            name: LEASE,
            value: path.to_string_lossy().into_owned(),
            expected: "there is no such file: `ckptctl run --etcd` sets this",
        }),
    }
}

/// What `CKPT_TAKEOVER` says.
pub(crate) fn takeover_term() -> Result<Option<u64>, Error> {
    let Some(value) = env::var_os(TAKEOVER).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let term = value.to_str().and_then(|value| value.parse().ok());
    term.map(Some).ok_or_else(|| Error::Environment {
        name: TAKEOVER,
        value: value.to_string_lossy().into_owned(),
        expected: "it is the number of a term, set by `ckptctl spare`",
    })
}
