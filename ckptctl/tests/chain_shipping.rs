// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain that takes the records of another has the same epochs.

mod support;

use std::ops::Range;

use ckptctl::store::Announced;
use ckptctl::store::Chain;
use ckptctl::store::CommitInfo;
use ckptctl::store::Image as Target;
use ckptctl::store::Keep;
use ckptctl::store::Options;
use ckptctl::store::RECORD_END_BYTES;
use ckptctl::store::Shipment;
use ckptctl::store::StoreError;
use ckptctl::store::Writer;
use ckptctl::store::compact;
use proptest::prelude::*;
use support::*;

/// Hands a record over in pieces of a size.
fn hand_over(
    mut shipment: Shipment,
    to: &mut Writer,
    piece: usize,
) -> Result<CommitInfo, StoreError> {
    let announced = Announced::parse(&shipment.header).unwrap();
    let mut receiving = to.receive(announced)?;
    let mut bytes = vec![0; piece];
    loop {
        match shipment.read(&mut bytes)? {
            0 => return receiving.check(&shipment.footer)?.keep(),
            len => receiving.put(&bytes[..len])?,
        }
    }
}

/// Gives `to` what it needs to have an epoch as well; how many records that were.
fn bring(from: &Chain, epoch: u64, to: &mut Writer) -> usize {
    let missing: Vec<u64> = from
        .lineage_of(epoch)
        .unwrap()
        .take_while(|info| !to.chain().has(info.id()))
        .map(|info| info.epoch)
        .collect();
    for &epoch in missing.iter().rev() {
        hand_over(from.ship(epoch).unwrap(), to, 5000).unwrap();
    }
    missing.len()
}

fn writer(dir: &std::path::Path) -> Writer {
    open(dir, 16_000).unwrap().0
}

/// An image of memory.
struct Memory(Image);

impl Target for Memory {
    fn read(&self, pgoff: u64, to: &mut [u8]) {
        to.copy_from_slice(&self.0[pgoff as usize * PAGE..][..to.len()]);
    }

    fn write(&mut self, pgoff: u64, bytes: &[u8]) -> bool {
        let to = self.0.get_mut(pgoff as usize * PAGE..);
        let to = to.and_then(|to| to.get_mut(..bytes.len()));
        to.map(|to| to.copy_from_slice(bytes)).is_some()
    }

    fn clear(&mut self, pages: Range<u64>) -> bool {
        let len = (pages.end - pages.start) as usize * PAGE;
        self.write(pages.start, &vec![0; len])
    }
}

#[test]
fn each_epoch_can_be_brought_to_an_empty_chain_and_is_the_same_there() {
    let temp = memory_dir();
    let images = full_chain(temp.path());
    let from = Chain::open(temp.path()).unwrap();
    for (&epoch, image) in &images {
        let there = memory_dir();
        let mut to = writer(there.path());
        assert!(bring(&from, epoch, &mut to) > 0);
        drop(to);
        let chain = Chain::open(there.path()).unwrap();
        assert_eq!(chain.damage(), []);
        assert!(restore(&chain, epoch).unwrap() == *image);
        assert_eq!(chain.get(epoch).unwrap(), from.get(epoch).unwrap());
        assert!(chain.verify(|_, _| {}).unwrap().damage.is_empty());
        assert_ne!(chain.chain_id(), from.chain_id());
    }
}

#[test]
fn what_is_there_is_not_brought_again_and_branches_stand_beside_each_other() {
    let temp = memory_dir();
    let images = full_chain(temp.path());
    let from = Chain::open(temp.path()).unwrap();
    let there = memory_dir();
    let mut to = writer(there.path());
    let mut records = 0;
    for &epoch in images.keys() {
        records += bring(&from, epoch, &mut to);
        assert_eq!(bring(&from, epoch, &mut to), 0);
    }
    assert_eq!(records, images.len());
    for (&epoch, image) in &images {
        assert!(restore(to.chain(), epoch).unwrap() == *image);
    }
}

