// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Arenas and core dumps.

use nix::sys::resource::RLIM_INFINITY;
use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
use nix::unistd::fork;

use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::options::Options;
use crate::process::End;
use crate::process::exit_now;
use crate::process::wait_end;
use crate::runner::Test;
use crate::setting::Setting;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![an_arena_is_not_part_of_a_core_dump];

/// A text that is nowhere in memory but where it is put together.
fn mark(last: u8) -> Vec<u8> {
    let mut text: Vec<u8> = b"zbja lqbz znex va gur qhzc"
        .iter()
        .map(|byte| byte.wrapping_add(1))
        .collect();
    text.push(last);
    text
}

fn an_arena_is_not_part_of_a_core_dump(_: &Options) -> Outcome {
    let pattern = format!("/tmp/ckpt-core-{}", std::process::id());
    let path = |child| format!("{pattern}.{child}");
    let _pattern = Setting::new("/proc/sys/kernel/core_pattern", &format!("{pattern}.%p"))?;
    let arena = Device::open()?.create("dumped", 16)?;
    // SAFETY: this process has one thread, so the child may do anything.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let _ = crash_with_marks(&arena);
            exit_now(1)
        }
        ForkResult::Parent { child } => child,
    };
    ensure_eq!(
        wait_end(child)?,
        End::Killed(Signal::SIGABRT),
        "the process"
    );
    let core = match std::fs::read(path(child)) {
        Ok(core) => core,
        Err(error) => return Err(Failure::skip(format!("no core dump was written: {error}"))),
    };
    std::fs::remove_file(path(child))?;
    let has = |text: &[u8]| core.windows(text.len()).any(|part| part == text);
    ensure!(has(&mark(b'p')), "the dump lacks the program's own memory");
    ensure!(!has(&mark(b'a')), "the dump has the arena's memory");
    ensure_eq!(
        arena.pread(3 * PAGE as u64, mark(0).len())?,
        mark(b'a'),
        "the arena's content"
    );
    Ok(())
}

fn crash_with_marks(arena: &crate::arena::Arena) -> Outcome {
    setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)?;
    let map = arena.map_all()?;
    let own = Mapping::anonymous(PAGE)?;
    for (place, offset, last) in [(&map, 3 * PAGE, b'a'), (&own, 0, b'p')] {
        // Byte by byte, and the text is wiped, so that it is left in these places alone.
        let mut text = mark(last);
        for (at, byte) in text.iter().enumerate() {
            place.set(offset + at, *byte);
        }
        text.iter_mut().for_each(|byte| *byte = 0);
        std::hint::black_box(&text);
    }
    std::process::abort()
}
