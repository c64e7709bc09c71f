// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process that stands still, and who started it.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How long all threads of a process may take to stand still.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A process of which no thread runs. It goes on when this is dropped, unless it was ended.
#[derive(Debug)]
pub struct Standstill {
    pid: Pid,
    ended: bool,
}

impl Standstill {
    /// Stops a process, and returns when all of its threads stand still.
    pub fn of(pid: i32) -> io::Result<Standstill> {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP)?;
        let stopped = Standstill { pid, ended: false };
        let deadline = Instant::now() + STOP_MAX;
        while !all_stand_still(pid)? {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // The kernel tells nobody but the parent.
            thread::sleep(Duration::from_micros(200));
        }
        Ok(stopped)
    }

    /// Ends it where it stands.
    pub fn end(mut self) -> io::Result<()> {
        kill(self.pid, Signal::SIGKILL)?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        if !self.ended {
            // It may have been killed meanwhile.
            let _ = kill(self.pid, Signal::SIGCONT);
        }
    }
}

fn all_stand_still(pid: Pid) -> io::Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = match fs::read_to_string(task?.path().join("stat")) {
            Ok(stat) => stat,
            // This thread has ended.
            Err(_) => continue,
        };
        if !matches!(state(&stat), Some('T' | 't' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The state in a line of `/proc/PID/stat`: behind the name, which may have any characters.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The process that started another, and the name of its executable.
pub fn parent_of(pid: i32) -> Option<(i32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    Some((parent, name.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_state_is_found_whatever_the_name() {
        assert_eq!(state("12 (a) R) b) T 1 12"), Some('T'));
        assert_eq!(state("12 (a)"), None);
    }

    #[test]
    fn a_process_stands_still_until_it_goes_on_or_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        assert_eq!(parent_of(pid).unwrap().0, std::process::id() as i32);
        let stopped = Standstill::of(pid).unwrap();
        assert!(all_stand_still(Pid::from_raw(pid)).unwrap());
        drop(stopped);
        let deadline = Instant::now() + Duration::from_secs(20);
        while all_stand_still(Pid::from_raw(pid)).unwrap() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        Standstill::of(pid).unwrap().end().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
