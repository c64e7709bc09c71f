// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a program and its supervisor tell each other. Both are of one release as a rule; what one
//! does not know of the other's is passed over.

use std::time::Duration;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U64;

use crate::sys::handover::MESSAGE_MAX;

/// What is known of an arena that outlives its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The generation of the program whose it was, and the one before it: the newest record of
    /// its chain has one of them, unless others have written there since.
    pub generations: [[u8; 16]; 2],
    /// The epochs of the chain from this one on are states that the arena was in.
    pub begun: u64,
    /// The epoch that it was filled with then, if it was.
    pub filled_with: Option<u64>,
    /// Its address.
    pub base: u64,
    /// Its size.
    pub len_bytes: u64,
}

/// How a program went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Going {
    /// It began with nothing.
    Anew,
    /// It read its state from the chain; why, when it could have had an arena.
    Cold(String),
    /// It took the arena and put pages right.
    Warm {
        /// So many.
        pages: u64,
        /// For so long.
        took: Duration,
    },
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the program, first of all: who is silent for so long is taken for dead; zero for never.
    Watch(Duration),
    /// To the program: the arena whose descriptor comes along is there to be taken.
    Take(Kept),
    /// To the supervisor: this is the program's arena; its descriptor comes along, unless it has
    /// it already.
    Keep(Kept),
    /// To the supervisor: the arena is not wanted, for this reason.
    Drop(String),
    /// To the program: the arena that it did not want is gone.
    Dropped,
    /// To the supervisor: the program has its state.
    Going(Going),
    /// To the supervisor: a sign of life.
    Alive,
}

const MAGIC: [u8; 8] = *b"CKPTWRM1";

const WATCH: u64 = 1;
const TAKE: u64 = 2;
const KEEP: u64 = 3;
const DROP: u64 = 4;
const DROPPED: u64 = 5;
const ANEW: u64 = 6;
const COLD: u64 = 7;
const WARM: u64 = 8;
const ALIVE: u64 = 9;

/// A message as it is sent, text behind it.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    kind: U64,
    numbers: [U64; 4],
    generations: [[u8; 16]; 2],
}

impl Message {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let ns = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let place = |kept: &Kept| {
            let filled_with = kept.filled_with.unwrap_or(0);
            [kept.begun, filled_with, kept.base, kept.len_bytes]
        };
        let (kind, numbers, text) = match self {
            Message::Watch(time) => (WATCH, [ns(time), 0, 0, 0], ""),
            Message::Take(kept) => (TAKE, place(kept), ""),
            Message::Keep(kept) => (KEEP, place(kept), ""),
            Message::Drop(why) => (DROP, [0; 4], why.as_str()),
            Message::Dropped => (DROPPED, [0; 4], ""),
            Message::Going(Going::Anew) => (ANEW, [0; 4], ""),
            Message::Going(Going::Cold(why)) => (COLD, [0; 4], why.as_str()),
            Message::Going(Going::Warm { pages, took }) => (WARM, [*pages, ns(took), 0, 0], ""),
            Message::Alive => (ALIVE, [0; 4], ""),
        };
        let generations = match self {
            Message::Take(kept) | Message::Keep(kept) => kept.generations,
            _ => [[0; 16]; 2],
        };
        let wire = Wire {
            magic: MAGIC,
            kind: kind.into(),
            numbers: numbers.map(U64::from),
            generations,
        };
        let mut bytes = wire.as_bytes().to_vec();
        let room = MESSAGE_MAX - bytes.len();
        bytes.extend(text.bytes().take(room));
        bytes
    }

    /// What was sent, if it is known.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let (wire, text) = Wire::read_from_prefix(bytes).ok()?;
        if wire.magic != MAGIC {
            return None;
        }
        let numbers = wire.numbers.map(U64::get);
        let text = || String::from_utf8_lossy(text).into_owned();
        let kept = || Kept {
            generations: wire.generations,
            begun: numbers[0],
            filled_with: (numbers[1] != 0).then_some(numbers[1]),
            base: numbers[2],
            len_bytes: numbers[3],
        };
        Some(match wire.kind.get() {
            WATCH => Message::Watch(Duration::from_nanos(numbers[0])),
            TAKE => Message::Take(kept()),
            KEEP => Message::Keep(kept()),
            DROP => Message::Drop(text()),
            DROPPED => Message::Dropped,
            ANEW => Message::Going(Going::Anew),
            COLD => Message::Going(Going::Cold(text())),
            WARM => Message::Going(Going::Warm {
                pages: numbers[0],
                took: Duration::from_nanos(numbers[1]),
            }),
            ALIVE => Message::Alive,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_received() {
        let kept = Kept {
            generations: [[7; 16], [9; 16]],
            begun: 12,
            filled_with: Some(5),
            base: 1 << 45,
            len_bytes: 1 << 36,
        };
        let fresh = Kept {
            filled_with: None,
            ..kept
        };
        for message in [
            Message::Watch(Duration::from_millis(1500)),
            Message::Take(kept),
            Message::Keep(fresh),
            Message::Drop("the chain moved on".into()),
            Message::Dropped,
            Message::Going(Going::Anew),
            Message::Going(Going::Cold(String::new())),
            Message::Going(Going::Warm {
                pages: 120,
                took: Duration::from_micros(400),
            }),
            Message::Alive,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn what_is_not_a_message_is_none_and_a_long_text_is_cut() {
        let mut bytes = Message::Alive.encode();
        assert_eq!(Message::decode(&bytes[1..]), None);
        assert_eq!(Message::decode(&[]), None);
        bytes[8] = 77;
        assert_eq!(Message::decode(&bytes), None);
        let long = Message::Drop("x".repeat(5000)).encode();
        assert_eq!(long.len(), MESSAGE_MAX);
        assert!(matches!(Message::decode(&long), Some(Message::Drop(_))));
    }
}
