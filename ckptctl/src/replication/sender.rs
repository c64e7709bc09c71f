// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keeps a spare up to date with a chain: sends what it does not have, then each commit as it
//! becomes durable, and comes again when the link breaks.
//!
//! Nothing is kept for a spare that is slow or away: what it needs is in the chain. When the
//! chain has been compacted meanwhile it gets what stands for it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use super::frame::FrameError;
use super::frame::FrameReader;
use super::frame::FrameWriter;
use super::link::Link;
use super::link::Receiving;
use super::link::Security;
use super::link::Sending;
use super::link_error::LinkError;
use super::message::DATA_MAX;
use super::message::Message;
use super::message::OFFER_MAX;
use super::message::Progress;
use super::message::RefusalCode;
use super::message::VERSION;
use super::spare_link::BEAT;
use super::spare_link::SILENCE_MAX;
use super::throttle::Throttle;
use crate::store::Chain;
use crate::store::CommitId;
use crate::store::CommitInfo;
use crate::store::StoreError;
use crate::sys::consumers::wait_readable;
use crate::sys::dir_watch::DirWatch;
use crate::sys::event::Event;
use crate::sys::thread;

/// Name of the thread that hears what the spare says.
const LISTENER: &str = "ckpt-acks";

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long it waits before it comes again: at first, and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// What is sent, and to whom.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// The chain's directory.
    pub dir: PathBuf,
    /// The spare, `HOST:PORT`.
    pub to: String,
    /// How the two make sure of each other.
    pub security: Security,
    /// The service that the program is.
    pub service: String,
    /// The name of this node.
    pub node: String,
    /// The term in which this node is the primary.
    pub term: u64,
    /// Bytes a second at most.
    pub limit: Option<u64>,
}

/// Somebody who wants to know how it goes. Called from threads of the sender's.
pub trait Observer: Send + Sync {
    /// There is a link with this node. `missing` records of `bytes` bytes are sent first.
    fn connected(&self, node: &str, missing: u64, bytes: u64);

    /// The spare has come this far.
    fn progress(&self, progress: Progress);

    /// So many bytes of records were sent.
    fn sent(&self, _bytes: u64) {}

    /// The spare is ready to take over, and does when this returns true: the program has ended here
    /// then, whatever becomes of the link.
    fn ready(&self) -> bool {
        false
    }

    /// There is no link any more, or none yet, and why. It is tried again.
    fn lost(&self, why: &str);
}

/// Why a sender ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SenderError {
    /// The spare will never take what it is sent.
    #[error("{to} refuses: {text}")]
    Refused {
        /// The spare.
        to: String,
        /// Why.
        code: RefusalCode,
        /// Why, for people.
        text: String,
    },
    /// There can be no link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The chain cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something else of the system.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SenderError {
    /// Whether there is a later term than the sender's.
    pub fn is_fenced(&self) -> bool {
        matches!(
            self,
            SenderError::Refused {
                code: RefusalCode::Fenced,
                ..
            }
        )
    }
}

/// How a sender's work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It was told to stop.
    Stopped,
    /// The spare has everything, as was wanted.
    Complete,
    /// The program has ended here, and the spare takes over.
    HandedOver {
        /// With this commit.
        commit: CommitId,
        /// False when the link broke before the spare could be told: then somebody has to tell it.
        told: bool,
    },
}

/// When a sender's work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Never: it follows.
    Stopped,
    /// When the spare has all that the chain has.
    Complete,
    /// When the spare has all that the chain has, and has taken over.
    HandedOver,
}

