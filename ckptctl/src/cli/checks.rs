// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is good and what is missing on a machine, and what to do about it.

mod tracker;

use ckptctl::options::DEFAULT_ARENA_BYTES;
use ckptctl::sys::abi::CKPT_ABI_VERSION;
use ckptctl::sys::memory::PAGE;
use serde::Serialize;

use super::figures;
use super::machine::Machine;
use super::machine::Store;
use super::module;
pub use tracker::Usable;

/// The kernel's layout of addresses is the same for all stacks up to here: it keeps a gap of at
/// least 128 MiB for them, a guard among it.
const STACK_WITHOUT_EFFECT: u64 = 127 << 20;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Advice,
    /// Something does not work.
    Missing,
    /// It cannot be told.
    Unknown,
}

impl State {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Advice => "advice",
            State::Missing => "missing",
            State::Unknown => "unknown",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; nothing when all is well.
    pub advice: Option<String>,
}

/// The result.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// What programs would be tracked by; `None` when they cannot run.
    pub tracker: Option<Usable>,
    /// Every check, in the order for people.
    pub checks: Vec<Check>,
}

fn check(
    name: &'static str,
    state: State,
    found: impl Into<String>,
    advice: impl Into<Option<String>>,
) -> Check {
    Check {
        name,
        state,
        found: found.into(),
        advice: advice.into(),
    }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    check(name, State::Ok, found, None)
}

/// Judges a machine.
pub fn diagnose(machine: &Machine) -> Diagnosis {
    let (tracker, tracker_check) = tracker::choose(machine);
    let mut checks = vec![
        kernel(machine),
        rust(machine),
        dirty_helpers(machine),
        loaded(machine),
        node(machine),
        access(machine),
        memlock(machine),
        address_space(machine),
        randomisation(machine),
        stack(machine),
    ];
    checks.extend(store(machine));
    checks.push(tracker::pagemap(machine));
    checks.push(tracker_check);
    Diagnosis { tracker, checks }
}

fn kernel(machine: &Machine) -> Check {
    match &machine.kernel {
        Some(release) => ok("kernel", format!("Linux {release}")),
        None => check(
            "kernel",
            State::Unknown,
            "no /proc",
            "mount /proc".to_owned(),
        ),
    }
}

fn rust(machine: &Machine) -> Check {
    let name = "CONFIG_RUST";
    match machine.rust {
        Some(true) => ok(name, "the kernel can load the module"),
        _ if machine.module.is_ok() => ok(name, "the module is loaded"),
        Some(false) => check(
            name,
            State::Missing,
            "this kernel cannot load modules written in Rust",
            "boot a kernel with CONFIG_RUST=y, as Debian's in trixie-backports".to_owned(),
        ),
        None => check(
            name,
            State::Unknown,
            "neither /proc/kallsyms nor /boot tells how this kernel was built",
            "look for CONFIG_RUST=y in the kernel's configuration".to_owned(),
        ),
    }
}

fn dirty_helpers(machine: &Machine) -> Check {
    let name = "MAPPING_DIRTY_HELPERS";
    match machine.dirty_helpers {
        Some(true) => ok(name, "the kernel finds written pages in all page tables"),
        Some(false) => check(
            name,
            State::Advice,
            "this kernel does not find written pages in all page tables",
            "nothing is lost: while several processes map an arena, each page's first write in an \
             epoch takes a fault and a flush (tracking is armed only). A kernel of the full \
             flavour has the option (DRM_VMWGFX selects it)"
                .to_owned(),
        ),
        None => check(
            name,
            State::Unknown,
            "neither /proc/kallsyms nor /boot tells how this kernel was built",
            None,
        ),
    }
}

fn loaded(machine: &Machine) -> Check {
    let name = "module";
    match &machine.module {
        Ok(version) if version.abi < CKPT_ABI_VERSION => check(
            name,
            State::Missing,
            format!(
                "version {}, which speaks ABI {}; this tool speaks {CKPT_ABI_VERSION}",
                version.release, version.abi
            ),
            "load the module that came with this tool (rmmod ckpt; make kmod && insmod \
             target/kmod/ckpt.ko)"
                .to_owned(),
        ),
        Ok(version) => ok(
            name,
            format!("version {}, ABI {}", version.release, version.abi),
        ),
        Err(_) if machine.loaded => ok(name, "loaded"),
        Err(error) if !error.missing => check(name, State::Unknown, "it cannot be asked", None),
        Err(_) => check(
            name,
            State::Missing,
            "not loaded",
            module::LOAD_IT.to_owned(),
        ),
    }
}

fn node(machine: &Machine) -> Check {
    let name = "/dev/ckpt";
    match &machine.node {
        Some(node) if !node.is_device => check(
            name,
            State::Missing,
            "it is no device",
            "remove it and load the module again".to_owned(),
        ),
        Some(node) => {
            let found = format!("mode {:04o}, {}:{}", node.mode, node.owner, node.group);
            // Users of the group can be let in only when the node is theirs.
            if node.mode & 0o006 == 0 && (node.mode & 0o060 != 0o060 || node.group == "root") {
                let advice = "only root can make arenas: install the udev rule (make install), \
                              which gives the node to the group ckpt"
                    .to_owned();
                return check(name, State::Advice, found, advice);
            }
            ok(name, found)
        }
        None if machine.loaded => check(
            name,
            State::Missing,
            "the module is loaded and there is no node",
            "mount devtmpfs on /dev; give the device to a container (--device /dev/ckpt)"
                .to_owned(),
        ),
        None => check(
            name,
            State::Missing,
            "not there",
            "it comes with the module".to_owned(),
        ),
    }
}

