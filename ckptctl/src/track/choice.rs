// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which tracker there is to be, and which there can be.

use std::env;
use std::os::fd::OwnedFd;
use std::sync::Once;

use super::Geometry;
use super::Tracker;
use super::compare::Compare;
use super::module::Module;
use super::pagemap::Pagemap;
use crate::error::Error;
use crate::sys::memory::PAGE;

/// What the module gives, for those who go without.
pub const MODULE_GIVES: &str = "with the module tracking costs a fraction, commits of any size \
     are saved while the program goes on, and others can look in (ckptctl ps, commit, pull)";

/// Which tracker to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first of the others that there is.
    #[default]
    Auto,
    /// The kernel module.
    Module,
    /// PAGEMAP_SCAN and userfaultfd, which Linux has since 6.7. The kernel freezes nothing, so
    /// what changed is copied in a commit, or saved before the program goes on.
    Pagemap,
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
            Ok("pagemap") => Ok(Choice::Pagemap),
            Ok("compare") => Ok(Choice::Compare),
            _ => Err(Error::Environment {
                name: NAME,
                value: env::var_os(NAME)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                expected: "it can be module, pagemap, compare or auto",
            }),
        }
    }
}

fn boxed<T: Tracker + 'static>(tracker: Result<T, Error>) -> Result<Box<dyn Tracker>, Error> {
    tracker.map(|tracker| Box::new(tracker) as Box<dyn Tracker>)
}

/// Makes an arena.
pub fn open(choice: Choice, geometry: &Geometry) -> Result<Box<dyn Tracker>, Error> {
    match choice {
        Choice::Module => boxed(Module::new(geometry)),
        Choice::Pagemap => boxed(Pagemap::new(geometry)),
        Choice::Compare => boxed(Compare::new(geometry)),
        Choice::Auto => match boxed(Module::new(geometry)) {
            Err(error @ (Error::NoDevice | Error::DeviceAccess(_))) => {
                open_without_module(geometry, error)
            }
            other => other,
        },
    }
}

/// Takes over an arena that another process has made and left.
pub(crate) fn adopt(
    choice: Choice,
    fd: OwnedFd,
    geometry: &Geometry,
) -> Result<Box<dyn Tracker>, Error> {
    match choice {
        Choice::Module | Choice::Auto => boxed(Module::adopt(fd, geometry)),
        Choice::Pagemap | Choice::Compare => Err(Error::Invalid(
            "an arena of the module goes on with the module only".into(),
        )),
    }
}

fn open_without_module(geometry: &Geometry, no_module: Error) -> Result<Box<dyn Tracker>, Error> {
    let why = match no_module {
        Error::NoDevice => {
            "no /dev/ckpt; load the module (make kmod && insmod target/kmod/ckpt.ko)".into()
        }
        other => other.to_string(),
    };
    let (tracker, means) = match boxed(Pagemap::new(geometry)) {
        Err(no_pagemap @ Error::NoPagemap { .. }) => (
            boxed(Compare::new(geometry))?,
            format!("compare, every commit compares the whole state with a copy ({no_pagemap})"),
        ),
        other => (other?, "pagemap".into()),
    };
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        eprintln!(
            "ckpt: going on without the module, with the tracker {means}: {why}; {MODULE_GIVES}"
        );
    });
    Ok(tracker)
}

/// Tries the tracker [`Choice::Pagemap`] on a few pages.
pub fn try_pagemap() -> Result<(), Error> {
    let geometry = Geometry {
        name: "trial".into(),
        base: 0,
        len_bytes: 3 * PAGE as u64,
        epoch: 0,
    };
    let mut tracker = Pagemap::new(&geometry)?;
    let mut told = Vec::new();
    for _ in 0..2 {
        // SAFETY: Within the arena, which is this function's.
        unsafe { tracker.mapping().base().add(PAGE).write_volatile(1) };
        let committed = tracker.commit(&[0..3])?;
        told.push(tracker.delta(committed.epoch - 1)?);
    }
    match told.iter().all(|delta| *delta == [1..2]) {
        true => Ok(()),
        false => Err(Error::NoPagemap {
            doing: "trust this kernel to tell which pages were written",
            source: std::io::Error::other(format!("it told {told:?} instead of 1..2")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;
    use crate::sys::fake;
    use crate::sys::fake::Call;

    /// The name of what is chosen while one call of the system fails.
    fn chosen_without(call: Call) -> &'static str {
        let geometry = Geometry {
            name: "test".into(),
            base: 0,
            len_bytes: PAGE as u64,
            epoch: 0,
        };
        let _failing = fake::fail(call, libc::ENOENT);
        open(Choice::Auto, &geometry).unwrap().name()
    }

    #[test]
    fn without_the_module_it_is_pagemap_and_without_that_compare() {
        let best = match try_pagemap() {
            Ok(()) => "pagemap",
            Err(_) => "compare",
        };
        assert_eq!(chosen_without(Call::OpenDevice), best);
        if crate::sys::device::Device::open().is_err() {
            assert_eq!(chosen_without(Call::Userfault), "compare");
        }
    }
}
