// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exit codes, the same for every verb.

use std::process::ExitCode;

use ckptctl::replication::RefusalCode;
use ckptctl::replication::SenderError;
use ckptctl::store::StoreError;

use super::program::StartError;
use super::term::TermError;

/// The exit codes, for the help.
pub const HELP: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not supported here, \
                        4 chain damaged, 5 fenced or stale";

/// How the tool ends when a verb does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed.
    Failed = 1,
    /// This machine or this version cannot do it.
    Unsupported = 3,
    /// A chain is damaged.
    Damaged = 4,
    /// There is a later term, or somebody else has the state.
    Fenced = 5,
    /// A program is there and cannot be executed.
    NotExecutable = 126,
    /// There is no such program.
    NotFound = 127,
}

/// Something that cannot be done on this machine, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// This host is not the primary, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Behind(pub String);

impl Exit {
    /// The code for an error that a verb returned.
    pub fn of(error: &anyhow::Error) -> Exit {
        if error.is::<Unsupported>() {
            return Exit::Unsupported;
        }
        if error.is::<Behind>() || matches!(error.downcast_ref(), Some(TermError::Fenced { .. })) {
            return Exit::Fenced;
        }
        match error.downcast_ref::<StartError>() {
            Some(error) if error.is_not_found() => return Exit::NotFound,
            Some(_) => return Exit::NotExecutable,
            None => {}
        }
        if let Some(error) = error.downcast_ref::<SenderError>() {
            return match error {
                SenderError::Refused {
                    code: RefusalCode::Fenced | RefusalCode::Diverged,
                    ..
                } => Exit::Fenced,
                _ => Exit::Failed,
            };
        }
        match error.downcast_ref::<StoreError>() {
            Some(StoreError::Damaged { .. }) => Exit::Damaged,
            Some(StoreError::Unsupported { .. }) => Exit::Unsupported,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
