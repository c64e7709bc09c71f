// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pipes as files. The standard library's own are newer than our oldest compiler.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// The end that is read and the end that is written.
pub fn pipe() -> Result<(File, File), Errno> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((File::from(reader), File::from(writer)))
}
