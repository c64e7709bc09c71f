// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The claims about trackers, for those that this machine has.

#[path = "../../tests/library/trackers/mod.rs"]
mod trackers;

use ckptctl::track::Choice;

fn claims_hold(choice: Choice) {
    if let Some(why) = trackers::lacks(choice) {
        trackers::skip(&format!("the claims about {choice:?}"), &why.to_string());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    trackers::try_all(choice, dir.path());
}

#[test]
fn all_claims_hold_for_the_module() {
    claims_hold(Choice::Module);
}

#[test]
fn all_claims_hold_for_pagemap() {
    claims_hold(Choice::Pagemap);
}

#[test]
fn all_claims_hold_for_compare() {
    claims_hold(Choice::Compare);
}
