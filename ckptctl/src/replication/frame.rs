// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames: how messages stand one behind the other on a link. `docs/replication.md` has the bytes.

use std::io;
use std::io::Read;
use std::io::Write;

use zerocopy::FromBytes;
use zerocopy::FromZeros;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;

/// Most bytes in a frame behind its header.
pub(super) const PAYLOAD_MAX: usize = 1 << 18;

/// What a frame begins with.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    kind: U32,
    len: U32,
    /// crc32c of the payload.
    payload_crc: U32,
    /// crc32c of the three fields before.
    crc: U32,
}

impl Header {
    fn expected_crc(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..12])
    }
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The link failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error("what came is not what was sent: {0}")]
    Damaged(&'static str),
}

/// Writes frames.
#[derive(Debug)]
pub(super) struct FrameWriter<W> {
    to: W,
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(to: W) -> FrameWriter<W> {
        let buffer = Vec::with_capacity(size_of::<Header>() + PAYLOAD_MAX);
        FrameWriter { to, buffer }
    }

    /// Sends a frame, whose payload `fill` appends to the buffer.
    pub(super) fn send(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.resize(size_of::<Header>(), 0);
        fill(&mut self.buffer);
        let (head, payload) = self.buffer.split_at_mut(size_of::<Header>());
        let len = u32::try_from(payload.len()).ok();
        let len = len.filter(|&len| len as usize <= PAYLOAD_MAX);
        let mut header = Header {
            kind: kind.into(),
            len: len.ok_or(io::ErrorKind::InvalidInput)?.into(),
            payload_crc: crc32c::crc32c(payload).into(),
            crc: 0.into(),
        };
        header.crc = header.expected_crc().into();
        head.copy_from_slice(header.as_bytes());
        self.to.write_all(&self.buffer)?;
        self.to.flush()
    }
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    from: R,
    payload: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(from: R) -> FrameReader<R> {
        FrameReader {
            from,
            payload: Vec::new(),
        }
    }

    /// The next frame: its kind and payload; `None` when the peer has closed the link between
    /// two. Takes no more memory than came.
    pub(super) fn next(&mut self) -> Result<Option<(u32, &[u8])>, FrameError> {
        let mut header = Header::new_zeroed();
        if !self.fill(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.crc.get() != header.expected_crc() {
            return Err(FrameError::Damaged("the header of a frame"));
        }
        let len = header.len.get() as usize;
        if len > PAYLOAD_MAX {
            return Err(FrameError::Damaged("a frame is longer than any may be"));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let read = (&mut self.from)
            .take(len as u64)
            .read_to_end(&mut payload)
            .map(|read| read == len);
        self.payload = payload;
        if !read? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if crc32c::crc32c(&self.payload) != header.payload_crc.get() {
            return Err(FrameError::Damaged("a frame"));
        }
        Ok(Some((header.kind.get(), &self.payload)))
    }

    /// Fills `bytes`; false when the link ended before the first of them.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut have = 0;
        while have < bytes.len() {
            match self.from.read(&mut bytes[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(payloads: &[&[u8]]) -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new());
        for (kind, payload) in (1..).zip(payloads) {
            writer
                .send(kind, |buffer| buffer.extend_from_slice(payload))
                .unwrap();
        }
        writer.to
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let long = vec![7; PAYLOAD_MAX];
        let bytes = frames(&[b"one", b"", &long]);
        let mut reader = FrameReader::new(bytes.as_slice());
        assert_eq!(reader.next().unwrap(), Some((1, b"one".as_slice())));
        assert_eq!(reader.next().unwrap(), Some((2, b"".as_slice())));
        assert_eq!(reader.next().unwrap(), Some((3, long.as_slice())));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_frame_that_is_too_long_is_neither_sent_nor_read() {
        let mut writer = FrameWriter::new(Vec::new());
        let sent = writer.send(1, |buffer| buffer.resize(PAYLOAD_MAX + 17, 0));
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut header = Header {
            kind: 1.into(),
            len: u32::MAX.into(),
            payload_crc: 0.into(),
            crc: 0.into(),
        };
        header.crc = header.expected_crc().into();
        let mut reader = FrameReader::new(header.as_bytes());
        assert!(matches!(reader.next(), Err(FrameError::Damaged(_))));
        assert_eq!(reader.payload.capacity(), 0);
    }

    #[test]
    fn a_bit_that_flipped_anywhere_and_a_cut_anywhere_are_found() {
        let bytes = frames(&[b"something to say"]);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(FrameReader::new(flipped.as_slice()).next().is_err(), "{at}");
        }
        for len in 1..bytes.len() {
            assert!(FrameReader::new(&bytes[..len]).next().is_err(), "{len}");
        }
    }
}
