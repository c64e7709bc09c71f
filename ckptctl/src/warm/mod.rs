// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program under `ckptctl run --warm` or `--watchdog`: its end of the socket to the supervisor.
//!
//! An arena of the module lives as long as somebody has a descriptor of it. The supervisor has
//! one, and when the program dies it gives it to the next, which puts right what has changed since
//! the last durable commit.

mod message;

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::sys::device::ArenaFd;
use crate::sys::handover::Channel;
use crate::sys::handover::Received;
pub use message::Going;
pub use message::Kept;
pub use message::Message;

/// Variable that names the socket.
pub const SUPERVISOR: &str = "CKPT_SUPERVISOR";

/// How long the supervisor may take to let go of an arena.
const DROP_MAX: Duration = Duration::from_secs(2);

/// The supervisor, as the program's first context sees it.
pub(crate) struct Supervisor {
    channel: Channel,
    /// Signs of life are not sent more often; zero for none at all.
    interval: Duration,
    /// When the next may be sent.
    next_sign: Mutex<Option<Instant>>,
}

/// An arena that outlived its program.
pub(crate) struct Survivor {
    pub(crate) fd: OwnedFd,
    pub(crate) kept: Kept,
}

impl Supervisor {
    /// The supervisor, and the arena that it has kept; once in a process.
    pub(crate) fn find() -> Option<(Supervisor, Option<Survivor>)> {
        static FOUND: AtomicBool = AtomicBool::new(false);
        let named = env::var(SUPERVISOR).ok()?.parse().ok()?;
        if FOUND.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: Once in a process; that the program closes descriptors that it does not know
        // before it opens its first context, and another socket of the same number and inode takes
        // the place, is ruled out: inodes are not used again while the supervisor has the socket.
        let channel = unsafe { Channel::of_inherited(named) }.ok()?;
        // Other programs that this one starts by and by do not inherit it: were it of another
        // process than the one that the supervisor looks after, two would share it.
        Some(Supervisor::on(channel))
    }

    fn on(channel: Channel) -> (Supervisor, Option<Survivor>) {
        let mut interval = Duration::ZERO;
        let mut survivor = None;
        // All of it was sent before the program was started.
        while let Ok(Received::Message(bytes, fd)) = channel.receive() {
            match (Message::decode(&bytes), fd) {
                // Several in each period, so that a late one does no harm.
                (Some(Message::Watch(limit)), _) => interval = limit / 4,
                (Some(Message::Take(kept)), Some(fd)) => survivor = Some(Survivor { fd, kept }),
                _ => {}
            }
        }
        let supervisor = Supervisor {
            channel,
            interval,
            next_sign: Mutex::new(None),
        };
        (supervisor, survivor)
    }

    fn send(&self, message: &Message) -> io::Result<()> {
        self.channel.send(&message.encode(), None)
    }

    /// Gives an arena up. Returns when it is gone, as its memory may be needed now.
    pub(crate) fn drop_survivor(&self, survivor: Survivor, why: &str) {
        drop(survivor.fd);
        if self.send(&Message::Drop(why.into())).is_err() {
            return;
        }
        let deadline = Instant::now() + DROP_MAX;
        while let Ok(Received::Message(bytes, _)) =
            (self.channel).receive_within(deadline.saturating_duration_since(Instant::now()))
        {
            if Message::decode(&bytes) == Some(Message::Dropped) {
                return;
            }
        }
    }

    /// Has an arena kept. What it cannot be told is what a later start does without.
    pub(crate) fn keep(&self, kept: Kept, arena: Option<&ArenaFd>) {
        let message = Message::Keep(kept).encode();
        let _ = self.channel.send(&message, arena.map(AsFd::as_fd));
    }

    /// The program has closed its context: what it does from now on is not looked at.
    pub(crate) fn leave(&self) {
        let _ = self.send(&Message::Drop("it had closed its context".into()));
        let _ = self.send(&Message::Watch(Duration::ZERO));
    }

    /// The program has its state.
    pub(crate) fn going(&self, going: Going) {
        let _ = self.send(&Message::Going(going));
    }

    /// A sign of life, unless there was one a short time ago.
    pub(crate) fn alive(&self) {
        if self.interval.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut next = self
            .next_sign
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if next.is_none_or(|next| now >= next) {
            *next = Some(now + self.interval);
            // When there is no room for it there are others that were not looked at.
            let _ = self.send(&Message::Alive);
        }
    }
}
