// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl demo` does what it says.

use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::time::Duration;
use std::time::Instant;

fn demo(args: &[&str], temporary: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    command.arg("demo").args(args).env("TMPDIR", temporary);
    command.output().unwrap()
}

#[test]
fn a_bank_is_killed_restored_and_rolled_back_and_no_coin_is_missing() {
    let temporary = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let output = demo(&[], temporary.path());
    let told = String::from_utf8(output.stdout).unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}{words}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    for claim in [
        "epoch 4 saved, ",
        ": 109 transfers, 1,999,",
        "restored epoch 4: 100 transfers, 2,000,000 coins",
        "restored epoch 7: 150 transfers, 2,000,000 coins",
        "with a bug's work: 200 transfers, 3,000,000 coins",
        "1 page put right: 200 transfers, 2,000,000 coins",
        "ROLLBACK",
        "different  1 page, 4.0 KiB; 3 bytes in them",
        "damage      none",
    ] {
        assert!(
            told.contains(claim),
            "{claim:?} is missing in\n{told}{words}"
        );
    }
    assert!(!told.contains('\x1b'), "{told}");
    // Nothing that a person would have to look past.
    assert_eq!(words, "");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}

#[test]
fn the_chain_is_kept_for_who_wants_it_and_other_files_are_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = temporary.path().join("kept");
    let kept = kept.to_str().unwrap();
    let output = demo(&["--keep", kept], temporary.path());
    assert!(output.status.success());
    assert!(
        ckptctl::store::Chain::open(kept)
            .unwrap()
            .newest()
            .unwrap()
            .is_some()
    );
    let refused = demo(&["--keep", kept], temporary.path());
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("is not empty"), "{words}");
}
