// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each system call of the thread that saves fails, in each way, while several commits are on
//! their way and the program makes more. Whatever is reported as durable is there, every epoch
//! in the chain is what the program had when it committed it, and in the end nothing is lost.

use std::collections::BTreeMap;

use nix::libc::EIO;
use nix::libc::ENOSPC;

use super::disk::Disk;
use super::disk::Mood;
use super::*;

/// Pages of the region.
const PAGES: usize = 12;

/// What the program had, by epoch.
pub(super) type Images = BTreeMap<u64, Vec<u64>>;

/// A program that changes some pages before each commit.
pub(super) struct Program {
    context: Context,
    region: NonNull<u8>,
    steps: u64,
    pub(super) images: Images,
}

impl Program {
    pub(super) fn start(dir: &Path) -> Program {
        let context = open(dir);
        let region = context.region(&spec("r", PAGES as u64 * 4096, 0)).unwrap();
        Program {
            context,
            region,
            steps: 0,
            images: Images::new(),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    fn image(&self) -> Vec<u64> {
        (0..PAGES)
            .map(|page| get(self.region, page * 4096))
            .collect()
    }

    /// Changes something and commits. What the program has is noted under the epoch that it
    /// closes, whatever becomes of it.
    pub(super) fn step(&mut self) -> Result<CommitReport, Error> {
        self.steps += 1;
        for page in [
            0,
            self.steps as usize % PAGES,
            self.steps as usize * 5 % PAGES,
        ] {
            put(self.region, page * 4096, self.steps);
        }
        let image = self.image();
        let epoch = 1 + self.context.stats().unwrap().commits;
        self.images.insert(epoch, image);
        let report = self.context.commit();
        if let Ok(report) = &report {
            assert_eq!(report.epoch, epoch);
        }
        report
    }
}

/// Asserts that all that a chain has is what the program had. The newest epoch there.
pub(super) fn assert_is_what_was_committed(chain: &Chain, images: &Images) -> u64 {
    let report = chain.verify(|_, _| {}).unwrap();
    assert_eq!(report.damage, vec![]);
    for &epoch in &report.restorable {
        let table = chain.get(epoch).unwrap().regions;
        assert_eq!(table.len(), 1, "epoch {epoch}");
        let first = table[0].offset_pages;
        let mut image = vec![0; PAGES];
        let mut loader = chain.load(epoch).unwrap();
        while let Some(run) = loader.next_run().unwrap() {
            for (at, page) in run.bytes.chunks_exact(4096).enumerate() {
                if let Some(page_of_region) = (run.pgoff + at as u64).checked_sub(first) {
                    let word = page.first_chunk().unwrap();
                    image[page_of_region as usize] = u64::from_ne_bytes(*word);
                }
            }
        }
        assert_eq!(image, images[&epoch], "epoch {epoch}");
    }
    report.restorable.last().copied().unwrap_or(0)
}

fn assert_told(error: &Error, errno: i32) {
    // When not even the beginning of a record can be taken back, that is what is told.
    assert!(matches!(error, Error::NotDurable { .. }), "{error}");
    assert!([errno, EIO].contains(&error.errno()), "{error}");
}

/// Fails a call of the thread that saves, and those behind it if it is for good. Returns false
/// if it makes fewer calls.
fn fail_at(nth: usize, errno: i32, cut: bool, for_good: bool) -> bool {
    let temp = crate::store::tests::memory_dir();
    let dir = temp.path();
    let disk = Disk::new();
    let mut program = Program::start(dir);
    let calls = Arc::new(AtomicU64::new(0));
    let bad = {
        let calls = Arc::clone(&calls);
        move |call: &FileCall<'_>| {
            let at = calls.fetch_add(1, Ordering::SeqCst) as usize;
            match call {
                _ if at < nth || !for_good && at > nth => Verdict::Go,
                FileCall::Write(_, _, bytes) if cut => {
                    Verdict::CutWrite(bytes.len() / 1024 * 512, errno)
                }
                _ => Verdict::Fail(errno),
            }
        }
    };
    // Three are on their way when it begins.
    disk.set(Mood::Held);
    for _ in 0..3 {
        program.step().unwrap();
    }
    disk.set(Mood::Bad(Box::new(bad)));
    let mut durable = Vec::new();
    for _ in 0..6 {
        match program.step() {
            Ok(report) if report.durable => durable.push(report.epoch),
            Ok(_) => {}
            Err(error) => assert_told(&error, errno),
        }
    }
    // What is said to be durable is in the chain, or something later is that has it.
    for epoch in 1..=program.images.len() as u64 {
        match program.context().wait(epoch, None) {
            Ok(()) => durable.push(epoch),
            Err(error) => assert_told(&error, errno),
        }
    }
    let chain = Chain::open(dir).unwrap();
    let newest = assert_is_what_was_committed(&chain, &program.images);
    let told = durable.iter().copied().max().unwrap_or(0);
    assert!(newest >= told, "{told} was durable, {newest} is there");
    assert!(program.context().durable().unwrap().unwrap_or(0) >= told);
    drop(chain);

    // When the disk is good again, all is.
    disk.set(Mood::Good);
    program.step().unwrap();
    program.step().unwrap();
    let last = program.step().unwrap().epoch;
    program.context().wait(0, None).unwrap();
    let Program {
        context, images, ..
    } = program;
    let stats = context.stats().unwrap();
    assert_eq!(stats.saved + stats.given_up, stats.commits);
    context.close().unwrap();
    let chain = Chain::open(dir).unwrap();
    assert_eq!(assert_is_what_was_committed(&chain, &images), last);
    calls.load(Ordering::SeqCst) as usize > nth
}

/// Tries every call in a way.
fn fail_everywhere(errno: i32, cut: bool, for_good: bool) {
    let failed = (0..)
        .take_while(|&nth| fail_at(nth, errno, cut, for_good))
        .count();
    assert!(failed > 30, "{failed} calls are too few to be all");
}

#[test]
fn one_call_without_space() {
    fail_everywhere(ENOSPC, false, false);
}

#[test]
fn one_write_that_is_cut_short() {
    fail_everywhere(ENOSPC, true, false);
}

#[test]
fn one_call_that_the_device_fails() {
    fail_everywhere(EIO, false, false);
}

#[test]
fn a_disk_that_stays_full() {
    fail_everywhere(ENOSPC, true, true);
}

#[test]
fn a_device_that_is_gone_for_a_while() {
    fail_everywhere(EIO, false, true);
}
