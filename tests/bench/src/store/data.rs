// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory as programs have it: the same bytes for the same seed and size.
//!
//! Extents of 8 to 120 pages, each of one kind, in an order that chance decides. Out of twenty
//! extents five are text, five arrays of numbers, five the heap, three zero, two noise. No
//! two pages but zero ones are the same, so that a store that finds pages that are alike
//! gains nothing here.

use std::fmt::Write as _;
use std::ops::Range;

use crate::store::random::Random;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lines of a log and of JSON.
    Text,
    /// Arrays of one type.
    Numbers,
    /// Small objects with pointers to each other.
    Heap,
    /// Pages that are zero.
    Zero,
    /// What is compressed or encrypted already.
    Noise,
}

impl Kind {
    /// All of them, with how many extents of twenty have it.
    pub const SHARES: [(Kind, usize); 5] = [
        (Kind::Text, 5),
        (Kind::Numbers, 5),
        (Kind::Heap, 5),
        (Kind::Zero, 3),
        (Kind::Noise, 2),
    ];

    /// Name in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Numbers => "numbers",
            Kind::Heap => "heap",
            Kind::Zero => "zero",
            Kind::Noise => "noise",
        }
    }
}

/// Where which kind lies.
pub type Extents = Vec<(Range<usize>, Kind)>;

/// Makes data of whole pages.
pub fn fill(data: &mut [u8], seed: u64) -> Extents {
    assert_eq!(data.len() % PAGE, 0);
    let mut random = Random::new(seed);
    let mut extents = Extents::new();
    let mut deck = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let kind = deck.pop().unwrap_or_else(|| {
            deck = shuffled(&mut random);
            deck.pop().unwrap_or(Kind::Zero)
        });
        let pages = 8 + random.below(113) as usize;
        let end = data.len().min(start + pages * PAGE);
        let mut own = Random::new(random.next());
        fill_extent(&mut data[start..end], kind, &mut own);
        extents.push((start..end, kind));
        start = end;
    }
    extents
}

fn shuffled(random: &mut Random) -> Vec<Kind> {
    let each = Kind::SHARES.iter();
    let mut deck: Vec<Kind> = each
        .flat_map(|&(kind, share)| std::iter::repeat_n(kind, share))
        .collect();
    for last in (1..deck.len()).rev() {
        deck.swap(last, random.below(last as u64 + 1) as usize);
    }
    deck
}

fn fill_extent(to: &mut [u8], kind: Kind, random: &mut Random) {
    match kind {
        Kind::Text => text(to, random),
        Kind::Numbers => numbers(to, random),
        Kind::Heap => heap(to, random),
        Kind::Zero => to.fill(0),
        Kind::Noise => noise(to, random),
    }
}

fn noise(to: &mut [u8], random: &mut Random) {
    for word in to.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_ne_bytes());
    }
}

const WORDS: [&str; 64] = [
    "account",
    "active",
    "address",
    "amount",
    "archive",
    "balance",
    "batch",
    "buffer",
    "cache",
    "cancelled",
    "client",
    "closed",
    "commit",
    "connection",
    "country",
    "created",
    "customer",
    "default",
    "delayed",
    "delivery",
    "device",
    "disk",
    "east",
    "error",
    "event",
    "expired",
    "failed",
    "first",
    "group",
    "handler",
    "invoice",
    "item",
    "job",
    "last",
    "limit",
    "local",
    "message",
    "network",
    "north",
    "open",
    "order",
    "parcel",
    "payment",
    "pending",
    "price",
    "queue",
    "received",
    "refund",
    "region",
    "request",
    "response",
    "retry",
    "sensor",
    "session",
    "shipped",
    "south",
    "status",
    "stock",
    "timeout",
    "updated",
    "user",
    "value",
    "warehouse",
    "west",
];

/// A word; some are much more frequent than others.
fn word(random: &mut Random) -> &'static str {
    let most = 1 + random.below(WORDS.len() as u64);
    WORDS[random.below(most) as usize]
}

fn text(to: &mut [u8], random: &mut Random) {
    let mut line = String::new();
    let mut id = random.below(1 << 30);
    let (mut rest, log) = (to, random.below(2) == 0);
    while !rest.is_empty() {
        line.clear();
        id += 1 + random.below(7);
        let second = id % 86_400;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let milli = random.below(1000);
        // Writing to a string does not fail.
        let _ = if log {
            writeln!(
                line,
                "2026-03-{:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z INFO {}.{}[{}]: {} {} {} id={id} took {}us",
                1 + id / 86_400 % 28,
                word(random),
                word(random),
                1000 + random.below(40),
                word(random),
                word(random),
                word(random),
                random.below(100_000),
            )
        } else {
            writeln!(
                line,
                "{{\"id\":{id},\"name\":\"{} {}\",\"state\":\"{}\",\"at\":\"{hour:02}:{minute:02}:{second:02}.{milli:03}\",\"tags\":[\"{}\",\"{}\"],\"total\":{}.{:02}}}",
                word(random),
                word(random),
                word(random),
                word(random),
                word(random),
                random.below(5000),
                random.below(100),
            )
        };
        let len = line.len().min(rest.len());
        let (now, behind) = rest.split_at_mut(len);
        now.copy_from_slice(&line.as_bytes()[..len]);
        rest = behind;
    }
}

