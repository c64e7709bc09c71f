// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reaching the kernel module, and saying what to do when it cannot be reached.

use std::io;

use ckptctl::sys::device::Device;
use nix::libc;

use super::exit::Unsupported;

/// How to get the module.
pub const LOAD_IT: &str = "load the module (make kmod && insmod target/kmod/ckpt.ko)";

/// How to get at the node.
pub const JOIN_GROUP: &str = "run as root, or add the user to the group ckpt (usermod -aG ckpt USER) and log in again; the \
     udev rule of `make install` gives the node to that group";

/// Opens the device for a verb that cannot do without; `otherwise` is what to do instead, as
/// the rest of a sentence.
pub fn open(otherwise: &str) -> Result<Device, Unsupported> {
    Device::open().map_err(|error| Unsupported(format!("{}{otherwise}", why_not(&error))))
}

/// Why the device could not be opened and what to do.
pub fn why_not(error: &io::Error) -> String {
    if is_missing(error) {
        format!("no /dev/ckpt: {LOAD_IT}")
    } else {
        format!("cannot open /dev/ckpt: {error}; {JOIN_GROUP}")
    }
}

/// True when there is no module, false when it keeps this user out.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)
    )
}
