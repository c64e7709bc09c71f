// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Certificates that were found, with what is wrong with each, as a table or as JSON.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::anyhow;
use anyhow::bail;
use ckptctl::replication::Credentials;
use ckptctl::replication::credentials::AUTHORITY;
use ckptctl::replication::credentials::CERTIFICATE;
use serde_json::Value;
use serde_json::json;

use super::super::figures;
use super::super::output;
use super::super::output::Column;
use super::authority::AUTHORITY_KEY;
use super::authority::Authority;
use super::certificate::Certificate;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates that end so soon are to be renewed.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// A certificate in a file.
pub struct Entry {
    path: PathBuf,
    certificate: Certificate,
    /// What is wrong, each with what to do.
    pub wrong: Vec<String>,
}

/// The certificates of a file, of a node's directory, or of an authority's with its nodes.
pub fn of(path: &Path) -> anyhow::Result<Vec<Entry>> {
    if !path.is_dir() {
        return in_file(path);
    }
    let mut found = in_dir(path)?;
    let listed = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = listed.map_err(|error| anyhow!("cannot list {}: {error}", path.display()))?;
    let mut nodes: Vec<PathBuf> = listed.iter().map(fs::DirEntry::path).collect();
    nodes.retain(|node| node.join(CERTIFICATE).is_file());
    nodes.sort();
    for node in nodes {
        found.extend(in_dir(&node)?.into_iter().filter(is_node));
    }
    match found.is_empty() {
        true => bail!(
            "no certificates in {}: name a directory that `ckptctl pki` has made",
            path.display()
        ),
        false => Ok(found),
    }
}

/// A node's copy of the authority's certificate is that of the authority.
fn is_node(entry: &Entry) -> bool {
    entry.path.ends_with(CERTIFICATE)
}

fn in_file(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let pem = fs::read(path).map_err(|error| {
        let path = path.display();
        anyhow!("cannot read {path}: {error}")
    })?;
    let now = SystemTime::now();
    let found = Certificate::all_in(path, &pem)?;
    let entries = found.into_iter().map(|certificate| {
        let flaw = certificate.flaw(now);
        let wrong = flaw.map(|flaw| match certificate.is_authority {
            true => format!(
                "{}: the authority {}; make a new one by `ckptctl pki init`",
                path.display(),
                flaw.state()
            ),
            false => format!("{}: the certificate {flaw}", path.display()),
        });
        Entry {
            path: path.to_owned(),
            certificate,
            wrong: wrong.into_iter().collect(),
        }
    });
    Ok(entries.collect())
}

fn in_dir(dir: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let (authority, node) = (dir.join(AUTHORITY), dir.join(CERTIFICATE));
    if authority.is_file() {
        found.extend(in_file(&authority)?);
        if dir.join(AUTHORITY_KEY).exists() {
            judge(found.first_mut(), Authority::open(dir).err());
        }
    }
    if node.is_file() {
        let mut own = in_file(&node)?;
        let refused = Credentials::load(dir).err().map(anyhow::Error::from);
        judge(own.first_mut(), refused);
        found.extend(own);
    }
    Ok(found)
}

/// Adds what was found by using it; by its dates, it may have been found already.
fn judge(entry: Option<&mut Entry>, refused: Option<anyhow::Error>) {
    if let (Some(entry), Some(refused)) = (entry, refused) {
        if entry.wrong.is_empty() {
            entry.wrong.push(refused.to_string());
        }
    }
}

/// Prints them on stdout.
pub fn print(entries: &[Entry], json: bool) -> anyhow::Result<()> {
    match json {
        true => {
            let entries: Vec<Value> = entries.iter().map(as_json).collect();
            output::print_json(&json!({ "certificates": entries }))
        }
        false => output::print(&as_table(entries)),
    }
}

fn as_table(entries: &[Entry]) -> String {
    let columns = [
        Column::Words("FILE"),
        Column::Words("NAME"),
        Column::Words("SERVICES"),
        Column::Words("REACHED BY"),
        Column::Words("UNTIL"),
        Column::Words("STATE"),
        Column::Words("SHA256"),
    ];
    let now = SystemTime::now();
    let listed = |words: &[String]| match words.is_empty() {
        true => "-".to_owned(),
        false => words.join(","),
    };
    let rows = entries.iter().map(|entry| {
        let certificate = &entry.certificate;
        vec![
            entry.path.display().to_string(),
            certificate.name.clone(),
            listed(certificate.services()),
            listed(&certificate.reached_by()),
            figures::time(since_1970_ns(certificate.not_after)),
            state(entry, now),
            certificate.sha256.clone(),
        ]
    });
    output::table(&columns, rows)
}

/// In a word or three.
fn state(entry: &Entry, now: SystemTime) -> String {
    if let Some(flaw) = entry.certificate.flaw(now) {
        return flaw.state().to_owned();
    }
    if !entry.wrong.is_empty() {
        return "cannot be used".into();
    }
    match entry.certificate.not_after.duration_since(now) {
        Ok(left) if left < SOON => {
            let days = left.as_secs() / DAY.as_secs();
            format!("ends in {}", figures::counted(days, "day"))
        }
        _ => "good".into(),
    }
}

fn as_json(entry: &Entry) -> Value {
    let certificate = &entry.certificate;
    json!({
        "file": entry.path.display().to_string(),
        "kind": if certificate.is_authority { "authority" } else { "node" },
        "name": certificate.name,
        "services": certificate.services(),
        "reached_by": certificate.reached_by(),
        "issuer": certificate.issuer,
        "not_before_ns": since_1970_ns(certificate.not_before),
        "not_after_ns": since_1970_ns(certificate.not_after),
        "sha256": certificate.sha256,
        "wrong": entry.wrong,
    })
}

fn since_1970_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
