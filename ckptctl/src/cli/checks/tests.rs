// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines, and what is to be said about them.

use super::super::machine::DeviceError;
use super::super::machine::Node;
use super::super::machine::Version;
use super::*;
use ckptctl::track::Choice;

/// A machine on which all is well.
fn sound() -> Machine {
    Machine {
        kernel: Some("7.3.4+deb14-amd64".into()),
        rust: Some(true),
        dirty_helpers: Some(true),
        loaded: true,
        node: Some(Node {
            is_device: true,
            mode: 0o660,
            owner: "root".into(),
            group: "ckpt".into(),
        }),
        module: Ok(Version {
            release: "0.1.0".into(),
            abi: CKPT_ABI_VERSION,
        }),
        memlock_bytes: None,
        ipc_lock: false,
        address_space_bytes: None,
        stack_bytes: Some(8 << 20),
        strict_overcommit: false,
        arena_error: None,
        copy_error: None,
        pagemap: Ok(()),
        random_addresses: true,
        fix_error: None,
        wanted: Ok(Choice::Auto),
        store: None,
    }
}

fn without_module() -> Machine {
    Machine {
        rust: Some(false),
        loaded: false,
        node: None,
        module: Err(DeviceError {
            missing: true,
            message: "No such file or directory".into(),
        }),
        ..sound()
    }
}

fn refused() -> Machine {
    Machine {
        module: Err(DeviceError {
            missing: false,
            message: "Permission denied".into(),
        }),
        ..sound()
    }
}

fn of(machine: &Machine, name: &str) -> Check {
    let checks = diagnose(machine).checks;
    let found = checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check {name}")).clone()
}

#[test]
fn a_sound_machine_is_all_ok_and_uses_the_module() {
    let diagnosis = diagnose(&sound());
    assert_eq!(diagnosis.tracker, Some(Usable::Module));
    for check in diagnosis.checks {
        assert_eq!(
            (check.state, &check.advice),
            (State::Ok, &None),
            "{check:?}"
        );
    }
}

#[test]
fn without_the_module_programs_use_what_linux_has_and_the_way_to_the_module_is_told() {
    let machine = without_module();
    assert_eq!(diagnose(&machine).tracker, Some(Usable::Pagemap));
    assert!(of(&machine, "module").advice.unwrap().contains("insmod"));
    assert!(
        of(&machine, "CONFIG_RUST")
            .advice
            .unwrap()
            .contains("boot a kernel")
    );
    let tracker = of(&machine, "tracker");
    assert_eq!(tracker.state, State::Advice);
    assert!(tracker.found.starts_with("pagemap, as the module cannot"));
    assert!(tracker.advice.unwrap().contains("with the module"));
}

fn without_either() -> Machine {
    Machine {
        pagemap: Err("cannot use userfaultfd: Operation not permitted".into()),
        ..without_module()
    }
}

#[test]
fn without_module_and_pagemap_programs_compare_and_are_told_why() {
    let machine = without_either();
    assert_eq!(diagnose(&machine).tracker, Some(Usable::Compare));
    let pagemap = of(&machine, "pagemap");
    assert_eq!(pagemap.state, State::Missing);
    assert!(pagemap.found.contains("Operation not permitted"));
    assert_eq!(of(&machine, "tracker").state, State::Advice);
}

#[test]
fn pagemap_is_not_missed_while_there_is_the_module() {
    let machine = Machine {
        pagemap: without_either().pagemap,
        ..sound()
    };
    assert_eq!(of(&machine, "pagemap").state, State::Advice);
    assert_eq!(diagnose(&machine).tracker, Some(Usable::Module));
}

#[test]
fn a_tracker_that_was_asked_for_is_used_or_none_is() {
    let wanted = |choice, machine| Machine {
        wanted: Ok(choice),
        ..machine
    };
    let tracker = |machine| diagnose(&machine).tracker;
    let sound_one = wanted(Choice::Pagemap, sound());
    assert_eq!(
        of(&sound_one, "tracker").found,
        "pagemap, as CKPT_TRACKER says"
    );
    assert_eq!(tracker(sound_one), Some(Usable::Pagemap));
    assert_eq!(tracker(wanted(Choice::Pagemap, without_either())), None);
    let compare = wanted(Choice::Compare, without_either());
    assert_eq!(tracker(compare), Some(Usable::Compare));
}

#[test]
fn everything_missing_comes_with_advice_or_after_what_does() {
    let machine = Machine {
        arena_error: Some("Cannot allocate memory".into()),
        fix_error: Some("Operation not permitted".into()),
        wanted: Ok(Choice::Module),
        store: Some(("/no/dir".into(), Store::NoParent("/no".into()))),
        ..without_module()
    };
    let diagnosis = diagnose(&machine);
    assert_eq!(diagnosis.tracker, None);
    for check in diagnosis.checks {
        let follows = check.name == "access";
        assert!(
            check.state != State::Missing || check.advice.is_some() || follows,
            "{check:?}"
        );
    }
}

#[test]
fn a_user_who_is_not_let_in_learns_of_the_group() {
    let machine = refused();
    assert_eq!(of(&machine, "module").state, State::Ok);
    let access = of(&machine, "access");
    assert_eq!(access.state, State::Missing);
    assert!(access.found.contains("Permission denied"));
    assert!(access.advice.unwrap().contains("group ckpt"));
    assert_eq!(diagnose(&machine).tracker, Some(Usable::Pagemap));
}