fn access(machine: &Machine) -> Check {
    let name = "access";
    match &machine.module {
        Ok(_) => ok(name, "this user can make arenas"),
        Err(error) if error.missing => check(name, State::Missing, "no device to open", None),
        Err(error) => check(
            name,
            State::Missing,
            format!("this user cannot open /dev/ckpt: {}", error.message),
            module::JOIN_GROUP.to_owned(),
        ),
    }
}

fn memlock(machine: &Machine) -> Check {
    let name = "RLIMIT_MEMLOCK";
    match machine.memlock_bytes {
        None => ok(name, "no limit on the memory of arenas"),
        Some(_) if machine.ipc_lock => {
            ok(name, "does not hold for this user, who has CAP_IPC_LOCK")
        }
        Some(bytes) => check(
            name,
            State::Advice,
            format!(
                "{}: the arenas of this user hold at most {} in all, under the module",
                figures::bytes(bytes),
                figures::counted(bytes / PAGE as u64, "page")
            ),
            "raise it to what the programs' states need (ulimit -l, LimitMEMLOCK= of a unit, \
             /etc/security/limits.conf)"
                .to_owned(),
        ),
    }
}

fn address_space(machine: &Machine) -> Check {
    let name = "address space";
    let arena = figures::bytes(DEFAULT_ARENA_BYTES);
    let advice = match machine.address_space_bytes {
        Some(bytes) => format!(
            "it is limited to {}: raise that (ulimit -v unlimited), or have the program reserve \
             less (arena_bytes)",
            figures::bytes(bytes)
        ),
        None if machine.strict_overcommit => {
            "vm.overcommit_memory is 2: set it to 0 or 1 (sysctl vm.overcommit_memory=0), or have \
             the program reserve less (arena_bytes)"
                .to_owned()
        }
        None => "have the program reserve less (arena_bytes) or at another address".to_owned(),
    };
    match (&machine.arena_error, &machine.copy_error) {
        (Some(error), _) => check(
            name,
            State::Missing,
            format!("an arena of {arena}, which is the default, cannot be mapped: {error}"),
            advice,
        ),
        (None, Some(error)) => check(
            name,
            State::Advice,
            format!("the compare tracker cannot map {arena}, the default, twice: {error}"),
            advice,
        ),
        (None, None) => ok(
            name,
            format!("an arena of {arena}, the default, can be mapped"),
        ),
    }
}

fn randomisation(machine: &Machine) -> Check {
    let name = "address layout";
    match &machine.fix_error {
        None if machine.random_addresses => ok(
            name,
            "random; under `ckptctl run` it is the same at each start",
        ),
        None => ok(name, "the same at each start"),
        Some(_) if !machine.random_addresses => ok(name, "the same at each start"),
        Some(error) => check(
            name,
            State::Missing,
            format!("random, and it cannot be switched off: {error}"),
            "programs with pointers to code in their state cannot be restored: allow \
             personality(2) in the container's seccomp profile"
                .to_owned(),
        ),
    }
}

fn stack(machine: &Machine) -> Check {
    let name = "RLIMIT_STACK";
    let found = match machine.stack_bytes {
        Some(bytes) if bytes <= STACK_WITHOUT_EFFECT => {
            return ok(
                name,
                format!("{}, too small to move anything", figures::bytes(bytes)),
            );
        }
        Some(bytes) => figures::bytes(bytes),
        None => "no limit".to_owned(),
    };
    check(
        name,
        State::Advice,
        format!("{found}: libraries are loaded at addresses that depend on it"),
        "have the same limit at each start, or 8 MiB (ulimit -s 8192)".to_owned(),
    )
}

fn store(machine: &Machine) -> Option<Check> {
    let name = "CKPT_STORE";
    let (dir, store) = machine.store.as_ref()?;
    let dir = dir.display();
    Some(match store {
        Store::New => ok(
            name,
            format!("{dir}: no chain yet, the first commit makes it"),
        ),
        Store::NoParent(parent) => check(
            name,
            State::Missing,
            format!("{dir}: there is no directory {}", parent.display()),
            format!("mkdir -p {}", parent.display()),
        ),
        Store::Chain {
            damage: Some(damage),
            ..
        } => check(
            name,
            State::Missing,
            format!("{dir}: {damage}"),
            format!("`ckptctl verify {dir}` names all damage and what can be restored"),
        ),
        Store::Chain {
            commits, newest, ..
        } => ok(
            name,
            format!(
                "{dir}: {}{}",
                figures::counted(*commits as u64, "commit"),
                newest.map_or(String::new(), |epoch| format!(", newest epoch {epoch}"))
            ),
        ),
        Store::Unusable(why) => check(
            name,
            State::Missing,
            format!("{dir}: {why}"),
            "set CKPT_STORE to an empty or a new directory, or to a chain's".to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests;
