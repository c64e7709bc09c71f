// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tool prints, to the letter, and how it exits.

#[test]
fn the_tool_prints_what_the_snapshots_say() {
    trycmd::TestCases::new()
        .default_bin_name("ckptctl")
        .case("tests/command_line/*.trycmd");
}
