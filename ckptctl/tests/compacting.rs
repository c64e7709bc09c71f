// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl compact` as a process: what it says, and what is left when it is killed.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use ckptctl::store::Chain;
use support::*;

fn ckptctl(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptctl"));
    command.args(args).arg(dir).stdin(Stdio::null());
    command
}

fn compact(args: &[&str], dir: &Path) -> Output {
    let args = [&["compact"], args].concat();
    ckptctl(&args, dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn it_tells_what_was_kept_and_dropped_and_the_chain_restores() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let before = Chain::open(temp.path()).unwrap().bytes();
    let told = compact(&["--dry-run", "--json"], temp.path());
    let done = compact(&["--json"], temp.path());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let after = Chain::open(temp.path()).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let done: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done["kept"], serde_json::json!([7]));
    assert_eq!(done["dropped"], serde_json::json!([1, 2, 5, 6]));
    assert_eq!(
        (&told["kept"], &told["dropped"]),
        (&done["kept"], &done["dropped"])
    );
    assert_eq!(done["bytes_before"], before);
    assert_eq!(done["bytes_after"], after.bytes());
    assert!(done["took_ns"].as_u64().unwrap() > 0);
    assert!(restore(&after, 7).unwrap() == images[&7]);
    let again = compact(&[], temp.path());
    assert!(again.status.success());
    let again = text(&again.stdout);
    assert!(again.contains("dropped  none"), "{again}");
}

#[test]
fn a_program_that_writes_is_told_of_and_its_segment_left_alone() {
    let temp = memory_dir();
    small_chain(temp.path());
    let (_writer, _) = open(temp.path(), 16_000).unwrap();
    let done = compact(&["--keep-last", "3"], temp.path());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done = text(&done.stdout);
    assert!(done.contains("that a program writes to"), "{done}");
}

/// A program that commits as fast as it can, until it is told to end.
fn write_until(ended: &AtomicBool, dir: &Path) -> Images {
    let mut images = Images::new();
    let (mut writer, _) = open(dir, 300_000).unwrap();
    for epoch in 1.. {
        // Old images are the model of nothing any more.
        images.retain(|&known, _| known + 300 > epoch);
        let delta = [
            (epoch % 60, Fill::Noise(epoch)),
            (epoch * 7 % 60, Fill::Noise(epoch + 1)),
            (epoch % 13, Fill::Even(epoch as u8)),
            (epoch % 17 + 1, Fill::Zero),
        ];
        let parent = (epoch > 1).then(|| epoch - 1);
        append(
            &mut writer,
            &mut images,
            &meta(epoch, parent),
            &delta.into(),
        )
        .unwrap();
        if ended.load(Ordering::Relaxed) {
            break;
        }
    }
    images
}

fn has_base(dir: &Path) -> bool {
    let mut names = std::fs::read_dir(dir).unwrap();
    names.any(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.starts_with("base-") && name.ends_with(".ckpt")
    })
}

#[test]
fn killed_thirty_times_at_random_moments_while_a_program_writes_nothing_is_lost() {
    let temp = memory_dir();
    let dir = temp.path();
    let ended = AtomicBool::new(false);
    let (mut killed, mut finished) = (0, 0);
    let images = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&ended, dir));
        while Chain::open(dir).map_or(0, |chain| chain.segments()) < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // How long one takes, of which the moment to kill is drawn.
        let begun = Instant::now();
        assert!(compact(&["--keep-last", "5"], dir).status.success());
        let mut whole = begun.elapsed();
        let mut seed = u64::from(std::process::id()) | 1;
        println!("seed {seed}");
        while killed < 30 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let mut child = ckptctl(&["compact", "--keep-last", "5"], dir)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            let moment = whole.mul_f64((seed % 1000) as f64 / 1000.0);
            while begun.elapsed() < moment {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            match output.status.signal() {
                Some(_) => killed += 1,
                None => {
                    assert!(output.status.success(), "{}", text(&output.stderr));
                    finished += 1;
                    whole = begun.elapsed().max(Duration::from_millis(2));
                }
            }
            // Whatever is there is sound, at any time.
            let chain = Chain::open(dir).unwrap();
            assert_eq!(chain.damage(), []);
            let newest = chain.newest().unwrap().unwrap().epoch;
            restore(&chain, newest).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    println!("{killed} killed, {finished} finished before");
    assert!(has_base(dir));
    let check = || {
        let chain = Chain::open(dir).unwrap();
        assert_eq!(chain.verify(|_, _| {}).unwrap().damage, vec![]);
        let mut checked = 0;
        for commit in chain.commits() {
            // Those that were dropped from the model are too old to be of interest.
            if let Some(image) = images.get(&commit.epoch) {
                assert!(
                    restore(&chain, commit.epoch).unwrap() == *image,
                    "epoch {} was restored to something else",
                    commit.epoch
                );
                checked += 1;
            }
        }
        assert_eq!(
            chain.newest().unwrap().unwrap().epoch,
            *images.keys().last().unwrap()
        );
        checked
    };
    assert!(check() >= 5);
    // The next one finds all that the killed ones left.
    assert!(compact(&["--keep-last", "7"], dir).status.success());
    assert_eq!(check(), 7);
    let names = std::fs::read_dir(dir).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 4, "base, segment and two locks: {names:?}");
}
