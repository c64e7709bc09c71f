// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of the kernel module, run as root in the test VM.
//!
//! Every sentence of `include/uapi/ckpt.h` that says what happens is a claim,
//! and has a test here that fails when it does not happen. `cases` holds the
//! claims, a file per subject; `oracle` the random operations that are compared
//! with a model; the rest is what both need.

#[path = "../../../ckptctl/src/sys/abi.rs"]
mod abi;
mod arena;
mod cases;
mod cgroup;
mod consumers;
mod cpus;
mod credentials;
mod device;
mod failure;
mod famine;
mod ioctl;
mod ktap;
mod mapping;
mod meminfo;
mod options;
mod oracle;
mod pipe;
mod process;
mod rng;
mod runner;
mod scratch;
mod setting;
mod slow_disk;
mod snapshot;
mod starvation;
mod userfault;
mod watched;
mod write_protect;
mod writer;

use std::process::ExitCode;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use device::Device;
use failure::Failure;
use options::Options;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1), seed_of_the_clock()) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("ckpt-guest-tests: {message}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    if options.help {
        print!("{}", options::USAGE);
        return ExitCode::SUCCESS;
    }
    let tests: Vec<_> = cases::all()
        .into_iter()
        .filter(|test| options.wants(test.name()))
        .collect();
    if options.list {
        for test in &tests {
            println!("{}", test.name());
        }
        return ExitCode::SUCCESS;
    }
    if tests.is_empty() {
        eprintln!("ckpt-guest-tests: no test matches; --list prints their names");
        return ExitCode::from(2);
    }
    // Without it every single test would fail, with the same words.
    if let Err(Failure::Failed(reason) | Failure::Skipped(reason)) = Device::open() {
        println!("Bail out! {reason}");
        return ExitCode::FAILURE;
    }
    let totals = runner::run_all(&tests, &options, cases::leftovers);
    ExitCode::from(u8::from(totals.failed > 0))
}

fn seed_of_the_clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64)
}
