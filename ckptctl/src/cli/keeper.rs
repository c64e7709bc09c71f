// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a supervisor hears of the program itself: signs of life, and the descriptor of its arena,
//! which it keeps when the program dies and gives to the next.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use ckptctl::sys::device::ArenaFd;
use ckptctl::sys::handover::Channel;
use ckptctl::sys::handover::Received;
use ckptctl::warm::Going;
use ckptctl::warm::Kept;
use ckptctl::warm::Message;
use nix::sys::signal::Signal;

use super::figures;
use super::output;
use super::times;

/// How long a program may take to end of SIGABRT, which may write a core file.
const ABORT_MAX: Duration = Duration::from_secs(10);

/// The options, for every verb that starts a program.
#[derive(clap::Args)]
pub struct KeeperArgs {
    /// With --restart on-failure: keep the program's arena when it dies and give it to the next
    /// start, which puts right what changed since the last durable commit, and reads no more of
    /// the chain than that. Only with the kernel module
    #[arg(long, requires = "restart")]
    pub warm: bool,
    /// With --restart on-failure: kill the program when it gave no sign of life for TIME, and start
    /// it again. Commits and calls of ckpt_alive are such signs
    #[arg(long, value_name = "TIME", requires = "restart", value_parser = parse_time)]
    pub watchdog: Option<Duration>,
}

impl KeeperArgs {
    /// Without a supervisor nobody keeps anything.
    pub fn refuse_without_restart(&self) -> anyhow::Result<()> {
        match self.warm || self.watchdog.is_some() {
            true => Err(anyhow::anyhow!(
                "--warm and --watchdog are for a program that is started again: add --restart on-failure"
            )),
            false => Ok(()),
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match times::parse(text)? {
        time if time >= Duration::from_millis(10) => Ok(time),
        _ => Err("no program gives signs of life that often: allow it 10ms at least".into()),
    }
}

/// Listens to a program, over all its starts.
pub struct Keeper {
    warm: bool,
    watchdog: Option<Duration>,
    /// To the program that runs.
    channel: Option<Channel>,
    kept: Option<(ArenaFd, Kept)>,
    /// Why there is nothing kept.
    nothing: String,
    /// When the last program ended, until the next one goes on.
    died: Option<Instant>,
    /// When it was decided to take over from another host, until the program goes on.
    takes_over: Option<Instant>,
    life: Life,
}

/// What the watchdog knows of the program that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It has not said anything yet: it may take its time to begin, or know nothing of this.
    Unknown,
    /// Its last sign.
    Sign(Instant),
    /// It was given SIGABRT.
    Aborted(Instant),
    /// It was given SIGKILL.
    Killed,
}

impl Keeper {
    pub fn new(args: &KeeperArgs) -> Keeper {
        Keeper {
            warm: args.warm,
            watchdog: args.watchdog,
            channel: None,
            kept: None,
            nothing: String::new(),
            died: None,
            takes_over: None,
            life: Life::Unknown,
        }
    }

    /// The first start is to take over from another host, which was decided at this moment: in
    /// this arena, or why there is none.
    pub fn take_over(&mut self, decided: Instant, arena: Result<(OwnedFd, Kept), String>) {
        self.takes_over = Some(decided);
        match arena {
            Ok((fd, kept)) => self.keep(kept, fd),
            Err(why) => self.nothing = why,
        }
    }

    /// Makes a socket for the next start; the program's end of it, if there is anything to say.
    pub fn prepare(&mut self) -> io::Result<Option<Channel>> {
        if !self.warm && self.watchdog.is_none() && self.takes_over.is_none() {
            return Ok(None);
        }
        let (ours, theirs) = Channel::pair()?;
        let watch = Message::Watch(self.watchdog.unwrap_or_default());
        ours.send(&watch.encode(), None)?;
        if let Some((fd, kept)) = &self.kept {
            ours.send(&Message::Take(*kept).encode(), Some(fd.as_fd()))?;
        }
        self.channel = Some(ours);
        self.life = Life::Unknown;
        if self.takes_over.is_none() {
            self.nothing = "its arena never came, as it opens no context".into();
        }
        Ok(Some(theirs))
    }

