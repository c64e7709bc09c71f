// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is said to etcd's JSON gateway and what it says. Keys and values are base64, numbers of 64
//! bits are strings, and what is zero or empty is left out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::Deserializer;
use serde_json::Value;
use serde_json::json;

use super::TermError;

/// A condition of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum If<'a> {
    /// There is no such key.
    Absent(&'a str),
    /// The key was written last at this revision.
    Revision(&'a str, i64),
    /// The key has this value.
    Is(&'a str, &'a str),
}

/// A part of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Do<'a> {
    /// Reads a key.
    Get(&'a str),
    /// Writes a key, which stays.
    Put(&'a str, &'a str),
    /// Writes a key, which goes with this lease, and not with an earlier one.
    PutLeased(&'a str, &'a str, i64),
    /// Removes a key.
    Remove(&'a str),
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub value: String,
    /// At which it was written last.
    pub revision: i64,
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// A transaction, as it is asked for.
pub(super) fn transaction(conditions: &[If<'_>], then: &[Do<'_>], otherwise: &[Do<'_>]) -> Value {
    let compare: Vec<Value> = conditions.iter().map(condition).collect();
    let success: Vec<Value> = then.iter().map(operation).collect();
    let failure: Vec<Value> = otherwise.iter().map(operation).collect();
    json!({ "compare": compare, "success": success, "failure": failure })
}

fn condition(condition: &If<'_>) -> Value {
    match *condition {
        If::Absent(key) => {
            json!({ "key": encoded(key), "result": "EQUAL", "target": "VERSION", "version": "0" })
        }
        If::Revision(key, revision) => json!({
            "key": encoded(key), "result": "EQUAL", "target": "MOD", "mod_revision": revision.to_string()
        }),
        If::Is(key, value) => json!({
            "key": encoded(key), "result": "EQUAL", "target": "VALUE", "value": encoded(value)
        }),
    }
}

fn operation(operation: &Do<'_>) -> Value {
    match *operation {
        Do::Get(key) => json!({ "request_range": { "key": encoded(key) } }),
        Do::Put(key, value) => {
            json!({ "request_put": { "key": encoded(key), "value": encoded(value) } })
        }
        Do::PutLeased(key, value, lease) => json!({
            "request_put": { "key": encoded(key), "value": encoded(value), "lease": lease.to_string() }
        }),
        Do::Remove(key) => json!({ "request_delete_range": { "key": encoded(key) } }),
    }
}

/// A watch for the removal of a key from a revision on.
pub(super) fn watch_removal(key: &str, revision: i64) -> Value {
    json!({
        "create_request": {
            "key": encoded(key), "start_revision": revision.to_string(), "filters": ["NOPUT"]
        }
    })
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Text(String),
        Plain(i64),
    }
    match Number::deserialize(deserializer)? {
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Number::Plain(number) => Ok(number),
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub revision: i64,
}

/// A lease that was made.
#[derive(Debug, Deserialize)]
pub(super) struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: i64,
    /// In seconds.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub ttl: i64,
}

/// The answer to a transaction.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub header: Header,
    #[serde(default)]
    pub succeeded: bool,
    #[serde(default)]
    responses: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    response_range: Option<Range>,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Debug, Deserialize)]
struct Kv {
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    mod_revision: i64,
}

impl Answer {
    /// What was read, in the order of the reading.
    pub fn read(&self) -> Result<Vec<Option<Pair>>, TermError> {
        let ranges = self
            .responses
            .iter()
            .filter_map(|part| part.response_range.as_ref());
        ranges
            .map(|range| range.kvs.first().map(pair).transpose())
            .collect()
    }
}

fn pair(kv: &Kv) -> Result<Pair, TermError> {
    let no_text = |why: String| TermError::Foreign {
        key: "a value".into(),
        why,
    };
    let bytes = BASE64_STANDARD
        .decode(&kv.value)
        .map_err(|error| no_text(error.to_string()))?;
    Ok(Pair {
        value: String::from_utf8(bytes).map_err(|error| no_text(error.to_string()))?,
        revision: kv.mod_revision,
    })
}

/// What a line of a watch says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// That it began, or is still there.
    Nothing,
    /// The key was removed.
    Removed,
    /// It ended, because what it was to begin with is forgotten already.
    LookAgain,
    /// It ended.
    Failed(String),
}

impl Seen {
    pub fn of(line: &str) -> Seen {
        #[derive(Deserialize)]
        struct Line {
            result: Option<WatchResult>,
            error: Option<Value>,
        }
        #[derive(Deserialize)]
        struct WatchResult {
            #[serde(default)]
            canceled: bool,
            #[serde(default)]
            cancel_reason: String,
            #[serde(default, deserialize_with = "number")]
            compact_revision: i64,
            #[serde(default)]
            events: Vec<Value>,
        }
        match serde_json::from_str::<Line>(line) {
            Err(error) => Seen::Failed(format!("no answer of etcd's: {error}")),
            Ok(Line {
                error: Some(error), ..
            }) => Seen::Failed(error.to_string()),
            Ok(Line { result: None, .. }) => Seen::Nothing,
            Ok(Line {
                result: Some(result),
                ..
            }) => match result {
                _ if !result.events.is_empty() => Seen::Removed,
                _ if result.compact_revision != 0 => Seen::LookAgain,
                _ if result.canceled => Seen::Failed(result.cancel_reason),
                _ => Seen::Nothing,
            },
        }
    }
}

/// What etcd says when it refuses.
pub(super) fn refusal(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: Option<String>,
        error: Option<String>,
    }
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let text = refusal.and_then(|refusal| refusal.message.or(refusal.error));
    text.unwrap_or_else(|| format!("HTTP status {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_transaction_read_is_told_in_its_order() {
        let answer: Answer = serde_json::from_str(
            r#"{"header":{"revision":"7"},"succeeded":true,"responses":[
                {"response_put":{"header":{"revision":"7"}}},
                {"response_range":{"header":{"revision":"7"}}},
                {"response_range":{"kvs":[{"key":"Zm9v","mod_revision":"5","value":"YmFy"}]}}]}"#,
        )
        .unwrap();
        let bar = Pair {
            value: "bar".into(),
            revision: 5,
        };
        assert_eq!(answer.read().unwrap(), [None, Some(bar)]);
    }

    #[test]
    fn a_transaction_that_was_not_carried_out_is_seen() {
        let answer: Answer = serde_json::from_str(r#"{"header":{"revision":"7"}}"#).unwrap();
        assert!(!answer.succeeded);
    }

    #[test]
    fn a_removal_is_seen() {
        let line = r#"{"result":{"events":[{"type":"DELETE","kv":{"key":"Zm9v"}}]}}"#;
        assert_eq!(Seen::of(line), Seen::Removed);
    }

    #[test]
    fn the_beginning_of_a_watch_is_no_removal() {
        let line = r#"{"result":{"header":{"revision":"2"},"created":true}}"#;
        assert_eq!(Seen::of(line), Seen::Nothing);
    }

    #[test]
    fn a_watch_of_what_is_forgotten_looks_again() {
        let line = r#"{"result":{"canceled":true,"compact_revision":"9"}}"#;
        assert_eq!(Seen::of(line), Seen::LookAgain);
    }

    #[test]
    fn a_watch_that_etcd_ends_has_failed() {
        let line = r#"{"result":{"canceled":true,"cancel_reason":"no leader"}}"#;
        assert_eq!(Seen::of(line), Seen::Failed("no leader".into()));
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_etcd() {
        let body = br#"{"error":"e","message":"requested lease not found","code":5}"#;
        assert_eq!(refusal(404, body), "requested lease not found");
    }
}
