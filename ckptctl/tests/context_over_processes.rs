// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contexts that are restored in another process than the one that made them.
//!
//! The other process is this program again, told by a variable which part to play.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::ptr::NonNull;
use std::ptr::null_mut;

use ckptctl::Context;
use ckptctl::Error;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::sys::process;
use ckptctl::track::Choice;

/// Which part a process plays, and on which chain.
const PART: &str = "CKPT_TEST_PART";
const CHAIN: &str = "CKPT_TEST_CHAIN";

fn options(dir: &Path) -> Options {
    let options = Options::new().dir(dir).tracker(Choice::Compare);
    options.arena_bytes(1 << 30).base(1 << 44)
}

/// Runs a part in a process of its own.
fn play(part: &str, dir: &Path, fixed_addresses: bool) -> Output {
    play_with(part, dir, fixed_addresses, &[])
}

/// The same, with variables in its environment.
fn play_with(part: &str, dir: &Path, fixed_addresses: bool, env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "stage", "--nocapture", "--include-ignored"]);
    command.env(PART, part).env(CHAIN, dir);
    command
        .env_remove("CKPT_COMMIT")
        .env_remove("CKPT_COMPRESS");
    command.envs(env.iter().copied());
    if fixed_addresses {
        // SAFETY: The closure makes two system calls and nothing else.
        unsafe { command.pre_exec(process::fix_addresses) };
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Where the parts are played. Nothing to do for those who run the tests.
#[test]
#[ignore = "the other tests start it in processes of their own"]
fn stage() {
    let (Ok(part), Some(dir)) = (std::env::var(PART), std::env::var_os(CHAIN)) else {
        return;
    };
    let dir = Path::new(&dir);
    match part.as_str() {
        "heap" => heap(dir),
        "commit" => {
            let context = Context::open(options(dir)).unwrap_or_else(|error| panic!("{error}"));
            let report = context.commit().unwrap();
            println!("restored {:?}", context.restored_epoch());
            println!("committed {}", report.epoch);
            println!("durable {}", u8::from(report.durable));
        }
        other => panic!("no part {other}"),
    }
}

/// A block of the heap. All blocks are a list, which begins at the root.
#[repr(C)]
struct Block {
    next: *mut Block,
    /// Bytes in all.
    len: usize,
    /// What those behind this structure are filled with.
    byte: u8,
}

/// A reproducible sequence of numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

fn fill(block: *mut Block, len: usize, byte: u8) {
    let head = size_of::<Block>();
    // SAFETY: The block has `len` bytes, more than its head takes.
    unsafe {
        (*block).len = len;
        (*block).byte = byte;
        block.cast::<u8>().add(head).write_bytes(byte, len - head);
    }
}

/// Whether a block is as it was filled, in its first `len` bytes.
fn check(block: *mut Block, len: usize) {
    let head = size_of::<Block>();
    // SAFETY: The block has so many bytes.
    let (byte, bytes) = unsafe {
        let start = block.cast::<u8>().add(head);
        ((*block).byte, std::slice::from_raw_parts(start, len - head))
    };
    let whole = bytes.iter().all(|&other| other == byte);
    assert!(
        whole,
        "the block at {block:p} of {len} bytes was overwritten"
    );
}

fn check_all(blocks: &[*mut Block]) {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for &block in blocks {
        // SAFETY: Blocks of the list are live.
        let len = unsafe { (*block).len };
        check(block, len);
        places.push((block.addr(), len));
    }
    places.sort_unstable();
    let apart = places.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0);
    assert!(apart, "blocks overlap");
}