    /// Readable when there is something to listen to.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Takes what the program has said.
    pub fn listen(&mut self) -> io::Result<()> {
        while let Some(channel) = &self.channel {
            match channel.receive()? {
                Received::Message(bytes, fd) => {
                    if let Some(message) = Message::decode(&bytes) {
                        self.take(message, fd);
                    }
                }
                Received::Nothing => break,
                Received::Closed => self.channel = None,
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message, fd: Option<OwnedFd>) {
        if matches!(self.life, Life::Unknown | Life::Sign(_)) {
            self.life = Life::Sign(Instant::now());
        }
        match (message, fd) {
            (Message::Keep(kept), Some(fd)) if self.warm => self.keep(kept, fd),
            (Message::Keep(kept), None) => match &mut self.kept {
                Some((_, known)) => *known = kept,
                // It is known why there was nothing to take over.
                None if self.takes_over.is_some() => {}
                None => self.nothing = "an arena without the module ends with its program".into(),
            },
            // It has closed its context, and knows nothing of a watchdog any more.
            (Message::Watch(_), _) => self.life = Life::Unknown,
            (Message::Drop(why), _) => {
                self.kept = None;
                self.nothing = why;
                if let Some(channel) = &self.channel {
                    // It waits for this a short time only.
                    let _ = channel.send(&Message::Dropped.encode(), None);
                }
            }
            (Message::Going(going), _) => {
                if let Some(decided) = self.takes_over.take() {
                    self.tell(going, decided.elapsed(), "it was decided to take over");
                    if !self.warm {
                        self.kept = None;
                    }
                } else if let (true, Some(died)) = (self.warm, self.died.take()) {
                    self.tell(going, died.elapsed(), "it died");
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, kept: Kept, fd: OwnedFd) {
        // Whoever follows the arena is to wait for the next start.
        let arena = ArenaFd::inherited(fd).and_then(|arena| arena.keep().map(|()| arena));
        match arena {
            Ok(arena) => self.kept = Some((arena, kept)),
            Err(error) => self.nothing = format!("its arena could not be kept: {error}"),
        }
    }

    fn tell(&self, going: Going, after: Duration, what: &str) {
        let time = |time: Duration| figures::duration(time.as_nanos() as u64);
        let how = match going {
            Going::Warm { pages, took } => {
                let pages = figures::counted(pages, "page");
                format!("{pages} put back in {}", time(took))
            }
            Going::Cold(why) if why.is_empty() => {
                format!("restored from its chain: {}", self.nothing)
            }
            Going::Cold(why) => format!("restored from its chain: {why}"),
            Going::Anew => "with nothing, as its chain has no commit".into(),
        };
        output::say(&format!("going on {} after {what}, {how}", time(after)));
    }

    /// The program has ended.
    pub fn ended(&mut self) -> io::Result<()> {
        self.died = None;
        self.listen()?;
        // It has ended before it went on. The next start does not come from another host any more.
        if self.takes_over.take().is_some() && !self.warm {
            self.kept = None;
        }
        self.channel = None;
        self.died = Some(Instant::now());
        self.life = Life::Unknown;
        Ok(())
    }

    /// When to look after the program again, if it says nothing until then.
    pub fn deadline(&self) -> Option<Instant> {
        match self.life {
            Life::Unknown | Life::Killed => None,
            Life::Sign(last) => self.watchdog.map(|limit| last + limit),
            Life::Aborted(at) => Some(at + ABORT_MAX),
        }
    }

    /// What the program is to be given, if it is time.
    pub fn overdue(&mut self) -> Option<Signal> {
        let now = Instant::now();
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (life, signal) = match self.life {
            Life::Sign(_) => (Life::Aborted(now), Signal::SIGABRT),
            _ => (Life::Killed, Signal::SIGKILL),
        };
        self.life = life;
        Some(signal)
    }

    /// What an overdue program has failed to do.
    pub fn complaint(&self, signal: Signal) -> String {
        let time = |time: Duration| figures::duration(time.as_nanos() as u64);
        match signal {
            Signal::SIGABRT => {
                let limit = time(self.watchdog.unwrap_or_default());
                format!("gave no sign of life for {limit}, so it gets signal 6 (ABRT)")
            }
            _ => format!(
                "did not end of that within {}, so it gets signal 9 (KILL)",
                time(ABORT_MAX)
            ),
        }
    }
}
