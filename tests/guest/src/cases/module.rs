// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Unloading and loading the module. These run last: they take it away from
//! everybody else.

use std::ffi::CString;
use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::DeleteModuleFlags;
use nix::kmod::ModuleInitFlags;
use nix::kmod::delete_module;
use nix::kmod::finit_module;

use crate::abi;
use crate::arena::Arena;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::meminfo::available_bytes;
use crate::options::Options;
use crate::process::Link;
use crate::process::Peer;
use crate::runner::Test;
use crate::tests;
use crate::userfault::StoppingPage;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    the_module_is_not_unloaded_while_the_device_is_open,
    the_module_is_not_unloaded_while_an_arena_is_open,
    the_module_is_not_unloaded_while_an_arena_is_mapped,
    the_module_is_not_unloaded_while_an_arena_is_in_a_message,
    the_module_is_not_unloaded_while_another_process_holds_an_arena,
    the_unloaded_module_leaves_nothing_behind,
    the_module_may_be_unloaded_while_a_page_of_a_freed_arena_is_pinned,
    loading_and_unloading_leaves_no_memory_behind,
    a_module_loaded_again_is_a_new_one,
];

const NAME: &str = "ckpt";

fn unload() -> Result<(), Errno> {
    // NAME has no NUL inside.
    let name = CString::new(NAME).map_err(|_| Errno::EINVAL)?;
    delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
}

fn load(options: &Options) -> Outcome {
    let file = File::open(&options.module)?;
    finit_module(&file, c"", ModuleInitFlags::empty())?;
    // The node is made by a kernel thread; the call may return before it is there.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !Path::new("/dev/ckpt").exists() {
        ensure!(
            std::time::Instant::now() < deadline,
            "no /dev/ckpt after loading the module"
        );
        std::thread::yield_now();
    }
    // There is no udev in the test VM, but a program that does its part.
    match std::process::Command::new("ckpt-node-permissions").status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        status => {
            ensure!(status?.success(), "ckpt-node-permissions failed");
            Ok(())
        }
    }
}

/// Skips the test where the module could not be loaded again.
fn need_module_file(options: &Options) -> Outcome {
    if options.module.exists() {
        return Ok(());
    }
    let shown = options.module.display();
    Err(Failure::skip(format!(
        "no {shown} to load again; --module names another"
    )))
}

/// Loads the module again when it is dropped, should a test have failed without it.
struct Restore<'a>(&'a Options);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        if !Path::new("/dev/ckpt").exists() {
            // The tests after this one will tell when it fails.
            let _ = load(self.0);
        }
    }
}

/// Whatever holds the module: unloading is refused, and works when it is dropped.
fn ensure_held_by<T>(options: &Options, holder: T) -> Outcome {
    need_module_file(options)?;
    let _restore = Restore(options);
    let refused = unload();
    ensure!(
        matches!(refused, Err(Errno::EWOULDBLOCK | Errno::EBUSY)),
        "unloading gave {refused:?}"
    );
    drop(holder);
    unload_soon()?;
    load(options)
}

// The last reference may be dropped a moment after the call that gave it up.
fn unload_soon() -> Outcome {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match unload() {
            Err(Errno::EWOULDBLOCK) if std::time::Instant::now() < deadline => {
                std::thread::yield_now();
            }
            result => return Ok(result?),
        }
    }
}

/// An arena, without the device.
fn arena() -> Result<Arena, Failure> {
    let arena = Device::open()?.create("held", 64)?;
    arena.map_all()?.touch(1, 1);
    Ok(arena)
}

fn the_module_is_not_unloaded_while_the_device_is_open(options: &Options) -> Outcome {
    ensure_held_by(options, Device::open()?)
}

fn the_module_is_not_unloaded_while_an_arena_is_open(options: &Options) -> Outcome {
    ensure_held_by(options, arena()?)?;
    let writer = arena()?;
    let watcher = Device::open()?.open_arena(writer.id(), abi::CKPT_OPEN_RDONLY)?;
    drop(writer);
    ensure_held_by(options, watcher)
}

fn the_module_is_not_unloaded_while_an_arena_is_mapped(options: &Options) -> Outcome {
    let map: Mapping = arena()?.map_all()?;
    ensure_eq!(map.get(PAGE), 1, "content behind a mapping alone");
    ensure_held_by(options, map)
}

fn the_module_is_not_unloaded_while_an_arena_is_in_a_message(options: &Options) -> Outcome {
    let (one, other) = Link::pair()?;
    one.send(b"arena", &[std::os::fd::AsFd::as_fd(&arena()?)])?;
    ensure_held_by(options, (one, other))
}

