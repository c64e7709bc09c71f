// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Watches who holds itself for the primary, and compares what is left at the end.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ckptctl::sys::clock::since_boot_ns;
use ckptctl::sys::lease_page;
use ckptctl::sys::lease_page::LeasePage;
use serde_json::Value;

use crate::hosts::ckptctl;
use crate::keys::Keys;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);

/// Who watches both hosts' pages.
pub struct Referee<'a> {
    pages: [PathBuf; 2],
    keys: &'a Keys,
    /// Whose each term was.
    terms: Mutex<BTreeMap<u64, usize>>,
    stopped: AtomicBool,
}

impl<'a> Referee<'a> {
    /// Of the hosts with these chains.
    pub fn new(stores: [PathBuf; 2], keys: &'a Keys) -> Referee<'a> {
        Referee {
            pages: stores.map(|dir| dir.join(lease_page::FILE_NAME)),
            keys,
            terms: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// The term that a host holds now, and until when.
    fn held(&self, host: usize) -> Option<(u64, u64)> {
        // While it is being made it is none yet.
        let page = LeasePage::in_file(&self.pages[host]).ok()??;
        page.is_valid()
            .then(|| (page.term(), page.valid_until_ns()))
    }

    /// Who is the primary now: the last that held a term, if nobody does.
    pub fn primary(&self) -> Option<usize> {
        let terms = self.terms.lock().expect("nobody panicked with it");
        terms.last_key_value().map(|(_, &host)| host)
    }

    /// Whether a host holds a term now.
    pub fn is_primary(&self, host: usize) -> bool {
        self.held(host).is_some()
    }

    /// The last term.
    pub fn term(&self) -> u64 {
        let terms = self.terms.lock().expect("nobody panicked with it");
        terms.last_key_value().map_or(0, |(&term, _)| term)
    }

    /// Lets it end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Watches until it is stopped.
    pub fn watch(&self) {
        while !self.stopped.load(Ordering::SeqCst) {
            self.look();
            thread::sleep(LOOK);
        }
    }

    fn look(&self) {
        let west = self.held(0);
        let east = self.held(1);
        for (host, held) in [west, east].into_iter().enumerate() {
            if let Some((term, _)) = held {
                self.note(term, host);
            }
        }
        if let (Some((first, _)), Some((second, until))) = (west, east) {
            // West still has what it had before it was looked at east, and east's has not passed.
            let still = self.held(0).map(|(term, _)| term) == Some(first);
            if still && since_boot_ns().is_ok_and(|now| now < until) {
                self.keys.break_promise(&format!(
                    "west held term {first} while east held term {second}"
                ));
            }
        }
    }

    fn note(&self, term: u64, host: usize) {
        let mut terms = self.terms.lock().expect("nobody panicked with it");
        match terms.entry(term) {
            Entry::Vacant(entry) => {
                entry.insert(host);
            }
            Entry::Occupied(entry) if *entry.get() != host => self
                .keys
                .break_promise(&format!("both hosts held term {term}")),
            Entry::Occupied(_) => {}
        }
    }
}

/// Looks whether the chains are sound, and have the same epochs for the same commits.
pub fn compare(dir: &Path, keys: &Keys) -> io::Result<()> {
    let mut generations = BTreeMap::new();
    for chain in ["west", "east"] {
        if let Err(error) = ckptctl(dir, &["verify", chain]) {
            keys.break_promise(&format!("{chain}'s chain is damaged: {error}"));
            continue;
        }
        let log = ckptctl(dir, &["log", "--json", chain])?;
        let log: Value = serde_json::from_str(&log)?;
        let commits = log["commits"]
            .as_array()
            .filter(|commits| !commits.is_empty());
        let Some(commits) = commits else {
            keys.break_promise(&format!("{chain} has no commits"));
            continue;
        };
        for commit in commits {
            let epoch = commit["epoch"].as_u64();
            let Some((epoch, generation)) = epoch.zip(commit["generation"].as_str()) else {
                return Err(io::Error::other(format!("no commit: {commit}")));
            };
            let known = generations
                .entry(epoch)
                .or_insert_with(|| generation.to_owned());
            if known != generation {
                keys.break_promise(&format!("epoch {epoch} was used twice"));
            }
        }
    }
    Ok(())
}
