// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong in a program that uses the library. Every message says what to do.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::libc;

use crate::store::StoreError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No chain directory was given.
    #[error(
        "no directory for the chain: set one in the options, or CKPT_STORE, or start under `ckptctl run --store DIR`"
    )]
    NoDirectory,

    /// An option or argument cannot be.
    #[error("{0}")]
    Invalid(String),

    /// A variable of the environment cannot be.
    #[error("{name}={value}: {expected}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it could be.
        expected: &'static str,
    },

    /// The module was asked for and is not there.
    #[error(
        "no /dev/ckpt: load the module (make kmod && insmod target/kmod/ckpt.ko), or unset CKPT_TRACKER to do without"
    )]
    NoDevice,

    /// The device cannot be used.
    #[error(
        "cannot use /dev/ckpt: {0}; it belongs to the group ckpt: add the user to it, or run as root"
    )]
    DeviceAccess(io::Error),

    /// The module refused a command.
    #[error("the module refused to {doing}: {source}")]
    Module {
        /// What was asked of it.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },

    /// The kernel cannot watch memory for us, or somebody forbids it.
    #[error(
        "cannot {doing}: {source}; it takes Linux 6.7 or later with CONFIG_USERFAULTFD and CONFIG_PROC_PAGE_MONITOR, and in a container a seccomp profile that allows userfaultfd, or /dev/userfaultfd"
    )]
    NoPagemap {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },

    /// The kernel does not tell which pages changed.
    #[error(
        "cannot learn which pages changed: {0}; leave the arena mapped as the library has mapped it"
    )]
    Scan(io::Error),

    /// The addresses of the arena are in use.
    #[error(
        "addresses {base:#x} to {end:#x} are taken in this process: choose another base address in the options; a chain that exists wants the one it was made with, so start under `ckptctl run`, which gives the same layout each time"
    )]
    AddressTaken {
        /// First address.
        base: u64,
        /// Behind the last address.
        end: u64,
    },

    /// The arena could not be mapped.
    #[error(
        "cannot map {len_bytes} bytes for the arena: {source}; reserve less (arena_bytes) or raise the limit (ulimit -v)"
    )]
    Map {
        /// What was asked for.
        len_bytes: u64,
        /// What the system said.
        source: io::Error,
    },

    /// RLIMIT_MEMLOCK is too low.
    #[error(
        "{pages} pages of 4 KiB are more than this user may keep in memory: raise RLIMIT_MEMLOCK (`ulimit -l`, LimitMEMLOCK= of a unit, /etc/security/limits.conf)"
    )]
    Memlock {
        /// Pages of all regions.
        pages: u64,
    },

    /// The chain.
    #[error(transparent)]
    Store(#[from] StoreError),

    /// The chain was written by another executable.
    #[error(
        "the chain was written by {theirs} and this is {ours}: its state may point into code that is elsewhere now. Run the executable that wrote it, or begin a new chain; a program whose state has no pointers to code can say so (CKPT_NO_CODE_POINTERS)"
    )]
    OtherProgram {
        /// Executable and build id of the chain.
        theirs: String,
        /// Ours.
        ours: String,
    },

    /// The executable or its libraries are at other addresses.
    #[error(
        "{what} at other addresses than when the chain was written: start under `ckptctl run`, which gives the same layout each time; a program whose state has no pointers to code can say so (CKPT_NO_CODE_POINTERS)"
    )]
    Moved {
        /// What moved.
        what: &'static str,
    },

    /// The state in the chain was laid out by another version of this library.
    #[error("{0}: use the version of libckpt that wrote the chain")]
    Layout(String),

    /// A hook refused.
    #[error("a hook refused with error {code}: {during} did not happen")]
    Hook {
        /// What the hook returned.
        code: i32,
        /// What it was asked about.
        during: &'static str,
    },

    /// A hook is not content with the state that a rollback brought back.
    #[error(
        "the state is that of epoch {epoch} again, and a hook refused it with error {code}: roll back to another epoch, or end the program"
    )]
    Refused {
        /// What the hook returned.
        code: i32,
        /// The epoch.
        epoch: u64,
    },

    /// A rollback failed halfway.
    #[error(
        "the memory is undefined since a rollback to epoch {epoch} failed halfway ({why}): roll back again, to that epoch or another, or end the program and start it from its chain"
    )]
    Undefined {
        /// The epoch.
        epoch: u64,
        /// What failed.
        why: String,
    },

    /// An epoch that was not durable was left by a rollback.
    #[error(
        "the program went back to epoch {to} before it could be saved: do again what was done since"
    )]
    TakenBack {
        /// The epoch that is the program's state now.
        to: u64,
    },

    /// A commit could not be saved.
    #[error("epoch {epoch} is not durable: {source}")]
    NotDurable {
        /// The epoch that was asked for. What it had will be in the next one that is saved.
        epoch: u64,
        /// Why it was given up.
        source: Arc<Error>,
    },

    /// An epoch was not durable in time.
    #[error("epoch {epoch} is not durable yet: wait longer, it is being saved")]
    TimedOut {
        /// The epoch.
        epoch: u64,
    },

    /// Called from a hook.
    #[error(
        "{0} was called from a hook, which it would wait for itself: call it behind the commit"
    )]
    FromHook(&'static str),

    /// Called by a thread that is inside.
    #[error(
        "{0} was called by a thread that has entered (ckpt_enter), which it would wait for: leave first, and enter again behind it"
    )]
    Inside(&'static str),

    /// Used in a child of the process that opened it.
    #[error(
        "this context belongs to process {owner}, a child cannot use it: open the arena in the process that works on it"
    )]
    Forked {
        /// Process that opened it.
        owner: u32,
    },

    /// A region of this name has another type.
    #[error(
        "region {name} has type {has}, not {wanted}: use another name, or the type that made it"
    )]
    RegionType {
        /// The region.
        name: String,
        /// Its type.
        has: u32,
        /// The type asked for.
        wanted: u32,
    },

    /// A region of this name is elsewhere, or of another length.
    #[error(
        "region {name} is {has_len} bytes {has_place}, not {len} bytes at {address:#x}: use another name, or have the memory where and as long as it was: under `ckptctl run` it is at the same address each time"
    )]
    RegionPlace {
        /// The region.
        name: String,
        /// Its length in bytes.
        has_len: u64,
        /// Where it is.
        has_place: String,
        /// Length of the memory that was to be adopted.
        len: u64,
        /// Its address.
        address: u64,
    },

    /// Memory is in the arena already.
    #[error(
        "the memory from {start:#x} to {end:#x} overlaps {what}, which is in the arena already: adopt other memory"
    )]
    Overlap {
        /// First address.
        start: u64,
        /// Behind the last address.
        end: u64,
        /// What of the arena.
        what: String,
    },

    /// Memory is of a kind that cannot be adopted.
    #[error("the memory at {address:#x} cannot be adopted: {why}")]
    NotAdoptable {
        /// Where it is not what it would have to be.
        address: u64,
        /// What it is, and what to do.
        why: String,
    },

    /// There is no region of this name.
    #[error("there is no region {0}: make it first")]
    NoRegion(String),

    /// A region cannot grow so far.
    #[error(
        "region {name} has {reserve_bytes} bytes reserved and cannot grow to {wanted_bytes}: reserve more when it is made"
    )]
    RegionFull {
        /// The region.
        name: String,
        /// Its reserve.
        reserve_bytes: u64,
        /// What was asked for.
        wanted_bytes: u64,
    },

    /// The arena has no room for a region.
    #[error(
        "the arena has no room for {wanted_bytes} bytes more, {free_bytes} are free: reserve more when the arena is made (arena_bytes)"
    )]
    ArenaFull {
        /// What was asked for.
        wanted_bytes: u64,
        /// What is left.
        free_bytes: u64,
    },

    /// The region table is full.
    #[error("there are {0} regions and cannot be more: make fewer and larger ones")]
    TooManyRegions(usize),

    /// The heap has no memory left.
    #[error("no {0} bytes left in the heap: reserve more when the arena is made (arena_bytes)")]
    HeapFull(usize),

    /// No more outputs can be held.
    #[error(
        "{0} outputs are held already, which is the limit: take those that are released, or commit so that others are, before holding more"
    )]
    OutputsFull(usize),

    /// There will be no more outputs.
    #[error("the context was closed and has no outputs any more: stop waiting, or open it again")]
    OutputsEnded,

    /// The system refused something else.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The number of `errno.h` that says most of it, positive.
    pub fn errno(&self) -> i32 {
        let of = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        match self {
            Error::NoDirectory | Error::Invalid(_) | Error::Environment { .. } => libc::EINVAL,
            Error::NoDevice => libc::ENODEV,
            Error::DeviceAccess(source) | Error::Scan(source) => of(source),
            Error::NoPagemap { .. } => libc::EOPNOTSUPP,
            Error::Module { source, .. } | Error::System { source, .. } => of(source),
            Error::AddressTaken { .. } | Error::Overlap { .. } => libc::EADDRINUSE,
            Error::Map { .. } | Error::Memlock { .. } | Error::HeapFull(_) => libc::ENOMEM,
            Error::Store(error) => store_errno(error),
            Error::OtherProgram { .. } | Error::Moved { .. } | Error::Layout(_) => libc::ENOEXEC,
            Error::Hook { .. } | Error::Refused { .. } | Error::TakenBack { .. } => libc::ECANCELED,
            Error::Undefined { .. } => libc::ENOTRECOVERABLE,
            Error::NotDurable { source, .. } => source.errno(),
            Error::TimedOut { .. } => libc::ETIMEDOUT,
            Error::FromHook(_) | Error::Inside(_) => libc::EDEADLK,
            Error::Forked { .. } => libc::EPERM,
            Error::RegionType { .. } | Error::RegionPlace { .. } => libc::EEXIST,
            Error::NotAdoptable { .. } => libc::EOPNOTSUPP,
            Error::NoRegion(_) => libc::ENOENT,
            Error::OutputsFull(_) => libc::EAGAIN,
            Error::OutputsEnded => libc::ESHUTDOWN,
            Error::RegionFull { .. } | Error::ArenaFull { .. } | Error::TooManyRegions(_) => {
                libc::ENOSPC
            }
        }
    }
}

