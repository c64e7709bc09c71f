// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which codec a writer uses.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// How the pages of new records are compressed. Whatever it says, a run that does not become
/// smaller is stored as it is, and everything that was ever written can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: costs little, saves much.
    #[default]
    Lz4,
    /// Zstandard at this level, one of [`Compression::ZSTD_LEVELS`]: saves more and costs more.
    Zstd(i32),
}

impl Compression {
    /// Levels of zstd.
    pub const ZSTD_LEVELS: RangeInclusive<i32> = 1..=19;
    /// Level of zstd when none is named.
    pub const ZSTD_LEVEL: i32 = 3;
    /// What [`Compression::from_str`] understands, as the rest of a sentence.
    pub const EXPECTED: &str = "it can be lz4, zstd, zstd:LEVEL with a level from 1 to 19, or none";

    /// True when the level is one that there is.
    pub fn is_valid(self) -> bool {
        match self {
            Compression::None | Compression::Lz4 => true,
            Compression::Zstd(level) => Self::ZSTD_LEVELS.contains(&level),
        }
    }
}

impl FromStr for Compression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Compression, &'static str> {
        let compression = match text.split_once(':') {
            None if text == "none" => Some(Compression::None),
            None if text == "lz4" => Some(Compression::Lz4),
            None if text == "zstd" => Some(Compression::Zstd(Self::ZSTD_LEVEL)),
            Some(("zstd", level)) => level.parse().ok().map(Compression::Zstd),
            _ => None,
        };
        compression
            .filter(|compression| compression.is_valid())
            .ok_or(Self::EXPECTED)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for compression in [
            Compression::None,
            Compression::Lz4,
            Compression::Zstd(1),
            Compression::Zstd(19),
        ] {
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for text in [
            "", "LZ4", "lz4:1", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "gzip",
        ] {
            assert_eq!(
                text.parse::<Compression>(),
                Err(Compression::EXPECTED),
                "{text}"
            );
        }
    }
}
