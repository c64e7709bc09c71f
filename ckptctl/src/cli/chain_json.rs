// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain, its commits and its damage as JSON, the same for every verb.

use ckptctl::store::Chain;
use ckptctl::store::CommitInfo;
use ckptctl::store::Damage;
use ckptctl::store::TornTail;
use serde_json::Value;
use serde_json::json;

use super::figures::hex;
use super::figures::time;

/// What there is to say about a chain as a whole.
pub fn chain(chain: &Chain) -> Value {
    json!({
        "dir": chain.dir().display().to_string(),
        "chain_id": hex(&chain.chain_id()),
        "segments": chain.segments(),
        "bytes": chain.bytes(),
        "torn": chain.torn().map(torn),
        "damage": chain.damage().iter().map(damage).collect::<Vec<_>>(),
    })
}

/// What there is to say about a commit without reading its meta section.
pub fn commit(chain: &Chain, commit: &CommitInfo) -> Value {
    json!({
        "epoch": commit.epoch,
        "parent": commit.parent,
        "kind": commit.kind.name(),
        "generation": hex(&commit.generation),
        "time": time(commit.time_ns),
        "time_ns": commit.time_ns,
        "pause_ns": commit.pause_ns,
        "data_pages": commit.data_pages,
        "zero_pages": commit.zero_pages,
        "shared_pages": commit.shared_pages,
        "unchanged_pages": commit.unchanged_pages,
        "raw_bytes": commit.raw_bytes(),
        "stored_bytes": commit.stored_bytes,
        "file": chain.file_of(commit).display().to_string(),
        "offset": commit.offset,
        "hash": commit.restorable.then(|| hex(&commit.hash)),
        "compacted": commit.compacted,
        "restorable": commit.restorable,
    })
}

/// A damage.
pub fn damage(damage: &Damage) -> Value {
    json!({
        "file": damage.file.display().to_string(),
        "offset": damage.offset,
        "what": damage.what,
        "lost": damage.lost,
    })
}

/// A torn tail.
pub fn torn(torn: &TornTail) -> Value {
    json!({
        "file": torn.file.display().to_string(),
        "offset": torn.offset,
        "bytes": torn.bytes,
        "epoch": torn.epoch,
    })
}
