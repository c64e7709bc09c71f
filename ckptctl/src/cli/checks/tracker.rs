// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What programs would be tracked by, and why.

use ckptctl::sys::abi::CKPT_ABI_VERSION;
use ckptctl::track::Choice;
use ckptctl::track::MODULE_GIVES;
use serde::Serialize;

use super::Check;
use super::Machine;
use super::State;
use super::check;
use super::ok;

/// What a program would be tracked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Usable {
    Module,
    Pagemap,
    Compare,
}

impl Usable {
    fn name(self) -> &'static str {
        match self {
            Usable::Module => "module",
            Usable::Pagemap => "pagemap",
            Usable::Compare => "compare",
        }
    }

    /// Whether it works here.
    fn works(self, machine: &Machine) -> bool {
        machine.arena_error.is_none()
            && match self {
                Usable::Module => machine
                    .module
                    .as_ref()
                    .is_ok_and(|version| version.abi >= CKPT_ABI_VERSION),
                Usable::Pagemap => machine.pagemap.is_ok(),
                Usable::Compare => machine.copy_error.is_none(),
            }
    }
}

/// Whether the kernel tells which pages were written.
pub(super) fn pagemap(machine: &Machine) -> Check {
    let name = "pagemap";
    match &machine.pagemap {
        Ok(()) => ok(
            name,
            "the kernel tells which pages were written (PAGEMAP_SCAN)",
        ),
        Err(error) => {
            let (state, advice) = match Usable::Module.works(machine) {
                true => (State::Advice, "nothing, while there is the module"),
                false => (State::Missing, "without it programs compare"),
            };
            check(name, state, error.clone(), advice.to_owned())
        }
    }
}

/// What programs would be tracked by.
pub(super) fn choose(machine: &Machine) -> (Option<Usable>, Check) {
    let name = "tracker";
    let missing = |found: String, advice: &str| {
        let check = check(name, State::Missing, found, advice.to_owned());
        (None, check)
    };
    let asked = match &machine.wanted {
        Err(error) => return missing(error.clone(), "unset CKPT_TRACKER"),
        Ok(Choice::Auto) => None,
        Ok(Choice::Module) => Some(Usable::Module),
        Ok(Choice::Pagemap) => Some(Usable::Pagemap),
        Ok(Choice::Compare) => Some(Usable::Compare),
    };
    if let Some(asked) = asked {
        let tracker = asked.name();
        return match asked.works(machine) {
            true => {
                let found = format!("{tracker}, as CKPT_TRACKER says");
                (Some(asked), ok(name, found))
            }
            false => missing(
                format!("CKPT_TRACKER says {tracker}, and that cannot be used"),
                "see above, or unset CKPT_TRACKER",
            ),
        };
    }
    if Usable::Module.works(machine) {
        return (Some(Usable::Module), ok(name, Usable::Module.name()));
    }
    // A program takes the module when it is there, even one that is too old for it.
    let others = match machine.module {
        Ok(_) => [].as_slice(),
        Err(_) => &[Usable::Pagemap, Usable::Compare],
    };
    let Some(&tracker) = others.iter().find(|tracker| tracker.works(machine)) else {
        return missing("none can be used".into(), "see above for what is missing");
    };
    let found = match tracker {
        Usable::Compare => {
            "compare, as neither the module nor pagemap can be used: twice the memory, and pauses \
             that follow the size of the state"
        }
        _ => {
            "pagemap, as the module cannot be used: what changed is copied in each commit, or saved \
             before the program goes on"
        }
    };
    let advice = format!("{MODULE_GIVES}: see above for what it needs");
    (Some(tracker), check(name, State::Advice, found, advice))
}
