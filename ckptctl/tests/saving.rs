// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commits that are saved while the program goes on, without the module.

#[path = "../../tests/library/adopted_rollbacks.rs"]
mod adopted_rollbacks;
#[path = "../../tests/library/adopted_warm.rs"]
mod adopted_warm;
#[path = "../../tests/library/adopting.rs"]
mod adopting;
#[path = "../../tests/library/claims.rs"]
mod claims;
#[path = "../../tests/library/refused_memory.rs"]
mod refused_memory;
#[path = "../../tests/library/rollbacks.rs"]
mod rollbacks;
#[path = "../../tests/library/safe_points.rs"]
mod safe_points;

use std::io::Write;
use std::path::Path;
use std::process::Command;

const CLAIM: &str = "CKPT_TEST_CLAIM";
const DIR: &str = "CKPT_TEST_DIR";

fn all() -> impl Iterator<Item = &'static claims::Claim> {
    let all = claims::ANYWHERE.iter().chain(safe_points::ANYWHERE);
    let all = all.chain(adopting::ANYWHERE);
    let all = all.chain(adopted_rollbacks::ANYWHERE);
    let all = all.chain(adopted_warm::ANYWHERE);
    all.chain(rollbacks::ANYWHERE)
}

/// Where a claim is tried, in a process of its own: some change its limits or fork.
#[test]
#[ignore = "the other test starts it in processes of their own"]
fn stage() {
    let (Ok(name), Some(dir)) = (std::env::var(CLAIM), std::env::var_os(DIR)) else {
        return;
    };
    let claim = all().find(|(claim, _)| *claim == name);
    claim.unwrap().1(dir.as_ref());
}

#[test]
fn every_claim_that_needs_no_preparation_holds_for_compare() {
    claims_hold("compare");
}

#[test]
fn every_claim_that_needs_no_preparation_holds_for_pagemap() {
    if let Err(why) = ckptctl::track::try_pagemap() {
        // Not held back by the harness.
        let _ = writeln!(std::io::stderr(), "skipped: saving over pagemap: {why}");
        return;
    }
    claims_hold("pagemap");
}

fn claims_hold(tracker: &str) {
    assert!(claims::PREPARED.len() + claims::ANYWHERE.len() >= 7);
    // Some start programs under the tool.
    let tool = Path::new(env!("CARGO_BIN_EXE_ckptctl")).parent().unwrap();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(tool.to_owned()).chain(std::env::split_paths(&others));
    let path = std::env::join_paths(path).unwrap();
    for (name, _) in all() {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stage", "--nocapture", "--include-ignored"])
            .env(CLAIM, name)
            .env(DIR, dir.path())
            .env("CKPT_TRACKER", tracker)
            .env("PATH", &path)
            .output()
            .unwrap();
        let told = [output.stdout.as_slice(), &output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "{name} over {tracker}: {told}"
        );
    }
}
