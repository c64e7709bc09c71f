// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this machine and this user have, as far as programs with arenas depend on it.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use ckptctl::options;
use ckptctl::options::DEFAULT_ARENA_BYTES;
use ckptctl::options::DEFAULT_BASE;
use ckptctl::store::Chain;
use ckptctl::store::StoreError;
use ckptctl::sys::device;
use ckptctl::sys::device::Device;
use ckptctl::sys::limits;
use ckptctl::sys::limits::Limit;
use ckptctl::sys::memory::Mapping;
use ckptctl::sys::process;
use ckptctl::sys::users;
use ckptctl::track;
use ckptctl::track::Choice;

use super::kernel_config::KernelConfig;
use super::kernel_config::KernelOption;
use super::module;

/// CAP_IPC_LOCK.
const IPC_LOCK: u32 = 14;

/// What was found. `None` means that it cannot be told, unless it says otherwise.
#[derive(Debug)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Built with CONFIG_RUST.
    pub rust: Option<bool>,
    /// Built with CONFIG_MAPPING_DIRTY_HELPERS.
    pub dirty_helpers: Option<bool>,
    /// The module is loaded.
    pub loaded: bool,
    /// The device's node; `None` when there is none.
    pub node: Option<Node>,
    /// The module's version and ABI, or why it cannot be asked.
    pub module: Result<Version, DeviceError>,
    /// What may be locked in memory; `None` when there is no limit.
    pub memlock_bytes: Option<u64>,
    /// Such limits do not hold for this user.
    pub ipc_lock: bool,
    /// Address space; `None` when there is no limit.
    pub address_space_bytes: Option<u64>,
    /// The stack; `None` when there is no limit.
    pub stack_bytes: Option<u64>,
    /// The kernel grants no more memory than there is.
    pub strict_overcommit: bool,
    /// Mapping an arena of the usual size in the usual place fails so.
    pub arena_error: Option<String>,
    /// Mapping a copy beside it fails so.
    pub copy_error: Option<String>,
    /// The tracker pagemap cannot be used, and why.
    pub pagemap: Result<(), String>,
    /// Addresses are random for programs that are not run by this tool.
    pub random_addresses: bool,
    /// Switching that off fails so.
    pub fix_error: Option<String>,
    /// What CKPT_TRACKER says, or what is wrong with it.
    pub wanted: Result<Choice, String>,
    /// The directory in CKPT_STORE; `None` when it is not set.
    pub store: Option<(PathBuf, Store)>,
}

/// The module, as it tells.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its version.
    pub release: String,
    /// The ABI it speaks.
    pub abi: u32,
}

/// Why the module cannot be asked.
#[derive(Clone, Debug)]
pub struct DeviceError {
    /// There is no device, as opposed to one that is refused.
    pub missing: bool,
    /// What the system said.
    pub message: String,
}

/// The device's node.
#[derive(Clone, Debug)]
pub struct Node {
    /// It is a character device.
    pub is_device: bool,
    /// Permissions.
    pub mode: u32,
    /// The user it belongs to.
    pub owner: String,
    /// The group it belongs to.
    pub group: String,
}

/// What is in the directory of a chain.
#[derive(Clone, Debug)]
pub enum Store {
    /// Nothing yet: the program can make it.
    New,
    /// Nothing, and the program cannot make it.
    NoParent(PathBuf),
    /// A chain.
    Chain {
        commits: usize,
        newest: Option<u64>,
        damage: Option<String>,
    },
    /// No chain, or one that cannot be used.
    Unusable(String),
}

impl Machine {
    /// Looks at everything.
    pub fn look() -> Machine {
        let kernel = read("/proc/sys/kernel/osrelease");
        let config = KernelConfig::of_running(kernel.as_deref().unwrap_or_default());
        let soft = |limit| limits::soft(limit).ok().flatten();
        // Both at once, as a program that compares has them.
        let arena = Mapping::anonymous(DEFAULT_BASE as usize, DEFAULT_ARENA_BYTES as usize);
        let copy = Mapping::anonymous(0, DEFAULT_ARENA_BYTES as usize);
        Machine {
            rust: config.has(KernelOption::Rust),
            dirty_helpers: config.has(KernelOption::MappingDirtyHelpers),
            kernel,
            loaded: Path::new("/sys/module/ckpt").exists(),
            node: node(),
            module: version().map_err(|error| DeviceError {
                missing: module::is_missing(&error),
                message: error.to_string(),
            }),
            memlock_bytes: soft(Limit::Memlock),
            ipc_lock: users::has_capability(IPC_LOCK).unwrap_or(false),
            address_space_bytes: soft(Limit::AddressSpace),
            stack_bytes: soft(Limit::Stack),
            strict_overcommit: read("/proc/sys/vm/overcommit_memory").as_deref() == Some("2"),
            arena_error: arena.as_ref().err().map(io::Error::to_string),
            copy_error: copy.as_ref().err().map(io::Error::to_string),
            pagemap: track::try_pagemap().map_err(|error| error.to_string()),
            random_addresses: process::addresses_are_random(),
            fix_error: process::fix_addresses()
                .err()
                .map(|error| error.to_string()),
            wanted: Choice::from_environment().map_err(|error| error.to_string()),
            store: env::var_os(options::STORE)
                .filter(|dir| !dir.is_empty())
                .map(|dir| {
                    let dir = PathBuf::from(dir);
                    let store = store(&dir);
                    (dir, store)
                }),
        }
    }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn version() -> io::Result<Version> {
    let version = Device::open()?.version()?;
    Ok(Version {
        release: device::text(&version.release),
        abi: version.abi_version,
    })
}

fn node() -> Option<Node> {
    let node = fs::metadata(device::PATH.to_str().ok()?).ok()?;
    Some(Node {
        is_device: node.file_type().is_char_device(),
        mode: node.mode() & 0o777,
        owner: users::user_name(node.uid()),
        group: users::group_name(node.gid()),
    })
}

fn store(dir: &Path) -> Store {
    match Chain::open(dir) {
        Ok(chain) => Store::Chain {
            commits: chain.commits().len(),
            newest: chain.commits().next_back().map(|commit| commit.epoch),
            damage: chain.damage().first().map(ToString::to_string),
        },
        Err(StoreError::NoChain { .. }) => match fs::read_dir(dir) {
            Ok(mut files) => match files.next() {
                None => Store::New,
                Some(_) => Store::Unusable("it holds other files and no chain".into()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
                match absolute.parent() {
                    Some(parent) if !parent.is_dir() => Store::NoParent(parent.to_owned()),
                    _ => Store::New,
                }
            }
            Err(error) => Store::Unusable(error.to_string()),
        },
        Err(error) => Store::Unusable(error.to_string()),
    }
}
