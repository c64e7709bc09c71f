// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Meta sections that are what they should be, and others.

use proptest::prelude::*;

use super::*;

fn meta(regions: Vec<RegionEntry>, identity: Identity) -> CommitMeta {
    CommitMeta {
        epoch: 1,
        parent: None,
        kind: Kind::Commit,
        generation: [0; 16],
        time_ns: 0,
        pause_ns: 0,
        arena_base: 0,
        arena_len_pages: 1 << 20,
        page_shift: 12,
        regions,
        identity,
    }
}

prop_compose! {
    fn region(at: u64)(
        name in "[a-z\u{e0}-\u{ff}]{1,40}",
        kind in any::<u32>(),
        reserve_pages in 0..100u64,
        used in 0.0..1.0f64,
        adopted_at in prop::option::of(1..u64::MAX),
    ) -> RegionEntry {
        RegionEntry {
            name: format!("{at}{name}"),
            kind,
            offset_pages: at * 100,
            len_pages: (reserve_pages as f64 * used) as u64,
            reserve_pages,
            adopted_at,
        }
    }
}

prop_compose! {
    fn identity()(
        build_id in prop::collection::vec(any::<u8>(), 0..=64),
        load_address in any::<u64>(),
        objects_digest in any::<[u8; 32]>(),
        path in prop::collection::vec(1..=255u8, 0..100),
        no_code_pointers in any::<bool>(),
    ) -> Identity {
        let path = OsString::from_vec(path).into();
        Identity { build_id, load_address, objects_digest, path, no_code_pointers }
    }
}

fn some_meta() -> impl Strategy<Value = CommitMeta> {
    let regions = (0..20u64).prop_flat_map(|count| (0..count).map(region).collect::<Vec<_>>());
    (regions, identity()).prop_map(|(regions, identity)| meta(regions, identity))
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(meta in some_meta()) {
        let section = meta.encode().unwrap();
        prop_assert_eq!(section.len() % 8, 0);
        let (regions, identity) = decode(&section, meta.arena_len_pages).unwrap();
        prop_assert_eq!(regions, meta.regions);
        prop_assert_eq!(identity, meta.identity);
    }

    // A checksum is no proof: whoever can write a file can make it right.
    #[test]
    fn hostile_sections_are_refused_and_do_no_harm(
        meta in some_meta(),
        at in any::<prop::sample::Index>(),
        hostile in prop::collection::vec(any::<u8>(), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut section = meta.encode().unwrap();
        let at = at.index(section.len());
        let len = hostile.len().min(section.len() - at);
        section[at..at + len].copy_from_slice(&hostile[..len]);
        let _ = decode(&section, meta.arena_len_pages);
        let _ = decode(&section[..cut.index(section.len())], meta.arena_len_pages);
    }
}

fn with_item(item_type: u32) -> Vec<u8> {
    let mut section = meta(vec![], Identity::default()).encode().unwrap();
    push(&mut section, item_type, &[b"from the future"]);
    section
}

#[test]
fn an_unknown_item_is_skipped_unless_it_must_be_known() {
    assert!(decode(&with_item(77), 1).is_ok());
    assert!(decode(&with_item(ITEM_MUST_KNOW | 77), 1).is_err());
}

#[test]
fn an_address_that_is_of_no_region_is_refused() {
    let region = |adopted_at| RegionEntry {
        name: "r".into(),
        kind: 1,
        offset_pages: 0,
        len_pages: 1,
        reserve_pages: 1,
        adopted_at,
    };
    let address = |address: u64, name: &[u8], name_len: u32| {
        let mut section = meta(vec![region(None)], Identity::default())
            .encode()
            .unwrap();
        let fixed = [&address.to_le_bytes()[..], &name_len.to_le_bytes(), &[0; 4]].concat();
        push(&mut section, ITEM_ADOPTED, &[&fixed, name]);
        section
    };
    let (found, _) = decode(&address(4096, b"r", 1), 1).unwrap();
    assert_eq!(found, [region(Some(4096))]);
    for wrong in [
        address(4096, b"s", 1),
        address(4096, b"r", 2),
        address(0, b"r", 1),
        [
            address(4096, b"r", 1),
            address(4096, b"r", 1)[72..].to_vec(),
        ]
        .concat(),
    ] {
        assert!(decode(&wrong, 1).is_err());
    }
    let none = meta(vec![region(Some(0))], Identity::default());
    assert!(none.encode().is_err());
}

#[test]
fn a_record_without_identity_or_with_two_is_refused() {
    assert!(decode(&[], 1).is_err());
    let one = meta(vec![], Identity::default()).encode().unwrap();
    assert!(decode(&[one.clone(), one].concat(), 1).is_err());
}

#[test]
fn regions_that_do_not_fit_into_a_record_are_refused() {
    let many = (0..10_000)
        .map(|i| RegionEntry {
            name: format!("{i:0>200}"),
            kind: 0,
            offset_pages: i,
            len_pages: 0,
            reserve_pages: 0,
            adopted_at: None,
        })
        .collect();
    assert!(meta(many, Identity::default()).encode().is_err());
}