/// Sends a chain to a spare.
pub struct Sender {
    options: SenderOptions,
    observer: Arc<dyn Observer>,
    leave: Option<Arc<Event>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &mut f.debug_struct("Sender");
        fields
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Why a link has ended.
enum Broken {
    /// It is tried again.
    Link(String),
    Fatal(SenderError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Broken {
        Broken::Fatal(error.into())
    }
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Broken {
    move |source| Broken::Fatal(SenderError::System { doing, source })
}

/// What the spare says.
enum Heard {
    Welcome { version: u32, node: String },
    Common(Option<u32>),
    Durable(u64),
    Ready,
    Refused(RefusalCode, String),
    Ended(String),
}

impl Sender {
    /// Begins nothing yet.
    pub fn new(options: SenderOptions, observer: Arc<dyn Observer>) -> Sender {
        Sender {
            options,
            observer,
            leave: None,
        }
    }

    /// Once this is readable the program has ended by itself: the spare gets what it does not have,
    /// if there is a link, and is told that there is nothing to take over.
    pub fn leave_when(mut self, leave: Arc<Event>) -> Sender {
        self.leave = Some(leave);
        self
    }

    fn is_leaving(&self) -> io::Result<bool> {
        match &self.leave {
            None => Ok(false),
            Some(leave) => Ok(wait_readable([leave.as_fd()], Duration::ZERO)? == [true]),
        }
    }

    /// Sends until `stop` is readable, or the work is done.
    ///
    /// # Errors
    ///
    /// What does not go away by trying again.
    pub fn run(&self, until: Until, stop: BorrowedFd<'_>) -> Result<Finished, SenderError> {
        let mut retry = RETRY[0];
        loop {
            let begun = Instant::now();
            match self.once(until, stop) {
                Ok(finished) => return Ok(finished),
                Err(Broken::Fatal(error)) => return Err(error),
                Err(Broken::Link(why)) => self.observer.lost(&why),
            }
            if begun.elapsed() > RETRY[1] {
                retry = RETRY[0];
            }
            let waiting = |source| SenderError::System {
                doing: "wait",
                source,
            };
            let leave = self.leave.as_ref().map_or(stop, |leave| leave.as_fd());
            if wait_readable([stop, leave], retry).map_err(waiting)? != [false; 2] {
                return Ok(Finished::Stopped);
            }
            retry = (retry * 2).min(RETRY[1]);
        }
    }

    /// One link.
    fn once(&self, until: Until, stop: BorrowedFd<'_>) -> Result<Finished, Broken> {
        let options = &self.options;
        let link = Link::connect(&options.to, &options.security, CONNECT_MAX)
            .map_err(|error| Broken::Link(error.to_string()))?;
        if let Some(peer) = link.peer().filter(|peer| !peer.may(&options.service)) {
            return Err(Broken::Fatal(SenderError::Refused {
                to: options.to.clone(),
                code: RefusalCode::Service,
                text: format!(
                    "the certificate of {} does not say that it may be a spare of service {:?} (`ckptctl pki issue --service {}`)",
                    peer.node, options.service, options.service
                ),
            }));
        }
        let node = link.peer().map(|peer| peer.node.clone());
        let wake = Arc::new(Event::new().map_err(system("make a descriptor"))?);
        let chain = Chain::open(&options.dir)?;
        let watch = DirWatch::new(&options.dir).map_err(system("watch the chain's directory"))?;
        let closer = link.closer();
        let (mut receiving, mut sending) = link.split();
        receiving.set_timeout(Some(SILENCE_MAX));
        sending.set_timeout(Some(SILENCE_MAX));
        let (say, heard) = mpsc::channel();
        let listener = Listener {
            from: FrameReader::new(receiving),
            say,
            observer: Arc::clone(&self.observer),
            wake: Arc::clone(&wake),
        };
        let listening = thread::spawn(LISTENER, move || listener.run());
        let listening = listening.map_err(system("start a thread"))?;
        let mut session = Session {
            sender: self,
            to: FrameWriter::new(sending),
            said: Instant::now(),
            heard,
            node: node.unwrap_or_default(),
            chain,
            last: None,
            durable: None,
            throttle: options
                .limit
                .map(|limit| Throttle::new(limit, Instant::now())),
            stop,
            wake,
            buffer: vec![0; DATA_MAX],
        };
        let ended = session.run(until, &watch);
        closer.close();
        // Nothing is left for it to hear.
        let _ = listening.join();
        ended
    }
}

/// Hears what the spare says.
struct Listener {
    from: FrameReader<Receiving>,
    say: mpsc::Sender<Heard>,
    observer: Arc<dyn Observer>,
    /// Readable when something was said.
    wake: Arc<Event>,
}

impl Listener {
    fn run(mut self) {
        loop {
            let heard = match self.from.next() {
                Ok(Some((kind, payload))) => match Message::decode(kind, payload) {
                    Ok(Some(Message::Ack(progress))) => {
                        self.observer.progress(progress);
                        Heard::Durable(progress.durable)
                    }
                    Ok(Some(Message::Welcome { version, node, .. })) => {
                        Heard::Welcome { version, node }
                    }
                    Ok(Some(Message::Common(place))) => Heard::Common(place),
                    Ok(Some(Message::Ready)) => Heard::Ready,
                    Ok(Some(Message::Refuse { code, text })) => Heard::Refused(code, text),
                    Ok(None) => continue,
                    Ok(Some(_)) => Heard::Ended("a message came out of turn".into()),
                    Err(what) => Heard::Ended(what.into()),
                },
                Ok(None) => Heard::Ended("it has closed the link".into()),
                Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    Heard::Ended(format!(
                        "it has said nothing for {} s",
                        SILENCE_MAX.as_secs()
                    ))
                }
                Err(error) => Heard::Ended(error.to_string()),
            };
            let last = matches!(heard, Heard::Ended(_) | Heard::Refused(..));
            let gone = self.say.send(heard).is_err();
            self.wake.set();
            if last || gone {
                return;
            }
        }
    }
}

/// A link on which records are sent.
struct Session<'a> {
    sender: &'a Sender,
    to: FrameWriter<Sending>,
    /// When something was said last.
    said: Instant,
    heard: mpsc::Receiver<Heard>,
    /// The spare's name.
    node: String,
    chain: Chain,
    /// The last commit that was sent, or that both have.
    last: Option<CommitId>,
    /// The highest epoch that is on the spare's disk.
    durable: Option<u64>,
    throttle: Option<Throttle>,
    stop: BorrowedFd<'a>,
    wake: Arc<Event>,
    buffer: Vec<u8>,
}

impl Session<'_> {
    fn run(&mut self, until: Until, watch: &DirWatch) -> Result<Finished, Broken> {
        self.greet()?;
        let mut first = true;
        let mut asked = false;
        loop {
            watch
                .clear()
                .map_err(system("watch the chain's directory"))?;
            self.chain.follow()?;
            let newest = self.chain.newest()?.cloned();
            if let Some(newest) = newest.filter(|newest| Some(newest.id()) != self.last) {
                self.send_up_to(&newest, std::mem::take(&mut first))?;
                continue;
            }
            if std::mem::take(&mut first) {
                self.sender.observer.connected(&self.node, 0, 0);
            }
            let complete = self.last.map(|id| id.epoch) == self.durable.filter(|epoch| *epoch > 0);
            let leaving = self.sender.is_leaving().map_err(system("wait"))?;
            match (until, self.last) {
                _ if leaving && (complete || self.last.is_none()) => {
                    self.say(&Message::Farewell)?;
                    return Ok(Finished::Complete);
                }
                (Until::Complete, _) if complete => return Ok(Finished::Complete),
                (Until::HandedOver, Some(last)) if complete && !asked => {
                    self.say(&Message::HandOver(last))?;
                    asked = true;
                }
                _ => {}
            }
            // While it leaves it waits for the spare alone.
            let leave = match &self.sender.leave {
                Some(leave) if !leaving => leave.as_fd(),
                _ => self.stop,
            };
            let fds = [self.stop, self.wake.as_fd(), watch.as_fd(), leave];
            let [stopped, ..] = wait_readable(fds, self.until_beat()).map_err(system("wait"))?;
            if stopped {
                return Ok(Finished::Stopped);
            }
            if self.listen()? {
                return self.go();
            }
            self.beat()?;
        }
    }

