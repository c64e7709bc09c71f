// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the bytes of a run are stored.

use std::fmt;

use super::compression::Compression;

/// Code of a run's encoding in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// As they are.
    None,
    /// One LZ4 block.
    Lz4,
    /// All zero, nothing stored.
    Zero,
    /// One Zstandard frame.
    Zstd,
    /// Nothing stored: as other pages of the parent's image.
    Parent,
    /// Nothing stored: as other pages that the same record stores.
    Here,
}

impl Codec {
    const ALL: [Codec; 6] = [
        Codec::None,
        Codec::Lz4,
        Codec::Zero,
        Codec::Zstd,
        Codec::Parent,
        Codec::Here,
    ];

    pub(super) fn code(self) -> u32 {
        self as u32
    }

    pub(super) fn from_code(code: u32) -> Option<Codec> {
        Codec::ALL.get(code as usize).copied()
    }

    /// True when a run's bytes are stored in its record.
    pub(super) fn has_data(self) -> bool {
        matches!(self, Codec::None | Codec::Lz4 | Codec::Zstd)
    }

    /// True when a run names other pages.
    pub(super) fn is_reference(self) -> bool {
        matches!(self, Codec::Parent | Codec::Here)
    }
}

/// Compresses runs, with one state for all of them.
pub(super) enum Compressor {
    None,
    Lz4,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    /// One for a choice. Where zstd finds no memory for its state, LZ4 does.
    pub(super) fn new(compression: Compression) -> Compressor {
        match compression {
            Compression::None => Compressor::None,
            Compression::Lz4 => Compressor::Lz4,
            Compression::Zstd(level) => match zstd::bulk::Compressor::new(level) {
                Ok(state) => Compressor::Zstd(Box::new(state)),
                Err(_) => Compressor::Lz4,
            },
        }
    }

    /// Bytes that `encode` needs room for.
    pub(super) fn room(&self, raw_len: usize) -> usize {
        let bound = match self {
            Compressor::None => 0,
            Compressor::Lz4 => lz4_flex::block::get_maximum_output_size(raw_len),
            Compressor::Zstd(_) => zstd::zstd_safe::compress_bound(raw_len),
        };
        bound.max(raw_len)
    }

    /// Puts the bytes to store for a run at the start of `to`, compressed when that saves at
    /// least a sixteenth; returns how, and their number.
    pub(super) fn encode(&mut self, raw: &[u8], to: &mut [u8]) -> (Codec, usize) {
        let (codec, len) = match self {
            Compressor::None => (Codec::None, None),
            Compressor::Lz4 => (Codec::Lz4, lz4_flex::block::compress_into(raw, to).ok()),
            Compressor::Zstd(state) => (Codec::Zstd, state.compress_to_buffer(raw, to).ok()),
        };
        match len {
            Some(len) if len <= raw.len() - raw.len() / 16 => (codec, len),
            _ => {
                to[..raw.len()].copy_from_slice(raw);
                (Codec::None, raw.len())
            }
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compressor::None => "None",
            Compressor::Lz4 => "Lz4",
            Compressor::Zstd(_) => "Zstd",
        })
    }
}

/// Brings stored runs back, with one state for all of them.
#[derive(Default)]
pub(super) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    /// Brings a stored run back into `raw`, whose length is the run's; false when the bytes are
    /// not what they should be.
    pub(super) fn decode(&mut self, codec: Codec, stored: &[u8], raw: &mut [u8]) -> bool {
        match codec {
            Codec::None if stored.len() == raw.len() => {
                raw.copy_from_slice(stored);
                true
            }
            Codec::Lz4 => {
                lz4_flex::block::decompress_into(stored, raw).is_ok_and(|len| len == raw.len())
            }
            Codec::Zstd => {
                let state = match &mut self.zstd {
                    Some(state) => state,
                    None => match zstd::bulk::Decompressor::new() {
                        Ok(state) => self.zstd.insert(state),
                        Err(_) => return false,
                    },
                };
                state
                    .decompress_to_buffer(stored, raw)
                    .is_ok_and(|len| len == raw.len())
            }
            Codec::None | Codec::Zero | Codec::Parent | Codec::Here => false,
        }
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

/// True when every byte is zero. As fast as comparing memory is.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| *chunk == ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHOICES: [Compression; 4] = [
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(1),
        Compression::Zstd(9),
    ];

    fn encode(compression: Compression, raw: &[u8]) -> (Codec, Vec<u8>) {
        let mut compressor = Compressor::new(compression);
        let mut stored = vec![0xaa; compressor.room(raw.len())];
        let (codec, len) = compressor.encode(raw, &mut stored);
        stored.truncate(len);
        (codec, stored)
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            pattern in prop::collection::vec(any::<u8>(), 1..5000),
            pages in 1..6usize,
        ) {
            let raw: Vec<u8> = pattern.iter().copied().cycle().take(pages * 4096).collect();
            let mut decompressor = Decompressor::default();
            for choice in CHOICES {
                let (codec, stored) = encode(choice, &raw);
                prop_assert!(stored.len() <= raw.len());
                let mut decoded = vec![0xee; raw.len()];
                prop_assert!(decompressor.decode(codec, &stored, &mut decoded));
                prop_assert!(decoded == raw);
            }
        }

        // A checksum is no proof: whoever can write a file can make it right.
        #[test]
        fn hostile_bytes_decode_to_nothing_or_to_the_right_length(
            stored in prop::collection::vec(any::<u8>(), 0..300),
            magic in any::<bool>(),
        ) {
            let mut raw = vec![0; 4096];
            let mut decompressor = Decompressor::default();
            decompressor.decode(Codec::Lz4, &stored, &mut raw);
            let magic: &[u8] = if magic { &[0x28, 0xb5, 0x2f, 0xfd] } else { &[] };
            decompressor.decode(Codec::Zstd, &[magic, &stored].concat(), &mut raw);
            for codec in [Codec::None, Codec::Zero, Codec::Parent, Codec::Here] {
                prop_assert!(!decompressor.decode(codec, &stored, &mut raw));
            }
        }

        #[test]
        fn one_byte_makes_a_page_something_else_than_zero(
            len in 0..9000usize,
            at in any::<prop::sample::Index>(),
        ) {
            let mut bytes = vec![0; len];
            prop_assert!(is_zero(&bytes));
            if len > 0 {
                bytes[at.index(len)] = 1;
                prop_assert!(!is_zero(&bytes));
            }
        }
    }

    #[test]
    fn a_frame_of_another_length_than_its_run_is_refused() {
        let (codec, stored) = encode(Compression::Zstd(1), &[7; 8192]);
        assert_eq!(codec, Codec::Zstd);
        for len in [4096, 8191, 12288] {
            assert!(!Decompressor::default().decode(codec, &stored, &mut vec![0; len]));
        }
    }

    #[test]
    fn bytes_that_do_not_compress_well_are_stored_as_they_are() {
        let noise: Vec<u8> = (0..4096u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8 ^ i as u8)
            .collect();
        for choice in CHOICES {
            let even = encode(choice, &[7; 4096]).0;
            assert_eq!(even == Codec::None, choice == Compression::None);
            let (codec, stored) = encode(choice, &noise);
            assert!(codec == Codec::None && stored == noise || stored.len() <= 4096 - 256);
        }
    }

    #[test]
    fn every_code_is_its_own() {
        for code in 0..6 {
            assert_eq!(Codec::from_code(code).map(Codec::code), Some(code));
        }
        assert_eq!(Codec::from_code(6), None);
    }
}
