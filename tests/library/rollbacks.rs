// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about programs that go back while they run.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use ckptctl::store::Chain;
use ckptctl::store::Kind;

use super::claims::Claim;

/// Those that hold anywhere.
pub const ANYWHERE: &[Claim] = &[
    (
        "any_epoch_can_be_gone_back_to_and_comes_back_elsewhere",
        any_epoch,
    ),
    ("going_back_touches_what_changed_and_no_more", what_changed),
];

/// Set in the process that restores what another one has committed.
const SECOND: &str = "CKPT_TEST_SECOND";

const PAGE: usize = 4096;
const PAGES: usize = 300;

struct Program {
    context: Context,
    region: NonNull<u8>,
}

impl Program {
    fn open(dir: &Path, pages: usize, restore: Restore) -> Program {
        let options = Options::new()
            .dir(dir.join("chain"))
            .name("rollbacks")
            .base(6 << 44)
            .arena_bytes(1 << 28)
            .no_code_pointers()
            .restore(restore);
        let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
        let spec = RegionSpec {
            name: "state",
            kind: 1,
            len_bytes: (pages * PAGE) as u64,
            reserve_bytes: 0,
        };
        let region = context.region(&spec).unwrap();
        Program { context, region }
    }

    fn put(&self, at: usize, value: u8) {
        // SAFETY: Claims write within the region.
        unsafe { self.region.add(at).write_volatile(value) };
    }

    fn image(&self) -> Vec<u8> {
        // SAFETY: The region is this long, and nobody writes it now.
        unsafe { std::slice::from_raw_parts(self.region.as_ptr(), PAGES * PAGE) }.to_vec()
    }
}

/// A reproducible sequence of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

fn any_epoch(dir: &Path) {
    if env::var_os(SECOND).is_some() {
        return every_image_comes_back(dir);
    }
    let mut images: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut random = Random(0x5eed);
    for life in 0..3 {
        let program = Program::open(dir, PAGES, Restore::Newest);
        let mut now = images.values().next_back().cloned();
        let now = now.get_or_insert_with(|| vec![0; PAGES * PAGE]);
        if let Some(epoch) = program.context.epoch().unwrap() {
            images.insert(epoch, now.clone());
        }
        for step in 0..40 {
            for _ in 0..random.below(30) {
                let (at, value) = (random.below(now.len()), random.below(3) as u8);
                program.put(at, value);
                now[at] = value;
            }
            match random.below(5) {
                0 if !images.is_empty() => {
                    let nth = random.below(images.len());
                    let (&epoch, image) = images.iter().nth(nth).unwrap();
                    now.clone_from(image);
                    let report = program.context.rollback(epoch);
                    let report = report.unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(report.to, epoch);
                    images.insert(report.epoch, now.clone());
                }
                0 | 1 => {
                    let report = program.context.commit_sync().unwrap();
                    images.insert(report.epoch, now.clone());
                }
                2 | 3 => {
                    let report = program.context.commit().unwrap();
                    images.insert(report.epoch, now.clone());
                }
                _ => {}
            }
            assert!(program.image() == *now, "life {life}, step {step}");
        }
        let report = program.context.commit_sync().unwrap();
        images.insert(report.epoch, now.clone());
    }
    for (epoch, image) in &images {
        fs::write(dir.join(format!("epoch-{epoch}")), image).unwrap();
    }
    let chain = Chain::open(dir.join("chain")).unwrap();
    let rollbacks = chain
        .commits()
        .filter(|commit| commit.kind == Kind::Rollback);
    assert!(rollbacks.count() > 10);
    let second = Command::new(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(SECOND, "1")
        .status();
    assert!(second.unwrap().success());
}

fn every_image_comes_back(dir: &Path) {
    let epochs: Vec<u64> = {
        let chain = Chain::open(dir.join("chain")).unwrap();
        chain.commits().map(|commit| commit.epoch).collect()
    };
    for epoch in epochs {
        let Ok(image) = fs::read(dir.join(format!("epoch-{epoch}"))) else {
            continue;
        };
        let program = Program::open(dir, PAGES, Restore::Epoch(epoch));
        assert!(program.image() == image, "epoch {epoch}");
    }
}

fn what_changed(dir: &Path) {
    let program = Program::open(dir, PAGES, Restore::Newest);
    (0..PAGES).for_each(|page| program.put(page * PAGE, 1));
    let first = program.context.commit_sync().unwrap().epoch;
    (0..20).for_each(|page| program.put(page * PAGE, 2));
    let second = program.context.commit_sync().unwrap().epoch;
    for (to, pages) in [(second, 3), (first, 20)] {
        for page in [100, 200, 299] {
            program.put(page * PAGE + 1, 3);
        }
        let report = program.context.rollback(to).unwrap();
        // The head and what the arena says of the program may be among them.
        let most = pages + 3 + 2;
        assert!((pages..=most).contains(&report.pages), "{report:?}");
    }
    let expected: Vec<u8> = (0..PAGES * PAGE)
        .map(|at| u8::from(at % PAGE == 0))
        .collect();
    assert!(program.image() == expected);
}
