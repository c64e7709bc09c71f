// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trackers: who owns an arena's memory and knows which of its pages changed.

mod compare;
mod module;

use std::env;
use std::ops::Range;

use crate::error::Error;
use crate::sys::memory::Mapping;

/// Pages of an arena: first, and behind the last.
pub type PageRange = Range<u64>;

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The epoch closed.
    pub epoch: u64,
    /// For how long writers were held up.
    pub pause_ns: u64,
}

/// An arena's memory, and which pages of it changed since any epoch.
pub trait Tracker: Send {
    /// Name, as [`Choice`] has it.
    fn name(&self) -> &'static str;

    /// The memory.
    fn mapping(&self) -> &Mapping;

    /// Sees to it that `pages` pages in all can be touched.
    fn reserve(&mut self, pages: u64) -> Result<(), Error>;

    /// Closes an epoch. Only pages within `used` are ever written by the program.
    fn commit(&mut self, used: &[PageRange]) -> Result<Committed, Error>;

    /// The pages that changed after epoch `since` and up to the last commit: ascending,
    /// disjoint. May name pages that did not; never misses one that did.
    fn delta(&mut self, since: u64) -> Result<Vec<PageRange>, Error>;
}

/// Which tracker to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The module if it is there, else comparing.
    #[default]
    Auto,
    /// The kernel module.
    Module,
    /// A copy of everything, compared at commit. Works everywhere, at twice the memory and a
    /// pause that follows the size of the state.
    Compare,
}

impl Choice {
    /// What `CKPT_TRACKER` says.
    pub fn from_environment() -> Result<Choice, Error> {
        const NAME: &str = "CKPT_TRACKER";
        match env::var(NAME).as_deref() {
            Err(env::VarError::NotPresent) | Ok("" | "auto") => Ok(Choice::Auto),
            Ok("module") => Ok(Choice::Module),
            Ok("compare") => Ok(Choice::Compare),
            _ => Err(Error::Environment {
                name: NAME,
                value: env::var_os(NAME)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                expected: "it can be module, compare or auto",
            }),
        }
    }
}

/// What an arena is made with.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// For people.
    pub name: String,
    /// Address.
    pub base: u64,
    /// Bytes, whole pages.
    pub len_bytes: u64,
    /// The first commit's epoch is one above.
    pub epoch: u64,
}

/// Makes an arena.
pub fn open(choice: Choice, geometry: &Geometry) -> Result<Box<dyn Tracker>, Error> {
    let compare = || compare::Compare::new(geometry).map(|it| Box::new(it) as Box<dyn Tracker>);
    let module = || module::Module::new(geometry).map(|it| Box::new(it) as Box<dyn Tracker>);
    match choice {
        Choice::Module => module(),
        Choice::Compare => compare(),
        Choice::Auto => {
            match module() {
                Err(error @ (Error::NoDevice | Error::DeviceAccess(_))) => {
                    let why = match error {
                    Error::NoDevice => "no /dev/ckpt; load the module (make kmod && insmod target/kmod/ckpt.ko)".into(),
                    other => other.to_string(),
                };
                    eprintln!(
                        "ckpt: going on without the module, every commit compares the whole state with a copy: {why}"
                    );
                    compare()
                }
                other => other,
            }
        }
    }
}

fn map_error(geometry: &Geometry, source: std::io::Error) -> Error {
    match source.raw_os_error() {
        Some(nix::libc::EEXIST) => Error::AddressTaken {
            base: geometry.base,
            end: geometry.base + geometry.len_bytes,
        },
        _ => Error::Map {
            len_bytes: geometry.len_bytes,
            source,
        },
    }
}
