// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chains that an earlier build wrote and that are kept in `tests/fixtures`: what
//! was written once can be read for ever.

mod support;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use ckptctl::store::Chain;
use support::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[test]
fn a_chain_of_version_1_reads_as_it_was_written() {
    let temp = tempfile::tempdir().unwrap();
    let images = small_chain(temp.path());
    let chain = Chain::open(fixture("chain-v1")).unwrap();
    assert_eq!(check_against(&chain, &images), Vec::<u64>::new());
    let report = chain.verify(|_, _| {}).unwrap();
    assert_eq!((report.damage, report.torn), (vec![], None));
    assert_eq!(chain.get(5).unwrap(), meta(5, 2));
}

/// Writes the fixtures anew; only for a new version of the format, under a new name.
#[test]
#[ignore = "overwrites the fixtures"]
fn write_fixtures() {
    let fill = |name: &str, change: &dyn Fn(&mut Vec<Segment>)| {
        let dir = fixture(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let sound = fixture("chain-v1");
        let mut files = segments(&sound);
        change(&mut files);
        for (path, content) in files {
            fs::write(dir.join(path.file_name().unwrap()), content).unwrap();
        }
    };
    let sound = fixture("chain-v1");
    if sound.exists() {
        fs::remove_dir_all(&sound).unwrap();
    }
    small_chain(&sound);
    fs::remove_file(sound.join("LOCK")).unwrap();
    let chain = Chain::open(&sound).unwrap();
    let offset = |epoch| chain.find(epoch).unwrap().offset as usize;
    fill("chain-torn", &|files| {
        let (_, content) = files.last_mut().unwrap();
        content.truncate(content.len() - 100);
    });
    fill("chain-damaged", &|files| {
        let noise = Fill::Noise(2).page();
        let (_, content) = &mut files[0];
        let page = content
            .windows(PAGE)
            .position(|window| window == noise)
            .unwrap();
        content[page + 7] ^= 1;
        let (_, content) = files.last_mut().unwrap();
        content[offset(5) + 40] ^= 1;
    });
}
