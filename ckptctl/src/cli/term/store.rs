// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What etcd knows of a service, and how that begins.

use std::time::Duration;

use super::Config;
use super::Held;
use super::State;
use super::TermError;
use super::gateway::Gateway;
use super::held::new_token;
use super::held::now_ns;
use super::state::Keys;
use super::wire::Do;
use super::wire::If;

/// How long etcd may take for an answer on which no lease depends.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What etcd knows of a service.
#[derive(Debug)]
pub struct Store {
    config: Config,
    keys: Keys,
    gateway: Gateway,
}

impl Store {
    /// That of a configuration. Nothing is asked yet.
    pub fn new(config: &Config) -> Result<Store, TermError> {
        config.check()?;
        Ok(Store {
            keys: Keys::of(&config.service),
            gateway: Gateway::new(config, PATIENCE)?,
            config: config.clone(),
        })
    }

    /// The state of the service; `None` when there is no such service.
    pub fn state(&self) -> Result<Option<State>, TermError> {
        let (_, [state]) = self.gateway.read([&self.keys.state])?;
        state
            .map(|pair| State::from_json(&self.keys.state, &pair.value, pair.revision))
            .transpose()
    }

    /// Begins the first term of the service, with this node as its primary and the only one that is in sync.
    ///
    /// # Errors
    ///
    /// [`TermError::Founded`] when the service is there already. After [`TermError::NoAnswer`] it may be
    /// there or not; if it is, this node may campaign for its next term.
    pub fn found(&self) -> Result<Held, TermError> {
        let token = new_token(&self.config)?;
        let mut state = State::beginning(1, &self.config.node);
        let began_ns = now_ns()?;
        let lease = self.gateway.grant(self.config.ttl)?;
        let outcome = self.gateway.transaction(
            &[If::Absent(&self.keys.state), If::Absent(&self.keys.lease)],
            &[
                Do::Put(&self.keys.state, &state.to_json()),
                Do::PutLeased(&self.keys.lease, &token, lease),
            ],
            &[Do::Get(&self.keys.state), Do::Get(&self.keys.lease)],
        )?;
        if outcome.done {
            state.revision = outcome.revision;
            return Held::begin(&self.config, &token, state, Some(began_ns));
        }
        let [Some(found), lease] = &outcome.read[..] else {
            return Err(TermError::Foreign {
                key: self.keys.lease.clone(),
                why: "it is there without a state".into(),
            });
        };
        let state = State::from_json(&self.keys.state, &found.value, found.revision)?;
        // The request was repeated, because the answer to the first was lost.
        if lease.as_ref().is_some_and(|lease| lease.value == token) {
            return Held::begin(&self.config, &token, state, None);
        }
        Err(TermError::Founded {
            service: self.config.service.clone(),
            state,
        })
    }
}