fn numbers(to: &mut [u8], random: &mut Random) {
    match random.below(4) {
        0 => {
            // A measured series: the mantissa is nearly noise.
            let mut value = random.below(1_000_000) as f64 / 1000.0;
            for place in to.chunks_exact_mut(8) {
                value += (random.below(2001) as f64 - 1000.0) / 1000.0;
                place.copy_from_slice(&value.to_ne_bytes());
            }
        }
        1 => {
            // Ascending numbers, as an index has them.
            let mut value = random.below(1 << 24) as u32;
            for place in to.chunks_exact_mut(4) {
                value += 1 + random.below(16) as u32;
                place.copy_from_slice(&value.to_ne_bytes());
            }
        }
        2 => {
            // Counters, most of them small.
            for place in to.chunks_exact_mut(8) {
                let most = 1 << random.below(12);
                place.copy_from_slice(&random.below(most).to_ne_bytes());
            }
        }
        _ => {
            // A grid of few levels.
            let mut level = random.below(256);
            for place in to.chunks_exact_mut(4) {
                if random.below(4) == 0 {
                    level = (level + random.below(9) + 252) % 256;
                }
                place.copy_from_slice(&(level as f32 * 0.125).to_ne_bytes());
            }
        }
    }
}

/// Objects of six sizes: a header, a type, pointers into the neighbourhood, small numbers, a short
/// name; some were freed and have a list of free ones in them.
fn heap(to: &mut [u8], random: &mut Random) {
    const SIZES: [usize; 6] = [32, 48, 64, 80, 96, 128];
    let base = 0x7f3a_0000_0000u64 + (random.below(1 << 14) << 16);
    let size = SIZES[random.below(SIZES.len() as u64) as usize];
    let types: [u64; 8] = std::array::from_fn(|_| 0x55d0_1c00_0000 + random.below(1 << 16) * 8);
    let near = |random: &mut Random| base + random.below((16 << 20) / size as u64) * size as u64;
    for object in to.chunks_mut(size) {
        let mut words = object.chunks_exact_mut(8);
        let mut put = |value: u64| {
            if let Some(place) = words.next() {
                place.copy_from_slice(&value.to_ne_bytes());
            }
        };
        let free = random.below(8) == 0;
        put(size as u64 | u64::from(!free));
        if free {
            put(near(random));
            continue;
        }
        put(types[random.below(8) as usize]);
        put(near(random));
        put(match random.below(3) {
            0 => 0,
            _ => near(random),
        });
        put(random.below(100) | (random.below(4) << 32));
        put(random.below(10_000));
        let mut name = [0; 8];
        let from = word(random).as_bytes();
        let len = from.len().min(7);
        name[..len].copy_from_slice(&from[..len]);
        put(u64::from_ne_bytes(name));
        for _ in 7..size / 8 {
            put(match random.below(4) {
                0 => near(random),
                1 => random.below(256),
                _ => 0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const BYTES: usize = 32 << 20;

    fn filled(seed: u64) -> (Vec<u8>, Extents) {
        let mut data = vec![0xaa; BYTES];
        let extents = fill(&mut data, seed);
        (data, extents)
    }

    #[test]
    fn a_seed_always_gives_the_same_bytes_and_another_seed_others() {
        let (first, extents) = filled(1);
        assert!((first.clone(), extents) == filled(1));
        assert!(first != filled(2).0);
    }

    #[test]
    fn the_shares_are_about_what_is_said() {
        let extents = filled(3).1;
        for (kind, of_twenty) in Kind::SHARES {
            let of_kind = extents.iter().filter(|extent| extent.1 == kind);
            let bytes: usize = of_kind.map(|extent| extent.0.len()).sum();
            let (share, wanted) = (bytes as f64 / BYTES as f64, of_twenty as f64 / 20.0);
            assert!((share - wanted).abs() < 0.05, "{kind:?}: {share}");
        }
    }

    #[test]
    fn no_two_pages_but_zero_ones_are_the_same() {
        let data = filled(4).0;
        let mut seen = HashSet::new();
        let nonzero = data
            .chunks_exact(PAGE)
            .filter(|page| page.iter().any(|&byte| byte != 0));
        for page in nonzero {
            assert!(seen.insert(page));
        }
    }
}
