// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a test returns when its claim does not hold, or cannot be tried here.

use std::fmt::Display;
use std::panic::Location;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Failure {
    /// The claim does not hold. The text starts with the source line.
    Failed(String),
    /// The claim cannot be tried on this machine. The text is the reason.
    Skipped(String),
}

/// What every test returns.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failed claim, with the line of the caller.
    #[track_caller]
    pub fn new(message: impl Display) -> Self {
        Self::Failed(format!("{}: {message}", Location::caller()))
    }

    /// A claim that cannot be tried here.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }

    /// The same failure with words in front that say where it came from.
    pub fn within(self, context: impl Display) -> Self {
        match self {
            Self::Failed(message) => Self::Failed(format!("{context}: {message}")),
            skipped => skipped,
        }
    }
}

// `?` on any error makes a failure that names the line of the `?`.
impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::Failed(format!("{}: {error}", Location::caller()))
    }
}

/// Fails the test, with a message, when the condition does not hold.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::new(format!($($message)+)));
        }
    };
}

/// Fails the test, showing both values, when they are not equal.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    return Err($crate::failure::Failure::new(format!(
                        "{}: got {left:?}, expected {right:?}",
                        format!($($message)+)
                    )));
                }
            }
        }
    };
}
