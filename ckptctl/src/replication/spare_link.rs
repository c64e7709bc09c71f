// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A link, as the spare serves it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use super::frame::FrameError;
use super::frame::FrameReader;
use super::frame::FrameWriter;
use super::link::Closer;
use super::link::Link;
use super::link::Receiving;
use super::link::Sending;
use super::message::Message;
use super::message::Progress;
use super::message::RefusalCode;
use super::message::VERSION;
use super::peer::Peer;
use super::spare::LastWord;
use super::spare::Primary;
use super::spare::Refused;
use super::spare::Shared;
use super::spare::Store;
use crate::store::Announced;
use crate::store::CommitId;
use crate::store::RECORD_END_BYTES;
use crate::store::StoreError;
use crate::sys::thread;

/// A primary says something at least this often; one that does not is gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How often either side gives a sign of life.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// Name of the thread that tells how far the spare has come.
const TELLER: &str = "ckpt-tell";

/// How long a spare may take to bring its arena to the commit with which it is handed over.
const HAND_OVER_MAX: Duration = Duration::from_secs(60);

/// What is said of a record that is not one.
const AMID: &str = "something else came in the middle of a record";

/// How a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The primary's node, when it has said who it is.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Why.
    pub why: Why,
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The primary closed it.
    Closed,
    /// It broke.
    Broken(String),
    /// The primary's program has ended by itself.
    Farewell,
    /// The spare shall go on.
    HandOver,
    /// It was refused.
    Refused(RefusalCode, String),
    /// There is a later term, or the spare has taken over.
    Replaced,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { node, address, why } = self;
        match node.as_str() {
            "" => write!(f, "{address} ")?,
            node => write!(f, "{node} ({address}) ")?,
        }
        match why {
            Why::Closed => f.write_str("has closed the link"),
            Why::Broken(why) => write!(f, "is gone: {why}"),
            Why::Farewell => f.write_str("says farewell: its program has ended by itself"),
            Why::HandOver => f.write_str("hands over"),
            Why::Refused(_, text) => write!(f, "was refused: {text}"),
            Why::Replaced => f.write_str("is no primary any more"),
        }
    }
}

