// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `saving-claims CLAIM DIR`: tries a claim of the files here with a chain in a folder.
//! `saving-claims trackers DIR`: tries those about the tracker that CKPT_TRACKER names.

mod adopted_rollbacks;
mod adopted_warm;
mod adopting;
mod claims;
mod following;
mod pulls;
mod refused_memory;
mod rollbacks;
mod safe_points;
mod spared;
mod takeovers;
mod trackers;
mod warm;

use std::path::Path;

use ckptctl::track::Choice;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, dir] = &arguments[..] else {
        panic!("usage: saving-claims CLAIM DIR")
    };
    if name == "trackers" {
        let choice = Choice::from_environment().unwrap_or_else(|error| panic!("{error}"));
        return trackers::try_all(choice, Path::new(dir));
    }
    let all = claims::ANYWHERE.iter().chain(claims::PREPARED);
    let all = all.chain(pulls::MODULE).chain(following::MODULE);
    let all = all.chain(safe_points::ANYWHERE);
    let all = all.chain(adopting::ANYWHERE);
    let all = all.chain(adopted_rollbacks::ANYWHERE);
    let all = all.chain(adopted_warm::ANYWHERE);
    let all = all.chain(rollbacks::ANYWHERE).chain(warm::PROGRAMS);
    let all = all.chain(takeovers::MODULE).chain(takeovers::WITHOUT);
    let claim = all.into_iter().find(|(claim, _)| claim == name);
    let (_, claim) = claim.unwrap_or_else(|| panic!("there is no claim {name}"));
    claim(Path::new(dir));
}
