// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CRIU: a pre-dump that begins to track, and dumps of what changed since the one before. How
//! long the program was frozen is from CRIU's own statistics.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::Means;
use super::Took;

/// The program, running by itself, and the images of it.
pub struct Criu {
    program: Child,
    folder: PathBuf,
    images: u32,
}

impl Criu {
    pub fn new(folder: &Path) -> Result<Criu> {
        loopback_up()
            .context("bringing the loopback device up, which CRIU asks the kernel through")?;
        let folder = folder.join("criu");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let program = Command::new("setsid")
            .arg(std::env::current_exe()?)
            .arg("program")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the program")?;
        let mut criu = Criu {
            program,
            folder,
            images: 0,
        };
        criu.await_done("ready")?;
        criu.dump("pre-dump", &[])?;
        Ok(criu)
    }

    fn await_done(&mut self, what: &str) -> Result<()> {
        let path = self.folder.join("done");
        loop {
            if fs::read_to_string(&path).is_ok_and(|done| done == what) {
                return Ok(());
            }
            if let Some(status) = self.program.try_wait()? {
                bail!("the program ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes the next images. Returns their folder.
    fn dump(&mut self, verb: &str, more: &[&str]) -> Result<PathBuf> {
        let images = self.folder.join(self.images.to_string());
        fs::create_dir(&images)?;
        let mut command = Command::new("criu");
        command.args([verb, "--track-mem", "-v1", "--tree"]);
        command
            .arg(self.program.id().to_string())
            .arg("--images-dir")
            .arg(&images);
        if self.images != 0 {
            command
                .arg("--prev-images-dir")
                .arg(format!("../{}", self.images - 1));
        }
        let output = command.args(more).output().context("running criu")?;
        if !output.status.success() {
            bail!(
                "criu {verb} failed: {}{}",
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        self.images += 1;
        Ok(images)
    }
}

impl Means for Criu {
    fn checkpoint(&mut self, changed: usize, seed: u64) -> Result<Took> {
        fs::write(self.folder.join("orders"), format!("{changed} {seed}"))?;
        kill(Pid::from_raw(self.program.id() as i32), Signal::SIGUSR1)?;
        self.await_done(&seed.to_string())?;
        let begun = Instant::now();
        let images = self.dump("dump", &["--leave-running", "--network-lock", "skip"])?;
        // CRIU does not do that; the others' totals have it.
        nix::unistd::sync();
        let total = begun.elapsed();
        let stats = fs::read(images.join("stats-dump")).context("reading stats-dump")?;
        let frozen = frozen_microseconds(&stats).context("stats-dump has no frozen_time")?;
        let mut written = 0;
        for entry in fs::read_dir(&images)? {
            written += entry?.metadata()?.len();
        }
        Ok(Took {
            pause: Duration::from_micros(frozen),
            total,
            written,
        })
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// What `ip link set lo up` does.
fn loopback_up() -> Result<()> {
    nix::ioctl_write_ptr_bad!(set_flags, nix::libc::SIOCSIFFLAGS, nix::libc::ifreq);
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: Integers and arrays of them, for which zero is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as nix::libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (nix::libc::IFF_UP | nix::libc::IFF_RUNNING) as i16;
    // SAFETY: The structure is the call's.
    unsafe { set_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}

/// `frozen_time` of a stats-dump image: two magics, a length, and a message whose field 1, the
/// statistics of a dump, has it as its field 2.
fn frozen_microseconds(image: &[u8]) -> Option<u64> {
    let (entry, _) = field(image.get(12..)?, 1)?;
    field(entry, 2)?.1
}

/// A field of a protocol buffer: its bytes, or its number.
fn field(mut message: &[u8], wanted: u64) -> Option<(&[u8], Option<u64>)> {
    loop {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => (&message[..0], Some(varint(&mut message)?)),
            2 => {
                let len = varint(&mut message)? as usize;
                let (value, rest) = message.split_at_checked(len)?;
                message = rest;
                (value, None)
            }
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(value);
        }
    }
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frozen_time_is_found() {
        // freezing_time 5, frozen_time 300, in a dump of 5 bytes.
        let image = [&[0; 12][..], &[0x0a, 5, 0x08, 5, 0x10, 0xac, 0x02]].concat();
        assert_eq!(frozen_microseconds(&image), Some(300));
        assert_eq!(frozen_microseconds(&image[..17]), None);
        assert_eq!(frozen_microseconds(&[]), None);
    }
}
