// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl commit` and a program that answers, without the module.

use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::store::Chain;
use ckptctl::track::Choice;

/// A program with a page of state.
fn program(chain: &Path) -> Context {
    let options = Options::new()
        .dir(chain)
        .name("asked")
        .base(0x1100_0000_0000);
    let options = options.arena_bytes(1 << 30).no_code_pointers();
    let context = Context::open(options.tracker(Choice::Compare)).unwrap();
    let region = RegionSpec {
        name: "state",
        kind: 0,
        len_bytes: 4096,
        reserve_bytes: 0,
    };
    context.region(&region).unwrap();
    context
}

fn ask(arguments: &[&str], chain: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    command.arg("commit").args(arguments).arg(chain);
    command.output().unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// One test: the arena's address is taken while another one has it.
#[test]
fn a_program_that_looks_answers_and_one_that_does_not_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let chain = dir.path().join("chain");
    let context = program(&chain);

    // Nobody looks.
    let asked = ask(&["--wait", "--timeout", "50ms"], &chain);
    assert_eq!(asked.status.code(), Some(1));
    let told = words(&asked.stderr);
    assert!(told.contains("made no commit within 50.0 ms"), "{told}");
    assert!(told.contains("none yet"), "{told}");
    assert!(context.pending(), "the request stays");
    assert_ne!(
        context.pending_word().load(Ordering::Relaxed),
        0,
        "the word"
    );
    let epoch = context.commit_sync().unwrap().epoch;
    assert!(!context.pending(), "answered by any commit");

    // Without waiting.
    let asked = ask(&[], &chain);
    assert!(asked.status.success(), "{}", words(&asked.stderr));
    assert_eq!(
        words(&asked.stdout),
        format!("asked; the last commit is epoch {epoch}\n")
    );
    assert!(context.pending());
    context.commit_sync().unwrap();

    // Somebody looks.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if context.pending() {
                    context.commit().unwrap();
                }
                thread::yield_now();
            }
        });
        for wait in ["--wait", "--wait=durable", "--wait=closed"] {
            let before = context.epoch().unwrap().unwrap();
            let asked = ask(&[wait, "--timeout", "60s", "--json"], &chain);
            assert!(asked.status.success(), "{}", words(&asked.stderr));
            let told: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
            assert!(told["epoch"].as_u64().unwrap() > before, "{told}");
            assert_eq!(told["after"].as_u64(), Some(before), "{told}");
            if wait != "--wait=closed" {
                let newest = Chain::open(&chain)
                    .unwrap()
                    .newest()
                    .unwrap()
                    .unwrap()
                    .epoch;
                assert!(newest > before, "{newest} is durable");
            }
        }
        let asked = ask(&["--wait=replicated", "--timeout", "50ms"], &chain);
        assert!(words(&asked.stderr).contains("no spare"), "{asked:?}");
        stop.store(true, Ordering::Relaxed);
    });
    context.close().unwrap();

    // Nobody is there, any more or ever.
    let empty = tempfile::tempdir().unwrap();
    for place in [chain.as_path(), empty.path()] {
        let asked = ask(&["--wait"], place);
        assert_eq!(asked.status.code(), Some(1));
        let told = words(&asked.stderr);
        assert!(told.contains("nobody who can be asked runs on"), "{told}");
    }
}
