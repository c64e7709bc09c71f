// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a primary and a spare say to each other. `docs/replication.md` has the bytes and the order.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

use super::frame::PAYLOAD_MAX;
use crate::store::CommitId;
use crate::store::RECORD_END_BYTES;

/// Version of the protocol.
pub(super) const VERSION: u32 = 1;

/// Bytes of a record in one frame at most.
pub(super) const DATA_MAX: usize = PAYLOAD_MAX;

/// Commits in one offer at most.
pub(super) const OFFER_MAX: usize = 4096;

/// Longest name of a service or a node, and longest text, in bytes.
const TEXT_MAX: usize = 512;

/// Why a peer will not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// It speaks another version of the protocol.
    Version,
    /// It is not a spare of this service.
    Service,
    /// There is a later term: the primary is none any more.
    Fenced,
    /// It has commits that do not go with those of the primary.
    Diverged,
    /// It cannot store what it is sent.
    Storage,
    /// It has taken over, or somebody else is its primary.
    Busy,
    /// What it was sent makes no sense.
    Protocol,
}

impl RefusalCode {
    const ALL: [RefusalCode; 7] = [
        RefusalCode::Version,
        RefusalCode::Service,
        RefusalCode::Fenced,
        RefusalCode::Diverged,
        RefusalCode::Storage,
        RefusalCode::Busy,
        RefusalCode::Protocol,
    ];
}