    /// The spare is ready: ends the program here, then lets the spare go on.
    fn go(&mut self) -> Result<Finished, Broken> {
        let (Some(last), true) = (self.last, self.sender.observer.ready()) else {
            return Ok(Finished::Stopped);
        };
        let told = self.say(&Message::Go).is_ok();
        Ok(Finished::HandedOver { commit: last, told })
    }

    fn until_beat(&self) -> Duration {
        BEAT.saturating_sub(self.said.elapsed())
    }

    /// Gives a sign of life when it is time.
    fn beat(&mut self) -> Result<(), Broken> {
        if !self.until_beat().is_zero() {
            return Ok(());
        }
        let newest = self.chain.commits().next_back();
        let newest = newest.map_or(0, |info| info.epoch);
        self.say(&Message::Beat { newest })
    }

    /// Says something; when that cannot be, why.
    fn say(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        let said = self
            .to
            .send(message.kind(), |buffer| message.encode(buffer));
        self.said = Instant::now();
        said.map_err(|error| self.why(error))
    }

    /// Why the link cannot be written to: mostly the other side has said so.
    fn why(&mut self, error: io::Error) -> Broken {
        while let Ok(heard) = self.heard.recv_timeout(BEAT) {
            if let Some(broken) = self.is_end(heard) {
                return broken;
            }
        }
        Broken::Link(error.to_string())
    }

    fn is_end(&self, heard: Heard) -> Option<Broken> {
        match heard {
            Heard::Refused(code, text) => Some(match code {
                RefusalCode::Storage | RefusalCode::Busy | RefusalCode::Protocol => {
                    Broken::Link(format!("it refuses: {text}"))
                }
                _ => Broken::Fatal(SenderError::Refused {
                    to: self.sender.options.to.clone(),
                    code,
                    text,
                }),
            }),
            Heard::Ended(why) => Some(Broken::Link(why)),
            _ => None,
        }
    }

