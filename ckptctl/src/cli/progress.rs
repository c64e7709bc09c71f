// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far a program's chain is, as its supervisor sees it.

use ckptctl::store::Chain;
use ckptctl::store::Kind;
use ckptctl::store::StoreError;

use super::program::Program;

/// How far a program's chain is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Whether it is known which chain the program has.
    known: bool,
    /// It, unless there is none yet.
    chain: Option<Chain>,
    /// The newest epoch.
    pub epoch: Option<u64>,
    /// The newest epoch that the program committed itself; every restore is an epoch, too.
    pub commit: Option<u64>,
}

impl Progress {
    /// Looks at the chain. Damage is an error when it would keep the program from going on.
    pub fn of(program: &Program) -> Result<Progress, StoreError> {
        let Some(dir) = program.store() else {
            return Ok(Progress::default());
        };
        let chain = match Chain::open(dir) {
            Ok(chain) => chain,
            Err(StoreError::NoChain { .. }) => {
                return Ok(Progress {
                    known: true,
                    ..Progress::default()
                });
            }
            Err(error) => return Err(error),
        };
        if program.told_epoch().is_none() {
            chain.newest()?;
        }
        let epoch = chain.commits().next_back().map(|record| record.epoch);
        let commit = {
            let mut newest_first = chain.commits().rev();
            let commit = newest_first.find(|record| record.kind == Kind::Commit);
            commit.map(|commit| commit.epoch)
        };
        Ok(Progress {
            known: true,
            epoch,
            commit,
            chain: Some(chain),
        })
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self.epoch {
            Some(epoch) => format!(" at epoch {epoch}"),
            None if self.known => " before its first commit".into(),
            None => String::new(),
        }
    }

    /// The commit whose state a start begins with, given the epoch that it is told.
    pub fn begins_with(&self, told: Option<u64>) -> Option<u64> {
        self.commit_at(told.or(self.epoch)?)
    }

    /// The newest commit before another that it builds on and that can be restored.
    pub fn before(&self, commit: u64) -> Option<u64> {
        let chain = self.chain.as_ref()?;
        let mut at = commit;
        loop {
            at = self.commit_at(chain.find(at)?.parent?)?;
            if chain.find(at)?.restorable {
                return Some(at);
            }
        }
    }

    /// The commit of whose state an epoch is.
    fn commit_at(&self, mut epoch: u64) -> Option<u64> {
        let chain = self.chain.as_ref()?;
        loop {
            let record = chain.find(epoch)?;
            match record.kind {
                Kind::Commit => return Some(epoch),
                _ => epoch = record.parent?,
            }
        }
    }
}
