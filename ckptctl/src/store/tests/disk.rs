// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk that forgets what was not synced: what may be found on it when the power fails.
//!
//! What is legal follows from what `docs/format.md` section 5 assumes of a file system, and from
//! nothing else. Of a file, any sectors of what was written since its last sync are there. Of a
//! directory, any of the names that were given or taken since its last sync are; only what
//! was done to one name is kept in its order. Files and directories know nothing of each other: a file
//! that was synced can be without its name, and a name without what was written under it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use crate::sys::file::FileCall;
use crate::sys::file::fake;
use crate::sys::file::fake::Verdict;

const SECTOR: usize = 512;

/// With up to so many changes of names, every way to lose some of them is tried, otherwise as
/// many ways as there would be then.
const NAMES_MAX: usize = 5;

/// A change to the disk; paths are from the root of what is looked at.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    MakeDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    SyncData(PathBuf),
    /// What was written since the last sync never gets to the disk, and no later sync says so:
    /// the system tells of a failure once.
    FailedSync(PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    RemoveDir(PathBuf),
    SyncDir(PathBuf),
    /// Not a change: somebody began to make this epoch.
    Begun(u64),
    /// Not a change: somebody was told that this epoch is durable.
    Reported(u64),
    /// Not a change: somebody was told that what was begun is not there.
    Failed,
}

impl Change {
    /// What a call changes beneath `root`.
    pub(crate) fn of(call: &FileCall<'_>, root: &Path) -> Option<Change> {
        let at = |path: &Path| within(root, path);
        Some(match call {
            FileCall::MakeDir(path) => Change::MakeDir(at(path)?),
            FileCall::Create(path) => Change::Create(at(path)?),
            FileCall::Write(path, offset, bytes) => {
                Change::Write(at(path)?, *offset, bytes.to_vec())
            }
            FileCall::Truncate(path, len) => Change::Truncate(at(path)?, *len),
            FileCall::SyncData(path) => Change::SyncData(at(path)?),
            FileCall::Rename(from, to) => Change::Rename(at(from)?, at(to)?),
            FileCall::Unlink(path) => Change::Unlink(at(path)?),
            FileCall::RemoveDir(path) => Change::RemoveDir(at(path)?),
            FileCall::SyncDir(path) => Change::SyncDir(at(path)?),
            _ => return None,
        })
    }

    pub(crate) fn is_sync(&self) -> bool {
        matches!(self, Change::SyncData(_) | Change::SyncDir(_))
    }
}

/// Where a path is beneath `root`.
fn within(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    for part in path.strip_prefix(root).ok()?.components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir if at.pop() => {}
            _ => return None,
        }
    }
    Some(at)
}

/// The log of what is changed beneath a directory, and of what is told meanwhile.
#[derive(Clone)]
pub(super) struct Log(Rc<RefCell<Vec<Change>>>);

impl Log {
    pub(super) fn note(&self, change: Change) {
        self.0.borrow_mut().push(change);
    }

    /// Notes that an epoch is made, and, when it was, that it is durable.
    pub(super) fn commit<E: std::fmt::Debug>(
        &self,
        epoch: u64,
        commit: impl FnOnce(u64) -> Result<(), E>,
    ) {
        self.note(Change::Begun(epoch));
        commit(epoch).unwrap();
        self.note(Change::Reported(epoch));
    }
}

/// Keeps a log of all changes beneath `root` while `body` runs.
pub(super) fn record(root: &Path, body: impl FnOnce(&Log)) -> Vec<Change> {
    record_failing(root, |_| None, body)
}

/// The same while calls fail for which `errno` has one.
pub(super) fn record_failing(
    root: &Path,
    errno: impl Fn(&FileCall<'_>) -> Option<i32> + 'static,
    body: impl FnOnce(&Log),
) -> Vec<Change> {
    let log = Log(Rc::default());
    let (root, noted) = (root.to_owned(), log.clone());
    let hook = move |call: &FileCall<'_>| {
        let change = Change::of(call, &root);
        match (errno(call), change) {
            (None, change) => {
                change.into_iter().for_each(|change| noted.note(change));
                Verdict::Go
            }
            (Some(errno), Some(Change::SyncData(path))) => {
                noted.note(Change::FailedSync(path));
                Verdict::Fail(errno)
            }
            (Some(errno), _) => Verdict::Fail(errno),
        }
    };
    fake::with(hook, || body(&log));
    log.0.take()
}

