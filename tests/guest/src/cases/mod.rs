// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The claims, a file per subject.

use std::time::Duration;
use std::time::Instant;

use crate::device::Device;
use crate::device::name_of;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::runner::Test;

mod access;
mod acknowledge;
mod adaptive;
mod advice;
mod arguments;
mod commit;
mod create;
mod delta;
mod dma;
mod dump;
mod first_touch;
mod frozen;
mod fuzz;
mod fuzz_processes;
mod gather;
mod info;
mod limits;
mod list;
mod map;
mod memcg;
mod module;
mod open;
mod poll;
mod pread;
mod quiet;
mod request;
mod reserve;
mod shadow;
mod sharing;
mod snapshot;
mod sparse;
mod starved;
mod stats;
mod subscribe;
mod takeover;
mod threads;
mod version;
mod views;
mod writes;

/// Every test, in the order in which they run.
pub fn all() -> Vec<&'static Test> {
    [
        version::TESTS,
        arguments::TESTS,
        create::TESTS,
        open::TESTS,
        list::TESTS,
        info::TESTS,
        commit::TESTS,
        delta::TESTS,
        stats::TESTS,
        poll::TESTS,
        pread::TESTS,
        map::TESTS,
        writes::TESTS,
        advice::TESTS,
        sparse::TESTS,
        sharing::TESTS,
        access::TESTS,
        reserve::TESTS,
        limits::TESTS,
        adaptive::TESTS,
        snapshot::TESTS,
        gather::TESTS,
        frozen::TESTS,
        dump::TESTS,
        dma::TESTS,
        memcg::TESTS,
        request::TESTS,
        acknowledge::TESTS,
        subscribe::TESTS,
        quiet::TESTS,
        takeover::TESTS,
        fuzz::TESTS,
        fuzz_processes::TESTS,
        first_touch::TESTS,
        starved::TESTS,
        threads::TESTS,
        views::TESTS,
        shadow::TESTS,
        module::TESTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Fails when a test left an arena behind.
///
/// The last reference of an arena may be dropped by a kernel thread shortly
/// after the process is gone, so what is there is looked at again for a while.
pub fn leftovers() -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let arenas = Device::open()?.list()?;
        if arenas.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let names: Vec<_> = arenas
                .iter()
                .map(|info| format!("{} ({})", info.id, name_of(&info.name)))
                .collect();
            return Err(Failure::Failed(format!(
                "arenas left behind: {}",
                names.join(", ")
            )));
        }
        std::thread::yield_now();
    }
}