/// What ends a link from this side.
enum Failure {
    Link(FrameError),
    Refuse(RefusalCode, String),
    Over(Why),
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Failure {
        Failure::Link(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Link(error.into())
    }
}

impl From<&'static str> for Failure {
    fn from(what: &'static str) -> Failure {
        Failure::Refuse(RefusalCode::Protocol, what.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let code = match error {
            StoreError::EpochOrder { .. } | StoreError::NoSuchEpoch { .. } => RefusalCode::Diverged,
            StoreError::Invalid { .. } => RefusalCode::Protocol,
            _ => RefusalCode::Storage,
        };
        let text = match code {
            RefusalCode::Diverged => format!(
                "{error}. This spare has commits of another history: give it an empty --store, and keep the old one as long as it may be wanted"
            ),
            _ => error.to_string(),
        };
        Failure::Refuse(code, text)
    }
}

/// Takes what a primary sends, until the link ends.
pub(super) fn serve(shared: &Arc<Shared>, link: Link) -> Ended {
    let address = link.address().to_owned();
    let closer = link.closer();
    let peer = link.peer().cloned();
    let (mut receiving, mut sending) = link.split();
    receiving.set_timeout(Some(SILENCE_MAX));
    sending.set_timeout(Some(SILENCE_MAX));
    let to = Arc::new(Mutex::new(FrameWriter::new(sending)));
    let teller = Arc::new(Teller {
        shared: Arc::clone(shared),
        to,
        base: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let mut serving = Serving {
        shared,
        from: FrameReader::new(receiving),
        teller: Arc::clone(&teller),
        number: 0,
    };
    let mut node = peer
        .as_ref()
        .map_or(String::new(), |peer| peer.node.clone());
    let why = serving
        .greet(&mut node, peer.as_ref(), &address, &closer)
        .and_then(|()| {
            let telling = Arc::clone(&teller);
            let told = thread::spawn(TELLER, move || telling.run())?;
            let end = serving.run();
            teller.over.store(true, Ordering::Release);
            shared.end_link(serving.number);
            let _ = told.join();
            end
        });
    let why = match why {
        Ok(why) | Err(Failure::Over(why)) => why,
        Err(Failure::Link(error)) => Why::Broken(error.to_string()),
        Err(Failure::Refuse(code, text)) => {
            // It may be gone already.
            let _ = teller.say(&Message::Refuse {
                code,
                text: text.clone(),
            });
            Why::Refused(code, text)
        }
    };
    Ended { node, address, why }
}

/// Tells the primary how far the spare has come: whenever that changes, and as a sign of life.
struct Teller {
    shared: Arc<Shared>,
    to: Arc<Mutex<FrameWriter<Sending>>>,
    /// The newest commit of this link, or that both had when it began.
    base: AtomicU64,
    over: AtomicBool,
}

impl Teller {
    fn say(&self, message: &Message<'_>) -> io::Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        to.send(message.kind(), |buffer| message.encode(buffer))
    }

    fn tell(&self) -> io::Result<()> {
        let base = self.base.load(Ordering::Acquire);
        let progress = Progress {
            received: base,
            durable: base,
            applied: self.shared.progress().applied.min(base),
        };
        self.say(&Message::Ack(progress))
    }

    fn run(&self) {
        let mut seen = self.shared.progress();
        while !self.over.load(Ordering::Acquire) {
            let now = self.shared.wait_for_progress(seen, BEAT);
            // The one who receives tells what is durable by himself, and has told it sooner.
            if self.over.load(Ordering::Acquire) || self.tell().is_err() {
                return;
            }
            seen = now;
        }
    }
}

struct Serving<'a> {
    shared: &'a Shared,
    from: FrameReader<Receiving>,
    teller: Arc<Teller>,
    /// Its number among the links.
    number: u64,
}

/// What of a message is needed after the next was read.
enum Event {
    Offer(Option<u32>, u64),
    Record(Box<[u8; RECORD_END_BYTES]>),
    Beat(u64),
    Farewell,
    HandOver(CommitId),
    Go,
    Unknown,
}

impl Serving<'_> {
    /// Hears who it is.
    fn greet(
        &mut self,
        node: &mut String,
        peer: Option<&Peer>,
        address: &str,
        closer: &Closer,
    ) -> Result<(), Failure> {
        let options = &self.shared.options;
        let Some((kind, payload)) = self.from.next()? else {
            return Err(Failure::Over(Why::Closed));
        };
        let Some(Message::Hello {
            version,
            term,
            service,
            node: said,
            ..
        }) = Message::decode(kind, payload)?
        else {
            return Err("the first message is no hello".into());
        };
        if version != VERSION {
            return Err(Failure::Refuse(
                RefusalCode::Version,
                format!(
                    "it speaks version {version} of the protocol, and this spare {VERSION}: use the same version of ckpt on both"
                ),
            ));
        }
        if service != options.service {
            return Err(Failure::Refuse(
                RefusalCode::Service,
                format!(
                    "this is a spare of service {:?}, not of {service:?}",
                    options.service
                ),
            ));
        }
        if peer.is_some_and(|peer| !peer.may(&service)) {
            return Err(Failure::Refuse(
                RefusalCode::Service,
                format!(
                    "its certificate does not say that it may speak for service {service:?}: issue one that does (`ckptctl pki issue --service {service}`)"
                ),
            ));
        }
        if peer.is_none() {
            *node = said;
        }
        let primary = Primary {
            node: node.clone(),
            address: address.to_owned(),
            term,
            newest: 0,
            heard: Instant::now(),
        };
        self.number = self
            .shared
            .begin_link(primary, closer.clone())
            .map_err(|refused| match refused {
                Refused::Closed => Failure::Refuse(
                    RefusalCode::Busy,
                    "this spare has taken over, or is ending".into(),
                ),
                Refused::Fenced(known) => Failure::Refuse(
                    RefusalCode::Fenced,
                    format!("its term is {term}, and there is term {known} already: it is no primary any more"),
                ),
                Refused::Term(error) => Failure::Refuse(
                    RefusalCode::Storage,
                    format!("the spare cannot note the term: {error}"),
                ),
            })?;
        let welcome = Message::Welcome {
            version: VERSION,
            term: self.shared.term(),
            node: self.shared.options.node.clone(),
            progress: self.shared.progress(),
        };
        Ok(self.teller.say(&welcome)?)
    }

    fn run(&mut self) -> Result<Why, Failure> {
        loop {
            let event = match self.from.next() {
                Ok(Some((kind, payload))) => self.shared.event(kind, payload)?,
                Ok(None) => return Ok(self.closed()),
                Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return Ok(Why::Broken(format!(
                        "it has said nothing for {} s",
                        SILENCE_MAX.as_secs()
                    )));
                }
                Err(error) => match self.closed() {
                    Why::Replaced => return Ok(Why::Replaced),
                    _ => return Err(error.into()),
                },
            };
            let newest = match event {
                Event::Beat(newest) => Some(newest),
                _ => None,
            };
            if !self.shared.is_active(self.number, newest) {
                return Ok(Why::Replaced);
            }
            match event {
                Event::Offer(place, epoch) => {
                    self.teller.base.store(epoch, Ordering::Release);
                    self.teller.say(&Message::Common(place))?;
                    self.teller.tell()?;
                }
                Event::Record(header) => {
                    let epoch = self.receive(&header)?;
                    self.teller.base.store(epoch, Ordering::Release);
                    self.teller.tell()?;
                }
                Event::Beat(_) | Event::Unknown => {}
                Event::Farewell => {
                    self.shared.last_word(LastWord::Farewell);
                    return Ok(Why::Farewell);
                }
                Event::HandOver(id) => {
                    let store = self.shared.store();
                    let has = store.as_ref().is_some_and(|store| {
                        let newest = store.writer.chain().commits().next_back();
                        newest.is_some_and(|newest| newest.id() == id)
                    });
                    drop(store);
                    if !has || !self.shared.wait_applied(id, HAND_OVER_MAX) {
                        return Err(Failure::Refuse(
                            RefusalCode::Busy,
                            format!("this spare does not have epoch {} yet", id.epoch),
                        ));
                    }
                    self.teller.say(&Message::Ready)?;
                }
                // Only now it has ended there.
                Event::Go => {
                    self.shared.last_word(LastWord::HandOver);
                    return Ok(Why::HandOver);
                }
            }
        }
    }

