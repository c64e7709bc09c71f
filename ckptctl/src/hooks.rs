// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hooks: what a program wants to be told of, and asked about.

use std::sync::Arc;

use crate::context::Context;
use crate::error::Error;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before anything is saved. An error refuses the commit.
    BeforeCommit,
    /// The epoch is durable. Errors are ignored. When the commit was saved in the background,
    /// this runs in a thread of the library's, while the program goes on.
    AfterCommit,
    /// At the end of opening, the state is back; an error fails the opening. Also at the end of a
    /// rollback, which has happened whatever it returns.
    AfterRestore,
    /// At the end of opening on a spare that takes over, behind [`When::AfterRestore`]; an error
    /// fails the opening.
    AfterTakeover,
}

/// A hook: given the context and the epoch, returns 0 or an error number.
pub type Hook = dyn Fn(&Context, u64) -> i32 + Send + Sync;

/// The hooks of a context.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    before_commit: Vec<Arc<Hook>>,
    after_commit: Vec<Arc<Hook>>,
    after_restore: Vec<Arc<Hook>>,
    after_takeover: Vec<Arc<Hook>>,
}

impl Hooks {
    pub(crate) fn add(&mut self, when: When, hook: Arc<Hook>) {
        match when {
            When::BeforeCommit => self.before_commit.push(hook),
            When::AfterCommit => self.after_commit.push(hook),
            When::AfterRestore => self.after_restore.push(hook),
            When::AfterTakeover => self.after_takeover.push(hook),
        }
    }

    /// Whether anybody is to be told of a commit that is durable.
    pub(crate) fn any_after_commit(&self) -> bool {
        !self.after_commit.is_empty()
    }

    /// Asks the hooks before a commit, in order, up to the first that refuses.
    pub(crate) fn before_commit(&self, context: &Context, epoch: u64) -> Result<(), Error> {
        ask(&self.before_commit, context, epoch, "the commit")
    }

    /// Tells the hooks behind a commit, the last one first.
    pub(crate) fn after_commit(&self, context: &Context, epoch: u64) {
        for hook in self.after_commit.iter().rev() {
            let _ = hook(context, epoch);
        }
    }

    /// Tells the hooks behind a restore, in order, up to the first that refuses.
    pub(crate) fn after_restore(&self, context: &Context, epoch: u64) -> Result<(), Error> {
        ask(&self.after_restore, context, epoch, "the restore")
    }

    /// Tells the hooks behind a takeover, in order, up to the first that refuses.
    pub(crate) fn after_takeover(&self, context: &Context, epoch: u64) -> Result<(), Error> {
        ask(&self.after_takeover, context, epoch, "the takeover")
    }

    /// Tells those behind a restore after a rollback, all of them, as it has happened whatever they say;
    /// the first that is not content with it.
    pub(crate) fn after_rollback(&self, context: &Context, epoch: u64) -> Result<(), Error> {
        let codes: Vec<i32> = (self.after_restore.iter())
            .map(|hook| hook(context, epoch))
            .collect();
        match codes.into_iter().find(|&code| code != 0) {
            None => Ok(()),
            Some(code) => Err(Error::Refused { code, epoch }),
        }
    }
}

fn ask(
    hooks: &[Arc<Hook>],
    context: &Context,
    epoch: u64,
    during: &'static str,
) -> Result<(), Error> {
    match hooks
        .iter()
        .map(|hook| hook(context, epoch))
        .find(|&code| code != 0)
    {
        None => Ok(()),
        Some(code) => Err(Error::Hook { code, during }),
    }
}