/// Small, and the same on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// A file's content: what is safe, and what was asked for since.
#[derive(Clone, Debug, Default)]
struct Content {
    safe: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// What becomes of what was not synced in files.
pub(crate) enum Data<'a> {
    Lost,
    Kept,
    /// The last change of each file is kept.
    Last,
    /// The first change of each file is lost.
    ButFirst,
    /// Any part of it is kept.
    Some(&'a mut Random),
}

impl Content {
    fn apply(content: &mut Vec<u8>, change: &Pending) {
        match change {
            Pending::Write(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Pending::Truncate(len) => content.resize(*len, 0),
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            Content::apply(&mut self.safe, &change);
        }
    }

    fn after_failure(&self, data: &mut Data<'_>) -> Vec<u8> {
        let count = self.pending.len();
        match data {
            Data::Lost => self.from(count),
            Data::Kept => self.from(0),
            Data::Last => self.from(count.saturating_sub(1)),
            Data::ButFirst => self.from(count.min(1)),
            Data::Some(random) => self.some_of_it(random),
        }
    }

    /// With the changes from one on, but without the writes before it.
    fn from(&self, first: usize) -> Vec<u8> {
        let mut content = self.safe.clone();
        for (change, at) in self.pending.iter().zip(0..) {
            if at >= first || matches!(change, Pending::Truncate(_)) && first < self.pending.len() {
                Content::apply(&mut content, change);
            }
        }
        content
    }

    /// Of every write since the last sync any sectors or none; the length as it was after any
    /// of them.
    fn some_of_it(&self, random: &mut Random) -> Vec<u8> {
        let mut content = self.safe.clone();
        let mut len = content.len();
        // A truncation and what follows it are ordered: lengths are journalled.
        let kept = random.below(self.pending.len() + 1);
        let odds = random.below(4);
        for change in &self.pending[..kept] {
            match change {
                Pending::Truncate(_) => {
                    Content::apply(&mut content, change);
                    len = content.len();
                }
                Pending::Write(at, bytes) => {
                    len = len.max(at + bytes.len());
                    let mut start = 0;
                    while start < bytes.len() {
                        let end = ((at + start) / SECTOR + 1) * SECTOR - at;
                        let end = end.min(bytes.len());
                        if random.below(4) >= odds {
                            let sector = bytes[start..end].to_vec();
                            Content::apply(&mut content, &Pending::Write(at + start, sector));
                        }
                        start = end;
                    }
                }
            }
        }
        match random.below(3) {
            // Data on the disk is no use before the length is.
            0 => content.truncate(self.safe.len().max(random.below(len + 1)).min(len)),
            1 => content.resize(len, 0),
            _ => {}
        }
        content
    }
}

type Entries = BTreeMap<OsString, usize>;

/// A directory: the names that are safe, those that are there, and what was done in between.
#[derive(Clone, Debug, Default)]
struct Names {
    safe: Entries,
    now: Entries,
    pending: Vec<NameChange>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Give(OsString, usize),
    Take(OsString),
    Rename(OsString, OsString),
}

impl NameChange {
    fn apply(&self, entries: &mut Entries) {
        match self {
            NameChange::Give(name, node) => {
                entries.insert(name.clone(), *node);
            }
            NameChange::Take(name) => {
                entries.remove(name);
            }
            NameChange::Rename(from, to) => {
                if let Some(node) = entries.remove(from) {
                    entries.insert(to.clone(), node);
                }
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &OsString> {
        let (first, second) = match self {
            NameChange::Give(name, _) | NameChange::Take(name) => (name, None),
            NameChange::Rename(from, to) => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Names {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// Of the changes that are to be kept, drops those that need one that is not.
    fn make_legal(&self, kept: &mut [bool]) {
        let mut lost = BTreeSet::new();
        for (change, kept) in self.pending.iter().zip(kept) {
            *kept &= change.names().all(|name| !lost.contains(name));
            if !*kept {
                lost.extend(change.names());
            }
        }
    }

    fn after_failure(&self, kept: &[bool]) -> Entries {
        let mut entries = self.safe.clone();
        for (change, _) in self.pending.iter().zip(kept).filter(|(_, kept)| **kept) {
            change.apply(&mut entries);
        }
        entries
    }
}

#[derive(Clone, Debug)]
enum Node {
    File(Content),
    Dir(Names),
}

/// What is on a disk by path: directories have no content.
pub(crate) type Found = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A directory and all beneath it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// The first is the root.
    nodes: Vec<Node>,
}

impl Disk {
    pub(crate) fn replay(changes: &[Change]) -> Disk {
        let mut disk = Disk {
            nodes: vec![Node::Dir(Names::default())],
        };
        for change in changes {
            disk.replay_one(change);
        }
        disk
    }

    fn replay_one(&mut self, change: &Change) {
        match change {
            Change::MakeDir(path) => self.give(path, Node::Dir(Names::default())),
            Change::Create(path) => self.give(path, Node::File(Content::default())),
            Change::Write(path, at, bytes) => {
                let write = Pending::Write(*at as usize, bytes.clone());
                self.file(path).pending.push(write);
            }
            Change::Truncate(path, len) => {
                let truncate = Pending::Truncate(*len as usize);
                self.file(path).pending.push(truncate);
            }
            Change::SyncData(path) => self.file(path).sync(),
            Change::FailedSync(path) => {
                let lost = |change: &Pending| matches!(change, Pending::Write(..));
                self.file(path).pending.retain(|change| !lost(change));
            }
            Change::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "within a directory");
                if self.find(from).is_some() {
                    let change = NameChange::Rename(name(from), name(to));
                    self.dir_of(to).change(change);
                }
            }
            Change::Unlink(path) | Change::RemoveDir(path) => {
                if self.find(path).is_some() {
                    self.dir_of(path).change(NameChange::Take(name(path)));
                }
            }
            Change::SyncDir(path) => {
                if let Some(Node::Dir(names)) = self.find(path).map(|node| &mut self.nodes[node]) {
                    names.safe = names.now.clone();
                    names.pending.clear();
                }
            }
            Change::Begun(_) | Change::Reported(_) | Change::Failed => {}
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let mut at = 0;
        for part in path {
            let Node::Dir(names) = &self.nodes[at] else {
                return None;
            };
            at = *names.now.get(part)?;
        }
        Some(at)
    }

    fn file(&mut self, path: &Path) -> &mut Content {
        match self.find(path).map(|node| &mut self.nodes[node]) {
            Some(Node::File(content)) => content,
            other => panic!("{} is no file: {other:?}", path.display()),
        }
    }

    fn dir_of(&mut self, path: &Path) -> &mut Names {
        let dir = path.parent().unwrap();
        match self.find(dir).map(|node| &mut self.nodes[node]) {
            Some(Node::Dir(names)) => names,
            other => panic!("{} is no directory: {other:?}", dir.display()),
        }
    }

    fn give(&mut self, path: &Path, node: Node) {
        if self.find(path).is_none() {
            let number = self.nodes.len();
            self.nodes.push(node);
            let change = NameChange::Give(name(path), number);
            self.dir_of(path).change(change);
        }
    }

    fn dirs(&self) -> impl Iterator<Item = &Names> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Dir(names) => Some(names),
            Node::File(_) => None,
        })
    }

    /// The ways in which changes of names can be lost: for each change whether it is kept.
    pub(crate) fn ways_to_lose_names(&self, random: &mut Random) -> BTreeSet<Vec<bool>> {
        let count = self.dirs().map(|names| names.pending.len()).sum();
        let wanted: Vec<Vec<bool>> = match count {
            0..=NAMES_MAX => (0..1usize << count)
                .map(|ways| (0..count).map(|bit| (ways >> bit) & 1 == 1).collect())
                .collect(),
            _ => (0..1usize << NAMES_MAX)
                .map(|way| match way {
                    0 | 1 => vec![way == 1; count],
                    _ => (0..count).map(|_| random.below(2) == 1).collect(),
                })
                .collect(),
        };
        wanted
            .into_iter()
            .map(|mut kept| {
                let mut rest = &mut kept[..];
                for names in self.dirs() {
                    let (own, behind) = rest.split_at_mut(names.pending.len());
                    names.make_legal(own);
                    rest = behind;
                }
                kept
            })
            .collect()
    }

    /// What is found after a power failure that lost names in this way.
    pub(crate) fn after_failure(&self, kept: &[bool], data: &mut Data<'_>) -> Found {
        let mut rest = kept;
        let entries: Vec<Option<Entries>> = self
            .nodes
            .iter()
            .map(|node| match node {
                Node::File(_) => None,
                Node::Dir(names) => {
                    let (own, behind) = rest.split_at(names.pending.len());
                    rest = behind;
                    Some(names.after_failure(own))
                }
            })
            .collect();
        let mut found = Found::new();
        let mut dirs = vec![(PathBuf::new(), 0)];
        while let Some((dir, node)) = dirs.pop() {
            for (name, &node) in entries[node].iter().flatten() {
                let path = dir.join(name);
                match &self.nodes[node] {
                    Node::File(content) => {
                        found.insert(path, Some(content.after_failure(data)));
                    }
                    Node::Dir(_) => {
                        found.insert(path.clone(), None);
                        dirs.push((path, node));
                    }
                }
            }
        }
        found
    }

    /// Lays out beneath `root` what is there while the power is on.
    pub(super) fn lay_out(&self, root: &Path) {
        let all = self.dirs().map(|names| names.pending.len()).sum();
        lay_out(&self.after_failure(&vec![true; all], &mut Data::Kept), root);
    }

    /// Lays out beneath `root` something that may be found after a power failure.
    pub(crate) fn fail(&self, random: &mut Random, root: &Path) {
        let ways = self.ways_to_lose_names(random);
        let way = ways.iter().nth(random.below(ways.len())).unwrap();
        lay_out(&self.after_failure(way, &mut Data::Some(random)), root);
    }
}

fn name(path: &Path) -> OsString {
    path.file_name().unwrap().to_owned()
}

pub(crate) fn lay_out(found: &Found, root: &Path) {
    for (path, content) in found {
        match content {
            Some(content) => std::fs::write(root.join(path), content).unwrap(),
            None => std::fs::create_dir(root.join(path)).unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        name.into()
    }

    /// All names that may be found, without those of the ways that are the same.
    fn names(changes: &[Change]) -> BTreeSet<String> {
        let disk = Disk::replay(changes);
        let ways = disk.ways_to_lose_names(&mut Random(1));
        let names = ways.iter().map(|kept| {
            let found = disk.after_failure(kept, &mut Data::Lost);
            let names = found.keys().map(|path| path.to_str().unwrap());
            names.collect::<Vec<_>>().join(" ")
        });
        names.collect()
    }

    #[test]
    fn names_are_lost_independently_of_each_other_and_each_in_its_order() {
        let mut changes = vec![
            Change::Create(path("a")),
            Change::Create(path("b.tmp")),
            Change::SyncDir(path("")),
            Change::Unlink(path("a")),
            Change::Rename(path("b.tmp"), path("b")),
            Change::Create(path("c")),
        ];
        let all = [
            "a b.tmp",
            "b.tmp",
            "a b",
            "b",
            "a b.tmp c",
            "b.tmp c",
            "a b c",
            "b c",
        ];
        assert_eq!(names(&changes), all.map(String::from).into());
        // What was renamed was there before.
        changes.remove(2);
        assert!(names(&changes).contains("b"));
        assert!(names(&changes).contains(""));
        assert!(names(&changes).contains("b.tmp c"));
        changes.push(Change::SyncDir(path("")));
        assert_eq!(names(&changes), ["b c".to_owned()].into());
    }

    #[test]
    fn what_is_in_a_directory_without_a_name_is_lost_whatever_was_synced_in_it() {
        let changes = [
            Change::MakeDir(path("d")),
            Change::Create(path("d/f")),
            Change::Write(path("d/f"), 0, vec![1]),
            Change::SyncData(path("d/f")),
            Change::SyncDir(path("d")),
        ];
        assert_eq!(names(&changes), ["", "d d/f"].map(String::from).into());
        let named = [&changes[..], &[Change::SyncDir(path(""))]].concat();
        assert_eq!(names(&named), ["d d/f".to_owned()].into());
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_one_brings_back() {
        let changes = [
            Change::Create(path("f")),
            Change::Write(path("f"), 0, vec![1]),
            Change::FailedSync(path("f")),
            Change::Write(path("f"), 1, vec![2]),
            Change::SyncData(path("f")),
            Change::SyncDir(path("")),
        ];
        let disk = Disk::replay(&changes);
        let found = disk.after_failure(&[], &mut Data::Kept);
        assert_eq!(found, [(path("f"), Some(vec![0, 2]))].into());
    }
}