#[test]
fn the_receiver_can_write_on_behind_what_it_took() {
    let temp = memory_dir();
    let mut images = full_chain(temp.path());
    let newest = *images.keys().last().unwrap();
    let there = memory_dir();
    let mut to = writer(there.path());
    bring(&Chain::open(temp.path()).unwrap(), newest, &mut to);
    let delta = [(4, Fill::Even(3)), (20, Fill::Noise(99))].into();
    append(&mut to, &mut images, &meta(1000, newest), &delta).unwrap();
    drop(to);
    let chain = Chain::open(there.path()).unwrap();
    assert!(restore(&chain, 1000).unwrap() == images[&1000]);
}

#[test]
fn after_a_compaction_the_rest_builds_on_what_the_receiver_has_kept() {
    let temp = memory_dir();
    let images = full_chain(temp.path());
    let there = memory_dir();
    let mut to = writer(there.path());
    let newest = *images.keys().last().unwrap();
    bring(&Chain::open(temp.path()).unwrap(), 5, &mut to);
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    compact(temp.path(), &keep, &Options::default(), |_| true).unwrap();
    let from = Chain::open(temp.path()).unwrap();
    assert!(from.commits().any(|info| info.compacted));
    bring(&from, newest, &mut to);
    assert!(restore(to.chain(), newest).unwrap() == images[&newest]);
    assert!(to.chain().commits().all(|info| !info.compacted));
}

#[test]
fn a_byte_that_changed_on_the_way_is_found_wherever_it_is_and_leaves_nothing() {
    let temp = memory_dir();
    let images = full_chain(temp.path());
    let from = Chain::open(temp.path()).unwrap();
    let there = memory_dir();
    let mut to = writer(there.path());
    bring(&from, 1, &mut to);
    let len = from.find(2).unwrap().stored_bytes as usize;
    let tail = len - RECORD_END_BYTES;
    for at in (0..len).step_by(7) {
        let mut shipment = from.ship(2).unwrap();
        if at < RECORD_END_BYTES {
            shipment.header[at] ^= 0x10;
        } else if at >= tail {
            shipment.footer[at - tail] ^= 0x10;
        }
        let Ok(announced) = Announced::parse(&shipment.header) else {
            assert!(at < RECORD_END_BYTES);
            continue;
        };
        let mut body = vec![0; shipment.body_bytes() as usize];
        shipment.read(&mut body).unwrap();
        if (RECORD_END_BYTES..tail).contains(&at) {
            body[at - RECORD_END_BYTES] ^= 0x10;
        }
        let mut receiving = to.receive(announced).unwrap();
        receiving.put(&body).unwrap();
        let error = receiving.check(&shipment.footer).unwrap_err();
        assert!(
            matches!(error, StoreError::Invalid { epoch: 2, .. }),
            "{at}: {error}"
        );
        assert_eq!(to.chain().commits().count(), 1);
    }
    bring(&from, 2, &mut to);
    assert!(restore(to.chain(), 2).unwrap() == images[&2]);
    drop(to);
    assert!(restore(&Chain::open(there.path()).unwrap(), 2).unwrap() == images[&2]);
}

#[test]
fn a_record_that_is_too_short_or_too_long_or_has_no_parent_here_is_refused() {
    let temp = memory_dir();
    full_chain(temp.path());
    let from = Chain::open(temp.path()).unwrap();
    let there = memory_dir();
    let mut to = writer(there.path());
    let shipment = from.ship(1).unwrap();
    let announced = Announced::parse(&shipment.header).unwrap();
    let receiving = to.receive(announced).unwrap();
    assert!(receiving.missing_bytes() > 0);
    assert!(matches!(
        receiving.check(&shipment.footer),
        Err(StoreError::Invalid { .. })
    ));
    let mut receiving = to.receive(announced).unwrap();
    let long = vec![0; shipment.body_bytes() as usize + 1];
    assert!(matches!(
        receiving.put(&long),
        Err(StoreError::Invalid { .. })
    ));
    let child = Announced::parse(&from.ship(2).unwrap().header).unwrap();
    assert!(matches!(
        to.receive(child),
        Err(StoreError::NoSuchEpoch { epoch: 1, .. })
    ));
    bring(&from, 1, &mut to);
    assert!(matches!(
        to.receive(announced),
        Err(StoreError::EpochOrder { epoch: 1, .. })
    ));
}

