// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_ACKNOWLEDGE and CKPT_IOC_WAIT.

use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::SigHandler;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::signal::signal;

use crate::abi;
use crate::arena::Arena;
use crate::consumers::Control;
use crate::device::Device;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::process::with_peer;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    the_highest_epoch_that_was_acknowledged_counts,
    levels_do_not_disturb_each_other,
    what_was_not_committed_cannot_be_acknowledged,
    a_read_only_descriptor_acknowledges_nothing,
    levels_that_are_none_are_refused,
    a_wait_for_what_has_come_returns_at_once,
    a_wait_without_time_only_asks,
    a_wait_ends_with_its_time,
    a_signal_ends_a_wait,
    a_wait_ends_when_another_process_acknowledges,
    a_wait_for_a_commit_ends_with_it,
];

const COMMITTED: u32 = abi::CKPT_LEVEL_COMMITTED;
const DURABLE: u32 = abi::CKPT_LEVEL_DURABLE;
const REPLICATED: u32 = abi::CKPT_LEVEL_REPLICATED;

fn committed(times: u64) -> Result<Arena, Failure> {
    let arena = Device::open()?.create("acknowledged", 4)?;
    for _ in 0..times {
        arena.commit()?;
    }
    Ok(arena)
}

fn the_highest_epoch_that_was_acknowledged_counts(_: &Options) -> Outcome {
    let arena = committed(9)?;
    let control = Control::map(&arena)?;
    for (epoch, highest) in [(3, 3), (2, 3), (7, 7), (7, 7), (1, 7), (9, 9)] {
        ensure_eq!(arena.acknowledge(epoch, DURABLE)?, highest, "of {epoch}");
        ensure_eq!(control.read().durable, highest, "the control page");
        ensure_eq!(arena.wait(0, DURABLE, 0)?, highest, "asked for");
    }
    Ok(())
}

fn levels_do_not_disturb_each_other(_: &Options) -> Outcome {
    let arena = committed(9)?;
    let control = Control::map(&arena)?;
    arena.acknowledge(8, REPLICATED)?;
    arena.acknowledge(4, DURABLE)?;
    let said = control.read();
    ensure_eq!(
        (said.epoch, said.durable, said.replicated, said.pending),
        (9, 4, 8, 0),
        "the control page"
    );
    ensure_eq!(arena.wait(0, REPLICATED, 0)?, 8, "replicated");
    ensure_eq!(arena.wait(0, COMMITTED, 0)?, 9, "committed");
    Ok(())
}

fn what_was_not_committed_cannot_be_acknowledged(_: &Options) -> Outcome {
    let arena = committed(2)?;
    for epoch in [3, u64::MAX] {
        ensure_eq!(
            arena.acknowledge(epoch, DURABLE),
            Err(Errno::ERANGE),
            "of {epoch}"
        );
    }
    ensure_eq!(arena.wait(0, DURABLE, 0)?, 0, "durable");
    Ok(())
}

fn a_read_only_descriptor_acknowledges_nothing(_: &Options) -> Outcome {
    let arena = committed(2)?;
    let reader = Device::open()?.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    ensure_eq!(
        reader.acknowledge(1, DURABLE),
        Err(Errno::EBADF),
        "an acknowledgement"
    );
    ensure_eq!(reader.wait(2, COMMITTED, 0)?, 2, "a wait");
    Ok(())
}

fn levels_that_are_none_are_refused(_: &Options) -> Outcome {
    let arena = committed(2)?;
    ensure_eq!(
        arena.acknowledge(1, COMMITTED),
        Err(Errno::EINVAL),
        "COMMITTED acknowledged"
    );
    for level in [3, u32::MAX] {
        ensure_eq!(
            arena.acknowledge(1, level),
            Err(Errno::EINVAL),
            "level {level} acknowledged"
        );
        ensure_eq!(
            arena.wait(1, level, 0),
            Err(Errno::EINVAL),
            "level {level} waited for"
        );
    }
    Ok(())
}

fn a_wait_for_what_has_come_returns_at_once(_: &Options) -> Outcome {
    let arena = committed(5)?;
    arena.acknowledge(4, DURABLE)?;
    let forever = abi::CKPT_WAIT_FOREVER;
    ensure_eq!(arena.wait(4, DURABLE, forever)?, 4, "durable");
    ensure_eq!(
        arena.wait(1, DURABLE, forever)?,
        4,
        "durable, an earlier one"
    );
    ensure_eq!(arena.wait(5, COMMITTED, forever)?, 5, "committed");
    Ok(())
}

fn a_wait_without_time_only_asks(_: &Options) -> Outcome {
    let arena = committed(5)?;
    let late = Err(Errno::ETIMEDOUT);
    ensure_eq!(arena.wait(1, DURABLE, 0), late, "durable");
    ensure_eq!(arena.wait(6, COMMITTED, 0), late, "the next commit");
    Ok(())
}

fn a_wait_ends_with_its_time(_: &Options) -> Outcome {
    let arena = committed(1)?;
    let begun = Instant::now();
    let waited = arena.wait(1, DURABLE, 30_000_000);
    ensure_eq!(waited, Err(Errno::ETIMEDOUT), "the wait");
    ensure!(
        begun.elapsed() >= Duration::from_millis(30),
        "it took {:?}",
        begun.elapsed()
    );
    Ok(())
}

extern "C" fn heard(_: libc::c_int) {}

fn a_signal_ends_a_wait(_: &Options) -> Outcome {
    let arena = committed(1)?;
    for timeout in [abi::CKPT_WAIT_FOREVER, 3_600_000_000_000] {
        with_peer(
            |link| {
                // SAFETY: the handler does nothing.
                unsafe { signal(Signal::SIGUSR1, SigHandler::Handler(heard)) }?;
                link.send_number(0)?;
                ensure_eq!(
                    arena.wait(1, DURABLE, timeout),
                    Err(Errno::EINTR),
                    "the wait"
                );
                link.send_number(1)?;
                Ok(())
            },
            |peer| {
                peer.link.receive_number()?;
                // One that comes before the wait begins does not end it, so there are many.
                while crate::consumers::events(&peer.link, 5)?.is_empty() {
                    kill(peer.pid(), Signal::SIGUSR1)?;
                }
                ensure_eq!(peer.link.receive_number()?, 1, "what the peer says");
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn a_wait_ends_when_another_process_acknowledges(_: &Options) -> Outcome {
    let arena = committed(200)?;
    with_peer(
        |link| {
            for epoch in 1..=200 {
                let reached = arena.wait(epoch, REPLICATED, abi::CKPT_WAIT_FOREVER)?;
                ensure!(reached >= epoch, "{reached} reached, {epoch} waited for");
            }
            link.send_number(1)?;
            Ok(())
        },
        |peer| {
            for epoch in 1..=200 {
                arena.acknowledge(epoch, REPLICATED)?;
            }
            ensure_eq!(peer.link.receive_number()?, 1, "what the peer says");
            Ok(())
        },
    )
}

fn a_wait_for_a_commit_ends_with_it(_: &Options) -> Outcome {
    let arena = committed(0)?;
    with_peer(
        |link| {
            for epoch in 1..=200 {
                arena.wait(epoch, COMMITTED, abi::CKPT_WAIT_FOREVER)?;
                link.send_number(epoch)?;
            }
            Ok(())
        },
        |peer| {
            for epoch in 1..=200 {
                arena.commit()?;
                ensure_eq!(peer.link.receive_number()?, epoch, "what the peer saw");
            }
            Ok(())
        },
    )
}
