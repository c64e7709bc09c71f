// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is wrong with a certificate, in words that do not depend on who looks at it.

use std::fmt;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustls::CertificateError;

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Another authority has signed it.
    Authority,
    /// It has expired.
    Expired {
        /// When, where that is known.
        at: Option<SystemTime>,
    },
    /// It is not valid yet.
    NotYet {
        /// From when on it is, where that is known.
        from: Option<SystemTime>,
    },
    /// It is not for the name by which its owner was reached.
    Name {
        /// That name.
        expected: String,
        /// The names that it is for.
        presented: Vec<String>,
    },
    /// It names no node.
    Nameless,
    /// Something else, in the words of who found it.
    Other(String),
}

impl Flaw {
    /// What a verification has found.
    pub(super) fn of(error: &CertificateError) -> Flaw {
        match error {
            // Authorities of the same name have different keys.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Flaw::Authority,
            CertificateError::Expired => Flaw::Expired { at: None },
            CertificateError::ExpiredContext { not_after, .. } => Flaw::Expired {
                at: Some(UNIX_EPOCH + Duration::from_secs(not_after.as_secs())),
            },
            CertificateError::NotValidYet => Flaw::NotYet { from: None },
            CertificateError::NotValidYetContext { not_before, .. } => Flaw::NotYet {
                from: Some(UNIX_EPOCH + Duration::from_secs(not_before.as_secs())),
            },
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Flaw::Name {
                expected: expected.to_str().into_owned(),
                presented: presented.clone(),
            },
            other => Flaw::Other(other.to_string()),
        }
    }
}

impl Flaw {
    /// What it is in a few words, without what to do.
    pub fn state(&self) -> &'static str {
        match self {
            Flaw::Authority => "is of another authority",
            Flaw::Expired { .. } => "has expired",
            Flaw::NotYet { .. } => "is not valid yet",
            Flaw::Name { .. } => "is for another name",
            Flaw::Nameless => "names no node",
            Flaw::Other(_) => "cannot be used",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Authority => f.write_str(
                "is of another installation's authority: issue it with the one whose ca.pem both \
                 sides have",
            ),
            Flaw::Expired { at } => {
                let ago = at.and_then(|at| SystemTime::now().duration_since(at).ok());
                f.write_str("has expired")?;
                if let Some(ago) = ago {
                    write!(f, " {} ago", span(ago))?;
                }
                f.write_str(": renew it by `ckptctl pki issue … --replace`")
            }
            Flaw::NotYet { from } => {
                let ahead = from.and_then(|from| from.duration_since(SystemTime::now()).ok());
                f.write_str("is not valid yet")?;
                if let Some(ahead) = ahead {
                    write!(f, ", but in {}", span(ahead))?;
                }
                f.write_str(": set the clocks of both hosts")
            }
            Flaw::Name {
                expected,
                presented,
            } => {
                write!(f, "is not for {expected}")?;
                if !presented.is_empty() {
                    write!(f, ", but for {}", presented.join(", "))?;
                }
                write!(
                    f,
                    ": reach it by a name that it is for, or issue it anew by `ckptctl pki issue … \
                     --address {expected} --replace`"
                )
            }
            Flaw::Nameless => {
                f.write_str("names no node: issue it by `ckptctl pki issue`, with a DNS name")
            }
            Flaw::Other(words) => {
                write!(
                    f,
                    "cannot be used: {words}; issue it by `ckptctl pki issue`"
                )
            }
        }
    }
}

/// A span as people say it.
fn span(span: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (number, unit) = match span.as_secs() {
        seconds @ 0..MINUTE => (seconds, "second"),
        seconds @ MINUTE..HOUR => (seconds / MINUTE, "minute"),
        seconds @ HOUR..DAY => (seconds / HOUR, "hour"),
        seconds => (seconds / DAY, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_the_largest_unit_that_fits() {
        let said = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(said(1), "1 second");
        assert_eq!(said(119), "1 minute");
        assert_eq!(said(7_200), "2 hours");
        assert_eq!(said(40 * 24 * 3_600), "40 days");
    }
}
