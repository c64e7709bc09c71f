// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A descriptor that is readable while something is there.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

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