    /// Takes what was said; true when the spare is ready to take over.
    fn listen(&mut self) -> Result<bool, Broken> {
        self.wake.clear();
        while let Ok(heard) = self.heard.try_recv() {
            match heard {
                Heard::Durable(epoch) => self.durable = Some(epoch),
                Heard::Ready => return Ok(true),
                other => {
                    if let Some(broken) = self.is_end(other) {
                        return Err(broken);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Waits for an answer.
    fn answer<T>(&mut self, wanted: impl Fn(&Heard) -> Option<T>) -> Result<T, Broken> {
        loop {
            match self.heard.recv_timeout(SILENCE_MAX) {
                Err(_) => return Err(Broken::Link("it does not answer".into())),
                Ok(heard) => {
                    if let Some(answer) = wanted(&heard) {
                        return Ok(answer);
                    }
                    if let Heard::Durable(epoch) = heard {
                        self.durable = Some(epoch);
                    } else if let Some(broken) = self.is_end(heard) {
                        return Err(broken);
                    }
                }
            }
        }
    }

    fn greet(&mut self) -> Result<(), Broken> {
        let options = &self.sender.options;
        self.say(&Message::Hello {
            version: VERSION,
            term: options.term,
            chain_id: self.chain.chain_id(),
            service: options.service.clone(),
            node: options.node.clone(),
        })?;
        let (version, node) = self.answer(|heard| match heard {
            Heard::Welcome { version, node } => Some((*version, node.clone())),
            _ => None,
        })?;
        match version {
            VERSION => {
                // Its certificate is to be believed more than its word.
                if self.node.is_empty() {
                    self.node = node;
                }
                Ok(())
            }
            other => Err(Broken::Fatal(SenderError::Refused {
                to: self.sender.options.to.clone(),
                code: RefusalCode::Version,
                text: format!(
                    "{node} speaks version {other} of the protocol, and this side {VERSION}: use the same version of ckpt on both"
                ),
            })),
        }
    }

    /// Sends the records that the spare needs to have a commit.
    fn send_up_to(&mut self, newest: &CommitInfo, first: bool) -> Result<(), Broken> {
        // What is seen may not be on our own disk yet, and must not be elsewhere before.
        self.chain.sync_end()?;
        let missing = self.missing(newest.epoch)?;
        if first {
            let infos = missing.iter().filter_map(|epoch| self.chain.find(*epoch));
            let bytes = infos.map(|info| info.stored_bytes).sum();
            self.sender
                .observer
                .connected(&self.node, missing.len() as u64, bytes);
        }
        for epoch in missing {
            match self.send_record(epoch) {
                // A compaction has put something else in its place: look again.
                Err(Broken::Fatal(SenderError::Store(error))) if error.is_gone() => return Ok(()),
                sent => sent?,
            }
        }
        Ok(())
    }

    /// The commits between what the spare has and this one, oldest first.
    fn missing(&mut self, epoch: u64) -> Result<Vec<u64>, Broken> {
        let lineage: Vec<CommitId> = self.chain.lineage_of(epoch)?.map(CommitInfo::id).collect();
        let mut common = lineage.iter().position(|id| Some(*id) == self.last);
        let mut offered = 0;
        while common.is_none() && offered < lineage.len() {
            let offer = &lineage[offered..lineage.len().min(offered + OFFER_MAX)];
            self.say(&Message::Offer(offer.to_vec()))?;
            let place = self.answer(|heard| match heard {
                Heard::Common(place) => Some(*place),
                _ => None,
            })?;
            common = place
                .map(|place| place as usize)
                .filter(|place| *place < offer.len())
                .map(|place| offered + place);
            offered += offer.len();
        }
        let common = common.unwrap_or(lineage.len());
        self.last = lineage.get(common).copied();
        Ok(lineage[..common].iter().rev().map(|id| id.epoch).collect())
    }

    fn send_record(&mut self, epoch: u64) -> Result<(), Broken> {
        let mut shipment = self.chain.ship(epoch)?;
        let Some(id) = self.chain.find(epoch).map(CommitInfo::id) else {
            return Ok(());
        };
        self.say(&Message::Record(&shipment.header))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let sent = loop {
            match shipment.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(len) => {
                    if let Err(broken) = self.send_data(&buffer[..len]) {
                        break Err(broken);
                    }
                }
                Err(error) => break Err(error.into()),
            }
        };
        self.buffer = buffer;
        sent?;
        self.say(&Message::End(&shipment.footer))?;
        self.last = Some(id);
        Ok(())
    }

    fn send_data(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.say(&Message::Data(bytes))?;
        self.sender.observer.sent(bytes.len() as u64);
        let Some(throttle) = &mut self.throttle else {
            return Ok(());
        };
        let until = Instant::now() + throttle.sent(bytes.len(), Instant::now());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Who wants it to stop does not wait for that.
            let stopped = wait_readable([self.stop], left.min(BEAT)).map_err(system("wait"))?;
            if left <= BEAT || stopped == [true] {
                return Ok(());
            }
            self.beat()?;
        }
    }
}
