// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the bytes of a run are stored.

/// Code of a run's encoding in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// As they are.
    None,
    /// One LZ4 block.
    Lz4,
    /// All zero, nothing stored.
    Zero,
}

impl Codec {
    pub(super) fn code(self) -> u32 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zero => 2,
        }
    }

    pub(super) fn from_code(code: u32) -> Option<Codec> {
        match code {
            0 => Some(Codec::None),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zero),
            _ => None,
        }
    }
}

/// Compresses runs, with one buffer for all of them.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    buffer: Vec<u8>,
}

impl Compressor {
    /// The bytes to store for a run: LZ4 when that saves at least a sixteenth.
    pub(super) fn encode<'a>(&'a mut self, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        let bound = lz4_flex::block::get_maximum_output_size(raw.len());
        if self.buffer.len() < bound {
            self.buffer.resize(bound, 0);
        }
        match lz4_flex::block::compress_into(raw, &mut self.buffer) {
            Ok(len) if len <= raw.len() - raw.len() / 16 => (Codec::Lz4, &self.buffer[..len]),
            _ => (Codec::None, raw),
        }
    }
}

/// Brings a stored run back into `raw`, whose length is the run's; false when
/// the bytes are not what they should be.
pub(super) fn decode(codec: Codec, stored: &[u8], raw: &mut [u8]) -> bool {
    match codec {
        Codec::None if stored.len() == raw.len() => {
            raw.copy_from_slice(stored);
            true
        }
        Codec::Lz4 => {
            lz4_flex::block::decompress_into(stored, raw).is_ok_and(|len| len == raw.len())
        }
        Codec::None | Codec::Zero => false,
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

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            pattern in prop::collection::vec(any::<u8>(), 1..5000),
            pages in 1..6usize,
        ) {
            let raw: Vec<u8> = pattern.iter().copied().cycle().take(pages * 4096).collect();
            let mut compressor = Compressor::default();
            let (codec, stored) = compressor.encode(&raw);
            prop_assert!(stored.len() <= raw.len());
            let mut decoded = vec![0xee; raw.len()];
            prop_assert!(decode(codec, stored, &mut decoded));
            prop_assert!(decoded == raw);
        }

        // A checksum is no proof: whoever can write a file can make it right.
        #[test]
        fn hostile_bytes_decode_to_nothing_or_to_the_right_length(
            stored in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut raw = vec![0; 4096];
            decode(Codec::Lz4, &stored, &mut raw);
            prop_assert!(!decode(Codec::None, &stored, &mut raw));
            prop_assert!(!decode(Codec::Zero, &stored, &mut raw));
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
    fn bytes_that_do_not_compress_well_are_stored_as_they_are() {
        let mut compressor = Compressor::default();
        assert_eq!(compressor.encode(&[7; 4096]).0, Codec::Lz4);
        let noise: Vec<u8> = (0..4096u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8 ^ i as u8)
            .collect();
        let (codec, stored) = compressor.encode(&noise);
        assert!(codec == Codec::None && stored == noise || stored.len() <= 4096 - 256);
    }
}
