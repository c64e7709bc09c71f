// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `saving-claims CLAIM DIR`: tries a claim of `claims.rs` or `pulls.rs` with a chain in a folder.

mod claims;
mod pulls;

use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, dir] = &arguments[..] else {
        panic!("usage: saving-claims CLAIM DIR")
    };
    let all = claims::ANYWHERE.iter().chain(claims::PREPARED);
    let all = all.chain(pulls::MODULE);
    let claim = all.into_iter().find(|(claim, _)| claim == name);
    let (_, claim) = claim.unwrap_or_else(|| panic!("there is no claim {name}"));
    claim(Path::new(dir));
}
