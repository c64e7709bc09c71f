// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `DIR@EPOCH`: how people name a chain and an epoch of it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A chain's directory, and an epoch of it or the newest.
///
/// `DIR@EPOCH` names an epoch when what follows the last `@` is a number;
/// anything else is a directory. A directory whose own name ends like that is
/// written with a slash behind it: `backup@3/`, `backup@3/@12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSpec {
    /// The directory.
    pub dir: PathBuf,
    /// The epoch; `None` for the newest.
    pub epoch: Option<u64>,
}

/// What is wrong with a `DIR@EPOCH`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing stands before the `@`, or nothing at all.
    #[error("no directory given: write DIR or DIR@EPOCH")]
    NoDir,
    /// The number is no epoch.
    #[error("{0} is no epoch: epochs are whole numbers from 1, see `ckptctl log DIR`")]
    NoEpoch(String),
}

impl ChainSpec {
    /// Takes `DIR` or `DIR@EPOCH` apart.
    pub fn parse(text: &OsStr) -> Result<ChainSpec, SpecError> {
        let bytes = text.as_bytes();
        let at = bytes.iter().rposition(|&byte| byte == b'@');
        let split = at.map(|at| (&bytes[..at], &bytes[at + 1..]));
        let (dir, epoch) = match split {
            Some((dir, digits))
                if !digits.is_empty() && digits.iter().all(|digit| digit.is_ascii_digit()) =>
            {
                let digits = String::from_utf8_lossy(digits);
                match digits.parse() {
                    Ok(epoch) if epoch > 0 => (dir, Some(epoch)),
                    _ => return Err(SpecError::NoEpoch(digits.into())),
                }
            }
            _ => (bytes, None),
        };
        if dir.is_empty() {
            return Err(SpecError::NoDir);
        }
        Ok(ChainSpec {
            dir: OsStr::from_bytes(dir).into(),
            epoch,
        })
    }
}

impl fmt::Display for ChainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dir.display())?;
        match self.epoch {
            Some(epoch) => write!(f, "@{epoch}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, Option<u64>), SpecError> {
        ChainSpec::parse(OsStr::new(text)).map(|spec| (spec.dir.display().to_string(), spec.epoch))
    }

    #[test]
    fn a_number_behind_the_last_at_sign_is_an_epoch() {
        assert_eq!(parse("a/b@12"), Ok(("a/b".into(), Some(12))));
        assert_eq!(parse("a@1@2"), Ok(("a@1".into(), Some(2))));
    }

    #[test]
    fn anything_else_is_a_directory() {
        for dir in ["a", "me@host", "a@3/", "a@", "a@-1", "a@1x"] {
            assert_eq!(parse(dir), Ok((dir.into(), None)));
        }
    }

    #[test]
    fn what_cannot_be_an_epoch_is_refused() {
        assert_eq!(parse("a@0"), Err(SpecError::NoEpoch("0".into())));
        assert!(matches!(
            parse("a@99999999999999999999"),
            Err(SpecError::NoEpoch(_))
        ));
        assert_eq!(parse("@4"), Err(SpecError::NoDir));
        assert_eq!(parse(""), Err(SpecError::NoDir));
    }
}