#[test]
fn a_node_for_root_alone_is_advised_against() {
    let mut machine = sound();
    let node = machine.node.as_mut().unwrap();
    (node.mode, node.group) = (0o600, "root".into());
    let check = of(&machine, "/dev/ckpt");
    assert_eq!(check.state, State::Advice);
    assert_eq!(check.found, "mode 0600, root:root");
    assert!(check.advice.unwrap().contains("udev"));
}

#[test]
fn the_module_that_was_asked_for_and_is_not_there_leaves_no_tracker() {
    let machine = Machine {
        wanted: Ok(Choice::Module),
        ..without_module()
    };
    assert_eq!(diagnose(&machine).tracker, None);
}

#[test]
fn a_module_that_is_too_old_is_used_by_nobody() {
    let old = || {
        Ok(Version {
            release: "0.0.1".into(),
            abi: CKPT_ABI_VERSION - 1,
        })
    };
    for wanted in [Choice::Auto, Choice::Module] {
        let machine = Machine {
            module: old(),
            wanted: Ok(wanted),
            ..sound()
        };
        assert_eq!(of(&machine, "module").state, State::Missing);
        assert_eq!(diagnose(&machine).tracker, None, "{wanted:?}");
    }
    let machine = Machine {
        module: old(),
        wanted: Ok(Choice::Compare),
        ..sound()
    };
    assert_eq!(diagnose(&machine).tracker, Some(Usable::Compare));
}

#[test]
fn a_newer_module_is_good() {
    let module = Ok(Version {
        release: "9.0.0".into(),
        abi: CKPT_ABI_VERSION + 1,
    });
    assert_eq!(
        diagnose(&Machine { module, ..sound() }).tracker,
        Some(Usable::Module)
    );
}

#[test]
fn a_variable_that_names_no_tracker_leaves_none() {
    let wanted = Err("CKPT_TRACKER=magic: it can be module, pagemap, compare or auto".to_owned());
    let machine = Machine { wanted, ..sound() };
    assert_eq!(diagnose(&machine).tracker, None);
    assert!(of(&machine, "tracker").found.contains("CKPT_TRACKER=magic"));
}

#[test]
fn an_arena_that_cannot_be_mapped_leaves_no_tracker_and_names_the_limit() {
    let machine = Machine {
        arena_error: Some("Cannot allocate memory".into()),
        copy_error: Some("Cannot allocate memory".into()),
        address_space_bytes: Some(32 << 30),
        ..sound()
    };
    assert_eq!(diagnose(&machine).tracker, None);
    let check = of(&machine, "address space");
    assert!(check.advice.unwrap().contains("32.0 GiB"));
}

#[test]
fn strict_overcommit_leaves_the_module_and_is_named() {
    let machine = Machine {
        copy_error: Some("Cannot allocate memory".into()),
        strict_overcommit: true,
        ..sound()
    };
    assert_eq!(diagnose(&machine).tracker, Some(Usable::Module));
    let check = of(&machine, "address space");
    assert_eq!(check.state, State::Advice);
    assert!(check.advice.unwrap().contains("vm.overcommit_memory"));
}

#[test]
fn locked_memory_is_told_in_pages_unless_the_limit_does_not_hold() {
    let limited = Machine {
        memlock_bytes: Some(8 << 20),
        ..sound()
    };
    let check = of(&limited, "RLIMIT_MEMLOCK");
    assert_eq!(check.state, State::Advice);
    assert!(
        check.found.contains("8.0 MiB") && check.found.contains("2,048 pages"),
        "{check:?}"
    );
    let capable = Machine {
        ipc_lock: true,
        ..limited
    };
    assert_eq!(of(&capable, "RLIMIT_MEMLOCK").state, State::Ok);
}

#[test]
fn randomisation_that_cannot_be_switched_off_is_missing() {
    let fix_error = Some("Operation not permitted".to_owned());
    let machine = Machine {
        fix_error: fix_error.clone(),
        ..sound()
    };
    assert_eq!(of(&machine, "address layout").state, State::Missing);
    let machine = Machine {
        fix_error,
        random_addresses: false,
        ..sound()
    };
    assert_eq!(of(&machine, "address layout").state, State::Ok);
}

#[test]
fn a_large_stack_moves_libraries() {
    for stack_bytes in [None, Some(1 << 30)] {
        let machine = Machine {
            stack_bytes,
            ..sound()
        };
        assert_eq!(of(&machine, "RLIMIT_STACK").state, State::Advice);
    }
}

#[test]
fn a_store_is_looked_into_when_there_is_one() {
    let with = |store| Machine {
        store: Some(("/s".into(), store)),
        ..sound()
    };
    let chain = |damage: Option<&str>| Store::Chain {
        commits: 3,
        newest: Some(4),
        damage: damage.map(str::to_owned),
    };
    assert_eq!(
        of(&with(chain(None)), "CKPT_STORE").found,
        "/s: 3 commits, newest epoch 4"
    );
    assert_eq!(
        of(&with(chain(Some("torn page"))), "CKPT_STORE").state,
        State::Missing
    );
    assert_eq!(of(&with(Store::New), "CKPT_STORE").state, State::Ok);
    assert_eq!(
        of(&with(Store::Unusable("no".into())), "CKPT_STORE").state,
        State::Missing
    );
    let check = of(&with(Store::NoParent("/p".into())), "CKPT_STORE");
    assert_eq!(check.advice.unwrap(), "mkdir -p /p");
}
