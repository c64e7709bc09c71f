// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chains that somebody has changed: at random, and half of the time with all checksums made
//! anew, so that what lies behind them is reached. Whatever is done with such a chain comes to an
//! end, panics nowhere, and asks for no more memory than its size justifies. Where checksums were left
//! alone, what is restored is what was committed.
//!
//! CKPT_FUZZ_SEED replays a seed, CKPT_FUZZ_INPUTS is how many inputs are tried.

mod fuzz;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use ckptctl::store;
use ckptctl::store::Chain;
use ckptctl::store::Keep;
use ckptctl::store::Options;
use ckptctl::store::Writer;
use fuzz::Random;
use support::*;

/// Inputs that have found something once: a length of a meta section near 2^64.
const FOUND: [u64; 1] = [1795464086190210039];
/// Inputs that are tried each time.
const CORPUS: std::ops::Range<u64> = 1..200;
/// What the whole of the library may take, however small the chain.
const MEMORY: usize = 24 << 20;
const PER_BYTE: usize = 100;
const LONGEST: Duration = Duration::from_secs(5);

/// A chain, with where its records are: file, offset, length.
struct Subject {
    files: Vec<Segment>,
    records: Vec<(usize, usize, usize)>,
    images: Images,
}

impl Subject {
    fn new(make: impl FnOnce(&Path) -> Images) -> Subject {
        let temp = memory_dir();
        let images = make(temp.path());
        let files = segments(temp.path());
        let chain = Chain::open(temp.path()).unwrap();
        let records = chain.commits().map(|commit| {
            let file = files
                .iter()
                .position(|file| file.0 == chain.file_of(commit));
            let len = commit.stored_bytes as usize;
            (file.unwrap(), commit.offset as usize, len)
        });
        let mut records: Vec<_> = records.collect();
        records.sort_unstable();
        Subject {
            records,
            images,
            files,
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

fn put_crc(bytes: &mut [u8], at: usize, of: std::ops::Range<usize>) {
    if let Some(part) = bytes.get(of) {
        let crc = crc32c::crc32c(part).to_le_bytes();
        put(bytes, at, &crc);
    }
}

/// Where the index of a record is, if that is within it.
fn index_of(bytes: &[u8], offset: usize, len: usize) -> std::ops::Range<usize> {
    let Some(record) = bytes.get(offset..offset + len) else {
        return 0..0;
    };
    let clamped = |at: usize| (u64_at(record, at) as usize).min(len);
    let (start, index_len) = (clamped(144), clamped(152));
    let end = (start + index_len).min(len - 256);
    offset + start.min(end)..offset + end
}

/// Makes what an index says of its runs true, and the sums in the header.
fn agree(record: &mut [u8], index: std::ops::Range<usize>) {
    let mut sums = [0u64; 3];
    for run in index.step_by(32) {
        let Some(entry) = record.get(run..run + 32) else {
            break;
        };
        let pages = u64_at(entry, 8) as u32;
        let codec = u64_at(entry, 8) >> 32;
        let (data_off, stored_len) = (u64_at(entry, 16), u64_at(entry, 24) as u32);
        let sum = match codec {
            2 => 1,
            4 | 5 => 2,
            _ => 0,
        };
        sums[sum] = sums[sum].wrapping_add(pages.into());
        let stored = usize::try_from(data_off).ok();
        let stored = stored.and_then(|start| Some(start..start.checked_add(stored_len as usize)?));
        if let (0, Some(stored)) = (sum, stored) {
            put_crc(record, run + 28, stored);
        }
    }
    for (sum, at) in sums.into_iter().zip([160, 168, 216]) {
        put(record, at, &sum.to_le_bytes());
    }
}

/// Changes something.
fn change(subject: &Subject, files: &mut [Vec<u8>], random: &mut Random) {
    let (file, offset, len) = subject.records[random.below(subject.records.len())];
    let bytes = &mut files[file];
    let index = index_of(bytes, offset, len);
    if random.below(3) == 0 && !index.is_empty() {
        // A field of a run: pgoff, pages, codec, data_off, stored_len.
        let run = index.start + random.below(index.len() / 32) * 32;
        let number = random.odd_number();
        if random.below(2) == 0 {
            // An arena in which anything fits.
            put(bytes, offset + 112, &(1u64 << 40).to_le_bytes());
        }
        match random.below(5) {
            0 => put(bytes, run, &number.to_le_bytes()),
            1 => put(bytes, run + 8, &(number as u32).to_le_bytes()),
            2 => put(bytes, run + 12, &(number as u32 % 7).to_le_bytes()),
            3 => put(bytes, run + 16, &number.to_le_bytes()),
            _ => put(bytes, run + 24, &(number as u32).to_le_bytes()),
        }
        return;
    }
    let (start, len) = match random.below(8) {
        // Header, meta and what follows, index and footer, segment header, anything.
        0..=2 => (offset, 256),
        3 => (offset + 256, 256),
        4 | 5 => (offset + len.saturating_sub(512), 512),
        6 => (0, 256),
        _ => (0, bytes.len()),
    };
    if bytes.is_empty() {
        return;
    }
    let at = (start + random.below(len)).min(bytes.len() - 1);
    match random.below(12) {
        0..=3 => bytes[at] ^= 1 << random.below(8),
        4 | 5 => {
            let number = random.odd_number().to_le_bytes();
            put(bytes, at & !7, &number);
        }
        6 | 7 => {
            let number = (random.odd_number() as u32).to_le_bytes();
            put(bytes, at & !3, &number);
        }
        8 => bytes.truncate(random.below(bytes.len() + 1)),
        9 => {
            let more = random.below(9000);
            let byte = random.next() as u8 & 3;
            bytes.extend(std::iter::repeat_n(byte, more));
        }
        10 => {
            // One block becomes like another.
            let blocks = bytes.len() / 4096;
            let (from, to) = (random.below(blocks), random.below(blocks));
            if blocks > 0 {
                bytes.copy_within(from * 4096..(from + 1) * 4096, to * 4096);
            }
        }
        _ => {
            let part = bytes[at..].to_vec();
            bytes.splice(at..at, part.into_iter().take(4096));
        }
    }
}

/// Makes all checksums and hashes anew, where the records were.
fn reseal(subject: &Subject, files: &mut [Vec<u8>]) {
    let mut links: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
    let mut before = [0; 32];
    for (file, bytes) in files.iter_mut().enumerate() {
        if bytes.len() < 4096 {
            continue;
        }
        let is_base = bytes[128..136] == *b"CKPTBASE";
        if !is_base {
            put(bytes, 80, &before);
        }
        let mut hashes = blake3::Hasher::new();
        for &(_, offset, len) in subject.records.iter().filter(|record| record.0 == file) {
            let index = index_of(bytes, offset, len);
            let Some(record) = bytes.get_mut(offset..offset + len) else {
                continue;
            };
            agree(
                record,
                index.start.saturating_sub(offset)..index.end.saturating_sub(offset),
            );
            let clamped = |at: usize| (u64_at(record, at) as usize).min(len);
            let (meta_len, index_off, index_len) = (clamped(128), clamped(144), clamped(152));
            put_crc(record, 176, 256..256 + meta_len);
            put_crc(record, 180, index_off..index_off + index_len);
            put_crc(record, 252, 0..252);
            let (epoch, parent) = (u64_at(record, 24), u64_at(record, 32));
            let footer = len - 256;
            let body_hash = blake3::hash(&record[256..footer]);
            let parent_hash = links.get(&parent).copied().unwrap_or_default();
            let mut hash = blake3::Hasher::new();
            hash.update(&parent_hash);
            hash.update(&record[..256]);
            hash.update(body_hash.as_bytes());
            let hash = *hash.finalize().as_bytes();
            put(record, footer + 56, &parent_hash);
            put(record, footer + 88, body_hash.as_bytes());
            put(record, footer + 120, &hash);
            put_crc(record, footer + 252, footer..footer + 252);
            hashes.update(&hash);
            let compacted = record[124] & 1 != 0;
            let link = match compacted {
                true => record[184..216].try_into().unwrap(),
                false => hash,
            };
            links.insert(epoch, link);
            before = link;
        }
        put_crc(bytes, 124, 0..124);
        if is_base {
            put(bytes, 128 + 80, hashes.finalize().as_bytes());
            put_crc(bytes, 128 + 124, 128..128 + 124);
            before = bytes[128 + 32..128 + 64].try_into().unwrap();
        }
        let header = bytes[..256].to_vec();
        put(bytes, 2048, &header);
    }
}

/// Does everything with a chain that can be done.
fn examine(dir: &Path, images: Option<&Images>) {
    if let Ok(chain) = Chain::open(dir) {
        let _ = (chain.newest(), chain.full_costs(), chain.verify(|_, _| {}));
        let epochs: Vec<u64> = chain.commits().map(|commit| commit.epoch).collect();
        for &epoch in &epochs {
            let _ = chain.get(epoch);
            let Ok(mut loader) = chain.load(epoch) else {
                continue;
            };
            let mut image = empty_image();
            let whole = loop {
                match loader.next_run() {
                    Ok(None) => break true,
                    Err(_) => break false,
                    Ok(Some(run)) => {
                        let place = (run.pgoff as usize).checked_mul(PAGE);
                        let place = place.and_then(|at| image.get_mut(at..at + run.bytes.len()));
                        if let Some(place) = place {
                            place.copy_from_slice(run.bytes);
                        }
                    }
                }
            };
            if let (Some(images), true) = (images, whole) {
                assert!(image == images[&epoch], "epoch {epoch} is something else");
            }
            let _ = chain.compare(epoch, (&chain, epochs[0]), |_| {});
            let _ = chain.written_between(epochs[0], epoch);
        }
    }
    if let Ok((mut writer, _)) = Writer::open_or_create(dir, Options::default()) {
        let newest = writer.chain().commits().next_back();
        let (epoch, parent) = newest.map_or((1, None), |newest| (newest.epoch, Some(newest.epoch)));
        let page = Fill::Noise(1).page();
        let _ = writer.append(
            &meta(epoch.saturating_add(1), parent),
            [(2, page.as_slice())],
        );
    }
    let keep = Keep::default();
    let _ = store::preview(dir, &keep);
    if store::compact(dir, &keep, &Options::default(), |_| true).is_ok() {
        // A compaction never makes a chain worse.
        assert!(Chain::open(dir).is_ok());
    }
}

fn try_input(subject: &Subject, seed: u64) {
    let mut random = Random::new(seed);
    let mut files: Vec<Vec<u8>> = subject.files.iter().map(|file| file.1.clone()).collect();
    for _ in 0..=random.below(3) {
        let at = random.below(4);
        change(subject, &mut files, &mut random);
        if at == 0 {
            break;
        }
    }
    let sealed = random.below(2) == 0;
    if sealed {
        reseal(subject, &mut files);
    }
    let temp = memory_dir();
    let mut size = 0;
    for (file, bytes) in subject.files.iter().zip(&files) {
        size += bytes.len();
        fs::write(temp.path().join(file.0.file_name().unwrap()), bytes).unwrap();
    }
    drop(files);
    let begun = Instant::now();
    let images = (!sealed).then_some(&subject.images);
    let ((), most) = fuzz::measured(seed, || examine(temp.path(), images));
    let took = begun.elapsed();
    assert!(took < LONGEST, "it took {took:?}");
    assert!(
        most < MEMORY + PER_BYTE * size,
        "{most} bytes for a chain of {size}"
    );
}

#[test]
fn any_chain_is_examined_to_its_end() {
    let subjects = [
        Subject::new(full_chain),
        Subject::new(|dir| {
            let mut images = full_chain(dir);
            let keep = Keep {
                last: 3,
                ..Keep::default()
            };
            store::compact(dir, &keep, &Options::default(), |_| true).unwrap();
            let (mut writer, _) = open(dir, 1 << 20).unwrap();
            let delta = [(7, Fill::Noise(9)), (8, Fill::Zero)].into();
            append(&mut writer, &mut images, &meta(10, 9), &delta).unwrap();
            images
        }),
    ];
    let wanted = fuzz::number("CKPT_FUZZ_SEED");
    for seed in wanted.into_iter().chain(FOUND) {
        for subject in &subjects {
            try_input(subject, seed);
        }
    }
    if wanted.is_some() {
        return;
    }
    let seeds = fuzz::seeds(CORPUS, 3000);
    for (seed, subject) in seeds.zip(subjects.iter().cycle()) {
        let tried = std::panic::catch_unwind(|| try_input(subject, seed));
        assert!(tried.is_ok(), "to see it again: CKPT_FUZZ_SEED={seed}");
    }
}