/// How far a spare has come, as epochs; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// In its memory.
    pub received: u64,
    /// In its chain.
    pub durable: u64,
    /// In its arena; what is in its chain when it keeps none.
    pub applied: u64,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The primary's first.
    Hello {
        version: u32,
        term: u64,
        chain_id: [u8; 16],
        service: String,
        node: String,
    },
    /// The spare's answer.
    Welcome {
        version: u32,
        /// The highest term that it knows of.
        term: u64,
        node: String,
        progress: Progress,
    },
    /// Commits of the primary's chain, each the parent of the one before.
    Offer(Vec<CommitId>),
    /// Which of those just offered is the first that the spare has, by its place.
    Common(Option<u32>),
    /// A record begins.
    Record(&'a [u8; RECORD_END_BYTES]),
    /// It goes on.
    Data(&'a [u8]),
    /// It ends.
    End(&'a [u8; RECORD_END_BYTES]),
    /// How far the spare has come.
    Ack(Progress),
    /// The primary is there, and this is its newest durable epoch.
    Beat { newest: u64 },
    /// The primary's program has ended by itself.
    Farewell,
    /// The spare shall make ready to take over with this commit.
    HandOver(CommitId),
    /// It is ready.
    Ready,
    /// The program has ended here: the spare takes over.
    Go,
    /// The peer will not go on.
    Refuse { code: RefusalCode, text: String },
}

/// Codes of the messages.
mod kind {
    pub(super) const HELLO: u32 = 1;
    pub(super) const WELCOME: u32 = 2;
    pub(super) const OFFER: u32 = 3;
    pub(super) const COMMON: u32 = 4;
    pub(super) const RECORD: u32 = 5;
    pub(super) const DATA: u32 = 6;
    pub(super) const END: u32 = 7;
    pub(super) const ACK: u32 = 8;
    pub(super) const BEAT: u32 = 9;
    pub(super) const FAREWELL: u32 = 10;
    pub(super) const HAND_OVER: u32 = 11;
    pub(super) const READY: u32 = 12;
    pub(super) const GO: u32 = 13;
    pub(super) const REFUSE: u32 = 14;
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireHello {
    version: U32,
    service_len: U32,
    node_len: U32,
    reserved: U32,
    term: U64,
    chain_id: [u8; 16],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireWelcome {
    version: U32,
    node_len: U32,
    term: U64,
    progress: WireProgress,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireProgress {
    received: U64,
    durable: U64,
    applied: U64,
}

impl From<Progress> for WireProgress {
    fn from(progress: Progress) -> WireProgress {
        WireProgress {
            received: progress.received.into(),
            durable: progress.durable.into(),
            applied: progress.applied.into(),
        }
    }
}

impl From<&WireProgress> for Progress {
    fn from(wire: &WireProgress) -> Progress {
        Progress {
            received: wire.received.get(),
            durable: wire.durable.get(),
            applied: wire.applied.get(),
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireCommit {
    epoch: U64,
    generation: [u8; 16],
}

impl From<CommitId> for WireCommit {
    fn from(id: CommitId) -> WireCommit {
        WireCommit {
            epoch: id.epoch.into(),
            generation: id.generation,
        }
    }
}

impl From<&WireCommit> for CommitId {
    fn from(wire: &WireCommit) -> CommitId {
        CommitId {
            epoch: wire.epoch.get(),
            generation: wire.generation,
        }
    }
}

/// What of a text is sent.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Message<'_> {
    pub(super) fn kind(&self) -> u32 {
        match self {
            Message::Hello { .. } => kind::HELLO,
            Message::Welcome { .. } => kind::WELCOME,
            Message::Offer(_) => kind::OFFER,
            Message::Common(_) => kind::COMMON,
            Message::Record(_) => kind::RECORD,
            Message::Data(_) => kind::DATA,
            Message::End(_) => kind::END,
            Message::Ack(_) => kind::ACK,
            Message::Beat { .. } => kind::BEAT,
            Message::Farewell => kind::FAREWELL,
            Message::HandOver(_) => kind::HAND_OVER,
            Message::Ready => kind::READY,
            Message::Go => kind::GO,
            Message::Refuse { .. } => kind::REFUSE,
        }
    }

    /// Puts it behind what is in a buffer.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Message::Hello {
                version,
                term,
                chain_id,
                service,
                node,
            } => {
                let (service, node) = (cut(service), cut(node));
                let wire = WireHello {
                    version: (*version).into(),
                    service_len: (service.len() as u32).into(),
                    node_len: (node.len() as u32).into(),
                    reserved: 0.into(),
                    term: (*term).into(),
                    chain_id: *chain_id,
                };
                to.extend_from_slice(wire.as_bytes());
                to.extend_from_slice(service.as_bytes());
                to.extend_from_slice(node.as_bytes());
            }
            Message::Welcome {
                version,
                term,
                node,
                progress,
            } => {
                let node = cut(node);
                let wire = WireWelcome {
                    version: (*version).into(),
                    node_len: (node.len() as u32).into(),
                    term: (*term).into(),
                    progress: (*progress).into(),
                };
                to.extend_from_slice(wire.as_bytes());
                to.extend_from_slice(node.as_bytes());
            }
            Message::Offer(ids) => {
                for id in ids {
                    to.extend_from_slice(WireCommit::from(*id).as_bytes());
                }
            }
            Message::Common(place) => {
                let place = place.unwrap_or(u32::MAX);
                to.extend_from_slice(&place.to_le_bytes());
            }
            Message::Record(bytes) | Message::End(bytes) => to.extend_from_slice(*bytes),
            Message::Data(bytes) => to.extend_from_slice(bytes),
            Message::Ack(progress) => {
                to.extend_from_slice(WireProgress::from(*progress).as_bytes());
            }
            Message::Beat { newest } => to.extend_from_slice(&newest.to_le_bytes()),
            Message::Farewell | Message::Ready | Message::Go => {}
            Message::HandOver(id) => to.extend_from_slice(WireCommit::from(*id).as_bytes()),
            Message::Refuse { code, text } => {
                to.extend_from_slice(&(*code as u32).to_le_bytes());
                to.extend_from_slice(cut(text).as_bytes());
            }
        }
    }

    /// A message from what came in a frame, or what is wrong with it. Of what this version does
    /// not know, `None`.
    pub(super) fn decode(kind: u32, payload: &[u8]) -> Result<Option<Message<'_>>, &'static str> {
        const WRONG: &str = "a message contradicts itself";
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).map_err(|_| WRONG)?;
            match text.len() <= TEXT_MAX {
                true => Ok(text.to_owned()),
                false => Err(WRONG),
            }
        };
        let end = || <&[u8; RECORD_END_BYTES]>::try_from(payload).map_err(|_| WRONG);
        let number = || Ok::<_, &str>(u64::from_le_bytes(payload.try_into().map_err(|_| WRONG)?));
        Ok(Some(match kind {
            kind::HELLO => {
                let (wire, texts) = WireHello::ref_from_prefix(payload).map_err(|_| WRONG)?;
                let (service, node) = texts
                    .split_at_checked(wire.service_len.get() as usize)
                    .ok_or(WRONG)?;
                if node.len() != wire.node_len.get() as usize {
                    return Err(WRONG);
                }
                Message::Hello {
                    version: wire.version.get(),
                    term: wire.term.get(),
                    chain_id: wire.chain_id,
                    service: text(service)?,
                    node: text(node)?,
                }
            }
            kind::WELCOME => {
                let (wire, node) = WireWelcome::ref_from_prefix(payload).map_err(|_| WRONG)?;
                if node.len() != wire.node_len.get() as usize {
                    return Err(WRONG);
                }
                Message::Welcome {
                    version: wire.version.get(),
                    term: wire.term.get(),
                    node: text(node)?,
                    progress: (&wire.progress).into(),
                }
            }
            kind::OFFER => {
                let ids = <[WireCommit]>::ref_from_bytes(payload).map_err(|_| WRONG)?;
                if ids.len() > OFFER_MAX {
                    return Err(WRONG);
                }
                Message::Offer(ids.iter().map(CommitId::from).collect())
            }
            kind::COMMON => {
                let place = u32::from_le_bytes(payload.try_into().map_err(|_| WRONG)?);
                Message::Common((place != u32::MAX).then_some(place))
            }
            kind::RECORD => Message::Record(end()?),
            kind::DATA => Message::Data(payload),
            kind::END => Message::End(end()?),
            kind::ACK => {
                let wire = WireProgress::ref_from_bytes(payload).map_err(|_| WRONG)?;
                Message::Ack(wire.into())
            }
            kind::BEAT => Message::Beat { newest: number()? },
            kind::FAREWELL => Message::Farewell,
            kind::HAND_OVER => {
                let wire = WireCommit::ref_from_bytes(payload).map_err(|_| WRONG)?;
                Message::HandOver(wire.into())
            }
            kind::READY => Message::Ready,
            kind::GO => Message::Go,
            kind::REFUSE => {
                let (code, said) = payload.split_at_checked(4).ok_or(WRONG)?;
                let code = u32::from_le_bytes(code.try_into().map_err(|_| WRONG)?);
                let known = RefusalCode::ALL.get(code as usize).copied();
                Message::Refuse {
                    code: known.unwrap_or(RefusalCode::Protocol),
                    text: text(said)?,
                }
            }
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(epoch: u64) -> CommitId {
        CommitId {
            epoch,
            generation: [epoch as u8; 16],
        }
    }

    fn encoded(message: &Message<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        let progress = Progress {
            received: 9,
            durable: 8,
            applied: 7,
        };
        for message in [
            Message::Hello {
                version: VERSION,
                term: 3,
                chain_id: [5; 16],
                service: "kv".into(),
                node: "west".into(),
            },
            Message::Welcome {
                version: VERSION,
                term: 3,
                node: "east".into(),
                progress,
            },
            Message::Offer(vec![id(9), id(5)]),
            Message::Offer(vec![]),
            Message::Common(Some(3)),
            Message::Common(None),
            Message::Record(&[1; RECORD_END_BYTES]),
            Message::Data(b"pages"),
            Message::End(&[2; RECORD_END_BYTES]),
            Message::Ack(progress),
            Message::Beat { newest: 11 },
            Message::Farewell,
            Message::HandOver(id(4)),
            Message::Ready,
            Message::Go,
            Message::Refuse {
                code: RefusalCode::Diverged,
                text: "äh".into(),
            },
        ] {
            let bytes = encoded(&message);
            assert_eq!(Message::decode(message.kind(), &bytes), Ok(Some(message)));
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_characters() {
        let message = Message::Refuse {
            code: RefusalCode::Busy,
            text: "ä".repeat(1000),
        };
        let bytes = encoded(&message);
        match Message::decode(message.kind(), &bytes) {
            Ok(Some(Message::Refuse { text, .. })) => assert_eq!(text, "ä".repeat(TEXT_MAX / 2)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_of_a_later_version_is_passed_over() {
        assert_eq!(Message::decode(77, b"whatever"), Ok(None));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_is_refused(
            kind in 0..16u32,
            payload in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Ok(Some(message)) = Message::decode(kind, &payload) {
                // Only padding and what is unknown is lost.
                let again = encoded(&message);
                prop_assert_eq!(Message::decode(kind, &again), Ok(Some(message)));
            }
        }
    }
}