/// Examines the list, changes it in tens of thousands of steps, and commits it.
fn heap(dir: &Path) {
    let context = Context::open(options(dir).no_code_pointers()).unwrap();
    let mut blocks = Vec::new();
    let root = context.root().unwrap();
    let mut next = root.map_or(null_mut(), |root| root.cast::<Block>().as_ptr());
    while !next.is_null() {
        blocks.push(next);
        // SAFETY: Blocks of the list are live.
        next = unsafe { (*next).next };
    }
    check_all(&blocks);
    println!("found {}", blocks.len());

    let mut rng = Rng(context.restored_epoch().unwrap_or(0) + 1);
    let head = size_of::<Block>();
    for _ in 0..20_000 {
        let len = head
            + if rng.below(50) == 0 {
                rng.below(100_000)
            } else {
                rng.below(400)
            };
        let byte = rng.below(256) as u8;
        let any = rng.below(blocks.len().max(1));
        match rng.below(4) {
            0 | 1 => {
                let block = context.allocate(len, 16).unwrap().cast().as_ptr();
                fill(block, len, byte);
                blocks.push(block);
            }
            2 if !blocks.is_empty() => {
                let block = blocks.swap_remove(any);
                // SAFETY: It is live until it is freed.
                check(block, unsafe { (*block).len });
                context.free(NonNull::new(block).unwrap().cast()).unwrap();
            }
            3 if !blocks.is_empty() => {
                // SAFETY: It is live.
                let old = unsafe { (*blocks[any]).len };
                let block = NonNull::new(blocks[any]).unwrap().cast();
                let block = context.reallocate(block, len).unwrap().cast().as_ptr();
                check(block, old.min(len));
                fill(block, len, byte);
                blocks[any] = block;
            }
            _ => {}
        }
    }
    check_all(&blocks);
    let mut next = null_mut();
    for &block in &blocks {
        // SAFETY: It is live.
        unsafe { (*block).next = next };
        next = block;
    }
    context
        .set_root(NonNull::new(next).map(NonNull::cast))
        .unwrap();
    context.commit().unwrap();
    println!("left {}", blocks.len());
}

/// The number behind a word that a part printed.
fn number(output: &Output, word: &str) -> u64 {
    let text = text(output);
    let found = text.lines().find_map(|line| line.strip_prefix(word));
    let found = found.unwrap_or_else(|| panic!("no {word} in: {text}"));
    found.trim().parse().unwrap()
}

#[test]
fn a_heap_goes_on_in_new_processes_at_other_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let mut left = 0;
    for _ in 0..5 {
        let output = play("heap", dir.path(), false);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(number(&output, "found"), left);
        left = number(&output, "left");
    }
    assert!(left > 1000, "{left} blocks");
}

#[test]
fn other_addresses_are_refused_unless_the_layout_is_stable() {
    let dir = tempfile::tempdir().unwrap();
    for epoch in [1, 3] {
        let output = play("commit", dir.path(), true);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(number(&output, "committed"), epoch);
    }
    if !process::addresses_are_random() {
        return;
    }
    let output = play("commit", dir.path(), false);
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("at other addresses") && text.contains("`ckptctl run`"),
        "{text}"
    );
}

#[test]
fn the_environment_says_when_commits_return_and_how_pages_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let commit = |saying: &[(&str, &str)]| play_with("commit", dir.path(), true, saying);
    for (saying, durable) in [("", 0), ("async", 0), ("sync", 1)] {
        let output = commit(&[("CKPT_COMMIT", saying)]);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(number(&output, "durable"), durable, "{saying}");
    }
    let output = commit(&[("CKPT_COMPRESS", "zstd:7")]);
    assert!(output.status.success(), "{}", text(&output));
    let output = commit(&[("CKPT_COMPRESS", "zip")]);
    assert!(!output.status.success());
    let told = text(&output);
    assert!(told.contains("CKPT_COMPRESS=zip: it can be lz4"), "{told}");
    let output = commit(&[("CKPT_COMMIT", "perhaps")]);
    assert!(!output.status.success());
    let told = text(&output);
    assert!(
        told.contains("CKPT_COMMIT=perhaps: it can be sync or async"),
        "{told}"
    );
}

#[test]
fn a_forked_child_is_refused_and_the_parent_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let context = Context::open(options(dir.path()).base(1 << 45)).unwrap();
    let block = context.allocate(100, 16).unwrap();
    context.commit().unwrap();
    let spec = RegionSpec {
        name: "r",
        kind: 1,
        len_bytes: 4096,
        reserve_bytes: 0,
    };
    // SAFETY: The child uses what this thread has, and ends without running anything else.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let refused = [
                context.commit().err(),
                context.commit_sync().err(),
                context.wait(0, None).err(),
                context.durable().err(),
                context.stats().err(),
                context.region(&spec).err(),
                context.allocate(1, 16).err(),
                context.free(block).err(),
                context.root().err(),
                context.epoch().err(),
            ];
            let all = refused
                .iter()
                .all(|error| matches!(error, Some(Error::Forked { .. })));
            // The thread that would have to end first is not here.
            let closed = matches!(context.clone().close(), Err(Error::Forked { .. }));
            drop(context);
            // SAFETY: Ends the child.
            unsafe { nix::libc::_exit(i32::from(!all || !closed)) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let ended = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    context.free(block).unwrap();
    assert_eq!(context.commit().unwrap().epoch, 2);
    context.close().unwrap();
}
