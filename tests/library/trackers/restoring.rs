// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one tracker has seen can be restored over any other.

use std::path::Path;
use std::ptr::NonNull;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use ckptctl::track::Choice;

use super::Claim;
use super::PAGE;
use super::Random;
use super::lacks;

pub const CLAIMS: &[Claim] = &[
    ("every_epoch_comes_back_over_every_tracker", every_epoch),
    ("a_restored_state_goes_on", going_on),
];

const PAGES: usize = 120;

fn open(who: Choice, choice: Choice, dir: &Path, restore: Restore) -> (Context, NonNull<u8>) {
    let base = (5 << 44) + ((who as u64) << 32);
    let options = Options::new()
        .dir(dir.join("chain"))
        .name("claims")
        // Claims about several trackers may be tried side by side.
        .base(base)
        .arena_bytes(1 << 28)
        .no_code_pointers()
        .restore(restore)
        .tracker(choice);
    let context = Context::open(options).unwrap_or_else(|error| panic!("{choice:?}: {error}"));
    let spec = RegionSpec {
        name: "state",
        kind: 1,
        len_bytes: (PAGES * PAGE) as u64,
        reserve_bytes: 0,
    };
    let region = context.region(&spec).unwrap();
    (context, region)
}

fn image(region: NonNull<u8>) -> Vec<u8> {
    // SAFETY: The region is this long, and nobody writes it now.
    unsafe { std::slice::from_raw_parts(region.as_ptr(), PAGES * PAGE) }.to_vec()
}

fn scribble(region: NonNull<u8>, random: &mut Random) {
    for _ in 0..random.below(40) {
        let at = random.below(PAGES * PAGE);
        let value = random.below(3) as u8;
        // SAFETY: Within the region.
        unsafe { region.add(at).write_volatile(value) };
    }
}

fn every_epoch(choice: Choice, dir: &Path) {
    let mut random = Random(21);
    let mut images = Vec::new();
    let (context, region) = open(choice, choice, dir, Restore::Newest);
    for round in 0..12 {
        scribble(region, &mut random);
        let report = match round % 2 {
            0 => context.commit(),
            _ => context.commit_sync(),
        };
        images.push((report.unwrap().epoch, image(region)));
    }
    context.close().unwrap();
    for over in [Choice::Module, Choice::Pagemap, Choice::Compare] {
        if lacks(over).is_some() {
            continue;
        }
        for (epoch, expected) in &images {
            let (context, region) = open(choice, over, dir, Restore::Epoch(*epoch));
            assert!(image(region) == *expected, "epoch {epoch} over {over:?}");
            context.close().unwrap();
        }
    }
}

fn going_on(choice: Choice, dir: &Path) {
    let mut random = Random(22);
    let mut expected = vec![0; PAGES * PAGE];
    for life in 0..6 {
        let (context, region) = open(choice, choice, dir, Restore::Newest);
        assert!(image(region) == expected, "life {life}");
        for _ in 0..4 {
            scribble(region, &mut random);
            context.commit().unwrap();
        }
        expected = image(region);
        scribble(region, &mut random);
        context.close().unwrap();
    }
}