fn store_errno(error: &StoreError) -> i32 {
    match error {
        StoreError::NoChain { .. } | StoreError::NoSuchEpoch { .. } => libc::ENOENT,
        StoreError::NotEmpty { .. } => libc::ENOTEMPTY,
        StoreError::Locked { .. } | StoreError::Compacting { .. } => libc::EBUSY,
        StoreError::GivenUp { .. } => libc::EINTR,
        StoreError::Unsupported { .. } => libc::EPROTONOSUPPORT,
        StoreError::Damaged { .. } => libc::EBADMSG,
        StoreError::EpochOrder { .. }
        | StoreError::Invalid { .. }
        | StoreError::Archive { .. }
        | StoreError::PageSizes { .. } => libc::EINVAL,
        StoreError::NoSpace { .. } => libc::ENOSPC,
        StoreError::Poisoned { .. } => libc::EIO,
        StoreError::NoThread(source) | StoreError::Io { source, .. } => {
            source.raw_os_error().unwrap_or(libc::EIO)
        }
    }
}

/// Names a program in a message.
pub(crate) fn name_program(path: &Path, build_id: &[u8]) -> String {
    let id = build_id.iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    });
    match id.is_empty() {
        true => format!("{} (without a build id)", path.display()),
        false => format!("{} (build id {id})", path.display()),
    }
}