fn the_module_is_not_unloaded_while_another_process_holds_an_arena(options: &Options) -> Outcome {
    struct Holder(Option<Peer>);
    impl Drop for Holder {
        fn drop(&mut self) {
            if let Some(peer) = self.0.take() {
                let _ = peer.kill();
            }
        }
    }
    let peer = Peer::start(|link| {
        let arena = arena()?;
        let map = arena.map_all()?;
        map.touch(2, 2);
        link.send_number(1)?;
        link.receive().map(drop)
    })?;
    peer.link.receive_number()?;
    ensure_held_by(options, Holder(Some(peer)))
}

/// Uses the module in many ways, and lets go of everything.
fn use_it() -> Outcome {
    let device = Device::open()?;
    let arena = device.create("used", 1 << 20)?;
    let watcher = device.open_arena(arena.id(), abi::CKPT_OPEN_RDONLY)?;
    let map = arena.map(5000, 2000)?;
    for page in 0..500 {
        map.touch(page * 4, 1);
    }
    arena.commit()?;
    watcher.delta(0)?;
    map.touch(9, 9);
    drop(map);
    watcher.pread(0, 10_000)?;
    device.list()?;
    Ok(())
}

fn the_unloaded_module_leaves_nothing_behind(options: &Options) -> Outcome {
    need_module_file(options)?;
    let _restore = Restore(options);
    use_it()?;
    unload_soon()?;
    for path in [
        "/dev/ckpt",
        "/sys/module/ckpt",
        "/sys/class/misc/ckpt",
        "/sys/devices/virtual/misc/ckpt",
    ] {
        ensure!(!Path::new(path).exists(), "{path} is still there");
    }
    for table in [
        "/proc/modules",
        "/proc/misc",
        "/proc/devices",
        "/proc/slabinfo",
        "/proc/kallsyms",
    ] {
        let text = match std::fs::read_to_string(table) {
            Ok(text) => text,
            Err(_) => continue,
        };
        let left = text.lines().find(|line| {
            line.split_whitespace()
                .any(|word| word == NAME || word == "[ckpt]" || word.starts_with("ckpt_"))
        });
        ensure!(left.is_none(), "{table} still has: {left:?}");
    }
    load(options)?;
    use_it()
}

// The page goes to whoever pinned it; when it is let go there is no module left to be told.
fn the_module_may_be_unloaded_while_a_page_of_a_freed_arena_is_pinned(
    options: &Options,
) -> Outcome {
    need_module_file(options)?;
    let _restore = Restore(options);
    let source = StoppingPage::new()?;
    let arena = arena()?;
    let map = arena.map_all()?;
    let (from, to) = (source.address(), map.at(3 * PAGE));
    let writer = std::thread::spawn(move || {
        let iovec = |address, iov_len| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(address),
            iov_len,
        };
        // SAFETY: the kernel holds the target's page itself when the mapping is gone.
        let written = unsafe {
            libc::process_vm_writev(libc::getpid(), &iovec(from, 8), 1, &iovec(to, 8), 1, 0)
        };
        Errno::result(written)
    });
    source.wait_for_reader()?;
    drop((map, arena));
    unload_soon()?;
    source.fill(&[1; PAGE])?;
    let written = writer
        .join()
        .map_err(|_| Failure::new("the writer panicked"))?;
    ensure_eq!(written, Ok(8), "bytes written");
    load(options)
}

fn loading_and_unloading_leaves_no_memory_behind(options: &Options) -> Outcome {
    const ROUNDS: u64 = 30;
    // Less than the pages that a round touches, and more than the noise of 30 rounds.
    const PER_ROUND: u64 = 500 * 1024;
    need_module_file(options)?;
    let _restore = Restore(options);
    let round = || -> Outcome {
        use_it()?;
        unload_soon()?;
        load(options)
    };
    for _ in 0..8 {
        round()?;
    }
    let before = available_bytes()?;
    for _ in 0..ROUNDS {
        round()?;
    }
    let lost = before.saturating_sub(available_bytes()?);
    ensure!(
        lost < ROUNDS * PER_ROUND,
        "{lost} bytes less available after {ROUNDS} rounds of loading and unloading"
    );
    Ok(())
}

fn a_module_loaded_again_is_a_new_one(options: &Options) -> Outcome {
    need_module_file(options)?;
    let _restore = Restore(options);
    unload_soon()?;
    load(options)?;
    let device = Device::open()?;
    ensure_eq!(device.list()?.len(), 0, "arenas");
    let arena = device.create("new", 4)?;
    ensure_eq!(arena.commit()?.epoch, 1, "first epoch");
    Ok(())
}
