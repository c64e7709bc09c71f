// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A descriptor that is readable while something is there.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;

use super::gate::Call;
use super::gate::call;

/// A descriptor for poll(2) and its kin, which is readable from `set` to `clear`.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// A new one, not readable.
    pub fn new() -> io::Result<Event> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = call(Call::Event, || {
            EventFd::from_value_and_flags(0, flags).map_err(io::Error::from)
        });
        event.map(Event)
    }

    /// Makes it readable, if it is not.
    pub fn set(&self) {
        // It fails only when the counter is as high as it can be, and it is readable then.
        let _ = self.0.write(1);
    }

    /// Makes it unreadable, if it is not.
    pub fn clear(&self) {
        // It fails only when there is nothing to be read.
        let _ = self.0.read();
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of some descriptors is readable, or closed at its other end, and tells which:
/// the first of those that are. `None` when the time is over.
pub fn first_readable(
    fds: &[BorrowedFd<'_>],
    within: Option<Duration>,
) -> io::Result<Option<usize>> {
    let deadline = within.map(|within| Instant::now() + within);
    let mut fds: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Up to the next millisecond, so that the last round does not spin.
            let left = left.saturating_add(Duration::from_micros(999));
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(fds.iter().position(|fd| fd.any().unwrap_or(true))),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_readable_is_told() {
        let events = [(); 3].map(|()| Event::new().unwrap());
        events[1].set();
        events[2].set();
        let fds = [&events[0], &events[1], &events[2]].map(Event::as_fd);
        assert_eq!(first_readable(&fds, None).unwrap(), Some(1));
    }

    #[test]
    fn waiting_ends_with_its_time() {
        let event = Event::new().unwrap();
        let within = Some(Duration::from_millis(1));
        assert_eq!(first_readable(&[event.as_fd()], within).unwrap(), None);
    }
}
