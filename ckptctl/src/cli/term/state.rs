// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What etcd remembers of a service.

use serde::Deserialize;
use serde::Serialize;

use super::TermError;

/// What etcd remembers of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last term that began. 1, 2, 3 …
    pub term: u64,
    /// Whose term that is.
    pub primary: String,
    /// The nodes that have everything that was ever acknowledged as replicated, and still do
    /// when they are started again. Sorted.
    pub in_sync: Vec<String>,
    /// etcd's revision of this state.
    #[serde(skip)]
    pub revision: i64,
}

impl State {
    /// That at the beginning of a term. Only its primary is known to have everything: the others of
    /// the term before are added when they have shown that they do.
    pub(super) fn beginning(term: u64, primary: &str) -> State {
        State {
            term,
            primary: primary.into(),
            in_sync: vec![primary.into()],
            revision: 0,
        }
    }

    /// Whether a node has everything that was ever acknowledged as replicated.
    pub fn is_in_sync(&self, node: &str) -> bool {
        self.in_sync.iter().any(|in_sync| in_sync == node)
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings")
    }

    pub(super) fn from_json(key: &str, json: &str, revision: i64) -> Result<State, TermError> {
        match serde_json::from_str::<State>(json) {
            Ok(state) => Ok(State { revision, ..state }),
            Err(error) => Err(TermError::Foreign {
                key: key.into(),
                why: error.to_string(),
            }),
        }
    }
}

/// The keys of a service.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The [`State`].
    pub state: String,
    /// There while the primary holds its lease; the value names who holds it.
    pub lease: String,
}

impl Keys {
    pub fn of(service: &str) -> Keys {
        Keys {
            state: format!("/ckpt/{service}/state"),
            lease: format!("/ckpt/{service}/lease"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_documented_json() {
        let json = State::beginning(3, "left").to_json();
        assert_eq!(json, r#"{"term":3,"primary":"left","in_sync":["left"]}"#);
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = State {
            revision: 12,
            ..State::beginning(3, "left")
        };
        let read = State::from_json("key", &state.to_json(), 12).unwrap();
        assert_eq!(read, state);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        assert!(State::from_json("key", "{}", 1).is_err());
    }
}