    fn closed(&self) -> Why {
        match self.shared.is_active(self.number, None) {
            true => Why::Closed,
            false => Why::Replaced,
        }
    }

    /// Reads a record that is there already.
    fn pass_over(&mut self, id: CommitId) -> Result<u64, Failure> {
        loop {
            let Some((kind, payload)) = self.from.next()? else {
                return Err(Failure::Over(Why::Closed));
            };
            match Message::decode(kind, payload)? {
                Some(Message::Data(_) | Message::Beat { .. }) => {}
                Some(Message::End(_)) => return Ok(id.epoch),
                _ => return Err(AMID.into()),
            }
        }
    }

    /// Takes a record into the chain; its epoch.
    fn receive(&mut self, header: &[u8; RECORD_END_BYTES]) -> Result<u64, Failure> {
        let announced = Announced::parse(header)?;
        let id = announced.id();
        let mut store = self.shared.store();
        let Some(Store { writer, tending }) = &mut *store else {
            return Err(Failure::Over(Why::Replaced));
        };
        if writer.chain().has(id) {
            // It came by another link.
            drop(store);
            return self.pass_over(id);
        }
        let mut receiving = writer.receive(announced)?;
        let info = loop {
            let Some((kind, payload)) = self.from.next()? else {
                return Err(Failure::Over(Why::Closed));
            };
            match Message::decode(kind, payload)? {
                Some(Message::Data(bytes)) => receiving.put(bytes)?,
                Some(Message::End(footer)) => {
                    let checked = receiving.check(footer)?;
                    self.teller.say(&Message::Ack(Progress {
                        received: id.epoch,
                        durable: self.teller.base.load(Ordering::Acquire),
                        applied: 0,
                    }))?;
                    break checked.keep()?;
                }
                Some(Message::Beat { .. }) => {}
                _ => return Err(AMID.into()),
            }
        };
        tending.appended(writer);
        drop(store);
        self.shared.received(&info);
        Ok(info.epoch)
    }
}

impl Shared {
    /// What a message asks for.
    fn event(&self, kind: u32, payload: &[u8]) -> Result<Event, Failure> {
        Ok(match Message::decode(kind, payload)? {
            Some(Message::Offer(ids)) => {
                let store = self.store();
                let chain = store.as_ref().map(|store| store.writer.chain());
                let place = chain.and_then(|chain| ids.iter().position(|id| chain.has(*id)));
                let epoch = place.map_or(0, |place| ids[place].epoch);
                Event::Offer(place.map(|place| place as u32), epoch)
            }
            Some(Message::Record(header)) => Event::Record(Box::new(*header)),
            Some(Message::Beat { newest }) => Event::Beat(newest),
            Some(Message::Farewell) => Event::Farewell,
            Some(Message::HandOver(id)) => Event::HandOver(id),
            Some(Message::Go) => Event::Go,
            None => Event::Unknown,
            Some(_) => return Err("a message came out of turn".into()),
        })
    }
}
