// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain as one file, and back.

mod support;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use ckptctl::store;
use ckptctl::store::Chain;
use ckptctl::store::Keep;
use ckptctl::store::StoreError;
use support::*;

fn export(chain: &Chain) -> Vec<u8> {
    let mut archive = Vec::new();
    chain.export(&mut archive, |_| {}).unwrap();
    archive
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    names.sort();
    names
}

fn ckptctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    command.args(args).stdin(Stdio::null());
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_chain_comes_back_as_it_was_and_a_writer_goes_on_in_it() {
    let temp = memory_dir();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let mut images = full_chain(&from);
    let chain = Chain::open(&from).unwrap();
    let archive = export(&chain);
    assert!(archive == export(&Chain::open(&from).unwrap()));
    let imported = store::import(archive.as_slice(), &to, |_| {}).unwrap();
    assert_eq!(imported.report.restorable, [1, 2, 5, 6, 7, 8, 9]);
    assert_eq!((imported.files, imported.bytes), (3, chain.bytes()));
    let contents = |dir| segments(dir).into_iter().map(|segment| segment.1);
    assert!(contents(&from).eq(contents(&to)));
    assert_eq!(names(temp.path()), [Path::new("from"), Path::new("to")]);
    let (mut writer, _) = open(&to, 1 << 20).unwrap();
    let delta = [(2, Fill::Even(1))].into();
    append(&mut writer, &mut images, &meta(10, 9), &delta).unwrap();
    verify(&to, &images);
}

#[test]
fn a_compacted_chain_to_which_somebody_writes_is_exported_as_it_was() {
    let temp = memory_dir();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let mut images = full_chain(&from);
    let keep = Keep {
        last: 2,
        ..Keep::default()
    };
    store::compact(&from, &keep, &store::Options::default(), |_| true).unwrap();
    let chain = Chain::open(&from).unwrap();
    // What comes later is not in it, not even when files are replaced meanwhile.
    let (mut writer, _) = open(&from, 4096).unwrap();
    let delta = [(2, Fill::Noise(1))].into();
    for epoch in 10..14 {
        append(&mut writer, &mut images, &meta(epoch, epoch - 1), &delta).unwrap();
    }
    drop(writer);
    store::compact(&from, &keep, &store::Options::default(), |_| true).unwrap();
    store::import(export(&chain).as_slice(), &to, |_| {}).unwrap();
    let imported = Chain::open(&to).unwrap();
    let epochs: Vec<u64> = imported.commits().map(|commit| commit.epoch).collect();
    assert_eq!(epochs, [8, 9]);
    for epoch in epochs {
        assert!(restore(&imported, epoch).unwrap() == images[&epoch]);
    }
}

#[test]
fn an_epoch_alone_is_a_chain_that_stands_alone() {
    let temp = memory_dir();
    let from = temp.path().join("from");
    let images = full_chain(&from);
    let chain = Chain::open(&from).unwrap();
    for (&epoch, image) in &images {
        let to = temp.path().join(epoch.to_string());
        chain.copy_epoch(epoch, &to, |_| {}).unwrap();
        let copy = Chain::open(&to).unwrap();
        assert_eq!(copy.commits().len(), 1);
        assert!(restore(&copy, epoch).unwrap() == *image);
        assert_eq!(copy.verify(|_, _| {}).unwrap().damage, []);
        let (was, is) = (chain.get(epoch).unwrap(), copy.get(epoch).unwrap());
        assert_eq!((is.parent, &is.regions), (None, &was.regions));
        assert_eq!((is.time_ns, is.identity), (was.time_ns, was.identity));
    }
}

#[test]
fn one_that_is_cut_off_anywhere_is_refused_and_leaves_nothing() {
    let temp = memory_dir();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    full_chain(&from);
    let archive = export(&Chain::open(&from).unwrap());
    let sums = archive.windows(6).rposition(|bytes| bytes == b"B3SUMS");
    // Behind the last sum are only zeros, which nobody needs.
    let end = sums.unwrap() + 512 + 3 * (64 + 2 + "segment-0000000001.ckpt\n".len());
    for len in (0..end).step_by(89).chain(end - 20..end) {
        let refused = store::import(&archive[..len], &to, |_| {}).unwrap_err();
        assert!(
            matches!(refused, StoreError::Archive { .. }),
            "{len} bytes: {refused}"
        );
        assert_eq!(names(temp.path()), [Path::new("from")]);
    }
    store::import(&archive[..end], &to, |_| {}).unwrap();
}

#[test]
fn one_of_which_a_byte_is_wrong_is_refused_or_comes_back_as_it_was() {
    let temp = memory_dir();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let images = full_chain(&from);
    let archive = export(&Chain::open(&from).unwrap());
    let mut refused = 0;
    for at in (0..1024).chain((1024..archive.len()).step_by(61)) {
        let mut wrong = archive.clone();
        wrong[at] ^= 0x10;
        match store::import(wrong.as_slice(), &to, |_| {}) {
            Ok(_) => {
                verify(&to, &images);
                fs::remove_dir_all(&to).unwrap();
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Archive { .. }), "{at}: {error}");
                refused += 1;
            }
        }
        assert_eq!(names(temp.path()), [Path::new("from")]);
    }
    assert!(refused > 900, "only {refused} were refused");
}