#[test]
fn who_follows_a_chain_sees_each_commit_over_segments_and_compactions() {
    let temp = memory_dir();
    let mut images = Images::new();
    let mut writer = writer(temp.path());
    let mut follower = Chain::open(temp.path()).unwrap();
    for epoch in 1..60u64 {
        let parent = (epoch > 1).then(|| if epoch % 7 == 0 { epoch - 2 } else { epoch - 1 });
        let fill = if epoch % 3 == 0 {
            Fill::Noise(epoch)
        } else {
            Fill::Even(epoch as u8)
        };
        let delta = [(epoch % 60, fill), (61, Fill::Noise(epoch))].into();
        append(&mut writer, &mut images, &meta(epoch, parent), &delta).unwrap();
        if epoch == 30 {
            let keep = Keep {
                last: 3,
                ..Keep::default()
            };
            compact(temp.path(), &keep, &Options::default(), |_| true).unwrap();
            writer.refresh().unwrap();
        }
        follower.follow().unwrap();
        follower.sync_end().unwrap();
        assert_eq!(follower.newest().unwrap().unwrap().epoch, epoch);
        assert!(restore(&follower, epoch).unwrap() == images[&epoch]);
        assert!(
            follower
                .commits()
                .eq(Chain::open(temp.path()).unwrap().commits())
        );
    }
}

#[test]
fn half_a_record_is_not_seen_until_the_other_half_is_there() {
    let temp = memory_dir();
    let images = small_chain(temp.path());
    let last = segments(temp.path()).pop().unwrap();
    let chain = Chain::open(temp.path()).unwrap();
    let newest = chain.newest().unwrap().unwrap().clone();
    let before = newest.offset as usize;
    std::fs::write(&last.0, &last.1[..before]).unwrap();
    let mut follower = Chain::open(temp.path()).unwrap();
    let count = follower.commits().count();
    for len in (before..last.1.len()).step_by(500) {
        std::fs::write(&last.0, &last.1[..len]).unwrap();
        follower.follow().unwrap();
        assert_eq!(follower.commits().count(), count, "{len}");
    }
    std::fs::write(&last.0, &last.1).unwrap();
    follower.follow().unwrap();
    assert!(restore(&follower, newest.epoch).unwrap() == images[&newest.epoch]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_image_that_is_brought_from_epoch_to_epoch_is_that_of_each(
        deltas in prop::collection::vec(
            (
                0..4usize,
                prop::collection::btree_map(
                    0..ARENA_PAGES,
                    prop_oneof![Just(Fill::Zero), (0..3u8).prop_map(Fill::Even), (0..3u64).prop_map(Fill::Noise)],
                    0..30,
                ),
            ),
            1..12,
        ),
        jumps in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
    ) {
        let temp = memory_dir();
        let mut images = Images::new();
        let (mut writer, _) = open(temp.path(), 1 << 20).unwrap();
        for (at, (back, delta)) in deltas.iter().enumerate() {
            let epoch = at as u64 + 1;
            let parent = (at as u64).saturating_sub(*back as u64);
            append(&mut writer, &mut images, &meta(epoch, (parent > 0).then_some(parent)), delta).unwrap();
        }
        let chain = writer.chain();
        // Step by step.
        for info in chain.commits() {
            let mut memory = Memory(info.parent.map_or_else(empty_image, |parent| images[&parent].clone()));
            chain.step(info.epoch, &mut memory).unwrap();
            prop_assert!(memory.0 == images[&info.epoch]);
        }
        // Here and there.
        let (mut memory, mut at) = (Memory(empty_image()), None);
        for jump in jumps {
            let to = jump.index(deltas.len()) as u64 + 1;
            chain.jump(at, to, &mut memory).unwrap();
            prop_assert!(memory.0 == images[&to]);
            at = Some(to);
        }
    }
}
