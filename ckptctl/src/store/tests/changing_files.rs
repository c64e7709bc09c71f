// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A reader whose files a writer changes between two of its calls.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::sys::file::FileCall;
use crate::sys::file::fake;
use crate::sys::file::fake::Verdict;

fn two_commits(dir: &Path) -> (PathBuf, Vec<u8>) {
    let mut writer = open(dir, 1 << 20).unwrap();
    append(&mut writer, 1).unwrap();
    append(&mut writer, 2).unwrap();
    let path = dir.join("segment-0000000001.ckpt");
    let content = fs::read(&path).unwrap();
    (path, content)
}

/// Opens a chain; before its `look`th look at the directory, the segment is
/// given the content `before(look)`.
fn open_while(
    dir: &Path,
    path: PathBuf,
    before: impl Fn(usize) -> Option<Vec<u8>> + 'static,
) -> Result<Chain, StoreError> {
    let mut look = 0;
    let hook = move |call: &FileCall<'_>| {
        if let FileCall::ListDir(_) = call {
            if let Some(content) = before(look) {
                fs::write(&path, content).unwrap();
            }
            look += 1;
        }
        Verdict::Go
    };
    fake::with(hook, || Chain::open(dir))
}

#[test]
fn what_is_wrong_only_once_was_half_written_and_is_no_damage() {
    let temp = memory_dir();
    let (path, content) = two_commits(temp.path());
    let chain = open_while(temp.path(), path, move |look| {
        let mut content = content.clone();
        if look == 0 {
            let footer = content.len() - 100;
            content[footer] ^= 1;
        }
        Some(content)
    });
    assert_holds(&chain.unwrap(), 2);
}

#[test]
fn what_stays_wrong_is_damage() {
    let temp = memory_dir();
    let (path, mut content) = two_commits(temp.path());
    let footer = content.len() - 100;
    content[footer] ^= 1;
    let chain = open_while(temp.path(), path, move |_| Some(content.clone())).unwrap();
    assert_eq!(chain.damage().len(), 1);
    assert!(chain.newest().is_err());
}

#[test]
fn a_file_that_a_writer_cuts_meanwhile_is_looked_at_again() {
    let temp = memory_dir();
    let (path, content) = two_commits(temp.path());
    // Between the reader's measuring and its reading, the last record goes.
    let first = Chain::open(temp.path()).unwrap().find(2).unwrap().offset as usize;
    let mut reads = 0;
    let hook_path = path.clone();
    let hook = move |call: &FileCall<'_>| {
        if let FileCall::Read(..) = call {
            if reads == 1 {
                fs::write(&hook_path, &content[..first]).unwrap();
            }
            reads += 1;
        }
        Verdict::Go
    };
    let chain = fake::with(hook, || Chain::open(temp.path())).unwrap();
    assert_holds(&chain, 1);
    assert_eq!(chain.torn(), None);
}