#[test]
fn what_export_does_not_make_is_refused_and_leaves_nothing() {
    let temp = memory_dir();
    let from = temp.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("segment-0000000001.ckpt"), "x").unwrap();
    fs::write(from.join("B3SUMS"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", from.join("segment-0000000002.ckpt")).unwrap();
    fs::write(temp.path().join("segment-0000000003.ckpt"), "x").unwrap();
    let segment = "segment-0000000001.ckpt";
    let made: [(&[&str], &str); 7] = [
        (&["-P", "../segment-0000000003.ckpt"], "../segment"),
        (&["segment-0000000002.ckpt"], "which is no file"),
        (&[segment, segment], "twice"),
        (&["."], "which is no file"),
        (&["B3SUMS"], "no chain"),
        (&[segment, "B3SUMS"], "not what its B3SUMS says"),
        (&[segment], "cut off"),
    ];
    for (files, why) in made {
        let tar = Command::new("tar")
            .args(["--hard-dereference", "-cC"])
            .arg(&from)
            .args(files)
            .output()
            .unwrap();
        assert!(tar.status.success(), "{}", words(&tar));
        let to = temp.path().join("to");
        let refused = store::import(tar.stdout.as_slice(), &to, |_| {}).unwrap_err();
        assert!(refused.to_string().contains(why), "{files:?}: {refused}");
        assert_eq!(names(temp.path()).len(), 2, "{:?}", names(temp.path()));
    }
    let refused = store::import([7u8; 4000].as_slice(), &temp.path().join("to"), |_| {});
    assert!(matches!(refused, Err(StoreError::Archive { .. })));
}

#[test]
fn other_files_and_imports_at_work_are_left_alone() {
    let temp = memory_dir();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    small_chain(&from);
    let archive = export(&Chain::open(&from).unwrap());
    let refused = store::import(archive.as_slice(), &from, |_| {}).unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");
    let at_work = temp.path().join(".to.importing");
    fs::create_dir(&at_work).unwrap();
    let refused = store::import(archive.as_slice(), &to, |_| {}).unwrap_err();
    assert!(refused.to_string().contains("another import"), "{refused}");
    assert!(at_work.exists() && !to.exists());
    fs::remove_dir(&at_work).unwrap();
    // An empty directory is as good as none.
    fs::create_dir(&to).unwrap();
    store::import(archive.as_slice(), &to, |_| {}).unwrap();
    assert!(Chain::open(&to).is_ok());
}

#[test]
fn a_pipe_from_export_to_import_makes_a_copy() {
    let temp = memory_dir();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let images = full_chain(&from);
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    for (spec, epochs) in [(from.to_owned(), "1-2, 5-9"), (format!("{from}@8"), "8")] {
        let mut exporting = ckptctl(&["export", &spec])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let imported = ckptctl(&["import", "--to", to])
            .stdin(exporting.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(exporting.wait().unwrap().success());
        assert!(imported.status.success(), "{}", words(&imported));
        let told = String::from_utf8(imported.stdout).unwrap();
        assert!(told.contains(&format!("epochs    {epochs}\n")), "{told}");
        let chain = Chain::open(to).unwrap();
        assert!(restore(&chain, 8).unwrap() == images[&8]);
        fs::remove_dir_all(to).unwrap();
    }
}

#[test]
fn the_file_is_a_tar_archive_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let temp = memory_dir();
    let from = temp.path().join("from");
    small_chain(&from);
    let file = temp.path().join("backup.tar");
    let exported = ckptctl(&[
        "export",
        from.to_str().unwrap(),
        "-o",
        file.to_str().unwrap(),
    ])
    .output()
    .unwrap();
    assert!(exported.status.success(), "{}", words(&exported));
    assert!(words(&exported).contains("exported 5 epochs, "));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "segment-0000000001.ckpt\nsegment-0000000002.ckpt\nB3SUMS\n"
    );
    assert_eq!(names(temp.path()).len(), 2);
}

#[test]
fn a_damaged_chain_is_not_exported_but_its_sound_epochs_are() {
    let temp = memory_dir();
    let damaged = "tests/fixtures/chain-damaged";
    let file = temp.path().join("backup.tar");
    let file = file.to_str().unwrap();
    let refused = ckptctl(&["export", damaged, "-o", file]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4));
    assert!(
        words(&refused).contains("nothing was exported"),
        "{}",
        words(&refused)
    );
    assert_eq!(names(temp.path()).len(), 0);
    let taken = ckptctl(&["export", &format!("{damaged}@1"), "-o", file]).output();
    let taken = taken.unwrap();
    assert!(taken.status.success(), "{}", words(&taken));
    let lost = ckptctl(&["export", &format!("{damaged}@5")])
        .output()
        .unwrap();
    assert_eq!(lost.status.code(), Some(4));
}
