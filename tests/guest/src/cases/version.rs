// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CKPT_IOC_VERSION.

use nix::errno::Errno;

use crate::abi;
use crate::device::Device;
use crate::device::PAGE;
use crate::device::create_request;
use crate::ensure;
use crate::ensure_eq;
use crate::failure::Outcome;
use crate::options::Options;
use crate::runner::Test;
use crate::tests;

/// The claims of this file.
pub const TESTS: &[Test] = tests![
    the_module_speaks_this_abi,
    the_release_is_a_printable_string,
    an_arena_of_the_largest_size_can_be_made_and_none_above,
    what_comes_in_the_output_fields_does_not_matter,
];

fn the_module_speaks_this_abi(_: &Options) -> Outcome {
    let version = Device::open()?.version()?;
    ensure_eq!(version.abi_version, abi::CKPT_ABI_VERSION, "abi_version");
    ensure_eq!(1_usize << version.page_shift, PAGE, "page size");
    ensure!(
        version.trackers & abi::CKPT_TRACKER_ARMED != 0,
        "trackers {:#x} lacks ARMED",
        version.trackers
    );
    ensure!(
        version.arena_max_bytes <= abi::CKPT_ARENA_MAX_BYTES,
        "arena_max_bytes {} is above the ABI's limit",
        version.arena_max_bytes
    );
    Ok(())
}

fn the_release_is_a_printable_string(_: &Options) -> Outcome {
    let version = Device::open()?.version()?;
    let end = version.release.iter().position(|byte| *byte == 0);
    ensure!(end.is_some(), "no NUL in release");
    let text = &version.release[..end.unwrap_or(0)];
    ensure!(!text.is_empty(), "release is empty");
    ensure!(
        text.iter().all(|byte| byte.is_ascii_graphic()),
        "release {text:?}"
    );
    Ok(())
}

fn an_arena_of_the_largest_size_can_be_made_and_none_above(_: &Options) -> Outcome {
    let device = Device::open()?;
    let largest = device.version()?.arena_max_bytes / PAGE as u64;
    ensure_eq!(
        device.create("largest", largest)?.info()?.len_bytes,
        largest * PAGE as u64,
        "size"
    );
    let above = device.create_with(&mut create_request("above", largest + 1));
    ensure_eq!(above.err(), Some(Errno::EINVAL), "one page above");
    Ok(())
}

fn what_comes_in_the_output_fields_does_not_matter(_: &Options) -> Outcome {
    let device = Device::open()?;
    let mut version = abi::ckpt_version {
        size: size_of::<abi::ckpt_version>() as u32,
        abi_version: u32::MAX,
        trackers: u32::MAX,
        page_shift: u32::MAX,
        arena_max_bytes: u64::MAX,
        release: [0xff; 32],
    };
    crate::ioctl::call(&device, abi::CKPT_IOC_VERSION, &mut version)?;
    let clean = device.version()?;
    ensure_eq!(version.release, clean.release, "release, with its tail");
    ensure_eq!(version.trackers, clean.trackers, "trackers");
    Ok(())
}
