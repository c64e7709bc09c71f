// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that a program had already, as pages of an arena.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ckptctl::sys::memory::Mapping;
use ckptctl::sys::span::Span;
use ckptctl::track::Choice;
use ckptctl::track::PageRange;
use ckptctl::track::Wins;

use super::Claim;
use super::Mirror;
use super::PAGE;
use super::Random;
use super::Subject;
use super::WORDS;

pub const CLAIMS: &[Claim] = &[
    ("deltas_have_what_is_written_to_adopted_memory", deltas),
    ("snapshots_have_adopted_memory_as_it_was", snapshots),
    ("restored_pages_come_to_the_memory", restored),
    ("memory_that_is_given_back_keeps_its_content", given_back),
];

const PAGES: usize = 64;
const ADOPTED: [PageRange; 2] = [16..24, 40..60];

/// An arena, two parts of which are elsewhere.
struct Scattered {
    subject: Subject,
    parts: Vec<(PageRange, Mapping)>,
}

fn words(span: Span) -> &'static [AtomicU64] {
    // SAFETY: Claims use it no longer than it is mapped.
    unsafe { std::slice::from_raw_parts(span.base().cast().as_ptr(), span.len_bytes() / 8) }
}

impl Scattered {
    fn new(choice: Choice) -> Scattered {
        let parts = ADOPTED.map(|pages| {
            let len = (pages.end - pages.start) as usize * PAGE;
            (pages, Mapping::anonymous(0, len).unwrap())
        });
        Scattered {
            subject: Subject::new(choice, PAGES),
            parts: parts.into(),
        }
    }

    fn adopt(&mut self, wins: Wins) {
        for (pages, memory) in &self.parts {
            let done = self
                .subject
                .tracker
                .adopt(pages.clone(), memory.span(), wins);
            done.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// The words of a page, where the program uses it.
    fn page(&self, page: usize) -> &'static [AtomicU64] {
        let part = self
            .parts
            .iter()
            .find(|(pages, _)| pages.contains(&(page as u64)));
        match part {
            Some((pages, memory)) => {
                &words(memory.span())[(page - pages.start as usize) * WORDS..][..WORDS]
            }
            None => &self.subject.words()[page * WORDS..][..WORDS],
        }
    }

    fn put(&self, page: usize, value: u64) {
        self.page(page)[page % WORDS].store(value, Ordering::Relaxed);
    }

    fn image(&self) -> Vec<u64> {
        let pages = (0..PAGES).flat_map(|page| self.page(page));
        pages.map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Scattered {
    fn drop(&mut self) {
        for (pages, _) in &self.parts {
            self.subject.tracker.release(pages.clone()).unwrap();
        }
    }
}

fn deltas(choice: Choice, _: &Path) {
    let mut arena = Scattered::new(choice);
    for page in [3, 16, 20, 41] {
        arena.put(page, 1);
    }
    arena.subject.commit();
    arena.adopt(Wins::Memory);
    let first = arena.subject.commit();
    let found = arena.subject.delta(0);
    assert!(
        [3, 16, 20, 41].iter().all(|page| found.contains(page)),
        "{found:?}"
    );
    let image = arena.image();
    assert_eq!(image[16 * WORDS + 16], 1, "the content was kept");
    let mut last = first;
    for written in [
        vec![16],
        vec![],
        vec![2, 23, 24, 40, 59, 60],
        vec![59],
        vec![18, 19],
    ] {
        for &page in &written {
            arena.put(page, last + 7);
        }
        let epoch = arena.subject.commit();
        assert_eq!(arena.subject.delta(last), written);
        last = epoch;
    }
}

fn snapshots(choice: Choice, _: &Path) {
    let mut arena = Scattered::new(choice);
    let mut mirror = Mirror::new(&arena.subject);
    let mut random = Random(99);
    let scribble = |arena: &Scattered, random: &mut Random| {
        for _ in 0..random.below(40) {
            arena.put(random.below(PAGES), random.below(1000) as u64);
        }
    };
    // Before it is adopted, it is no part of the arena.
    for page in 0..16 {
        arena.put(page, 5);
    }
    arena.put(45, 6);
    arena.adopt(Wins::Memory);
    for step in 0..60 {
        let image = arena.image();
        let (epoch, mut snapshot) = arena.subject.freeze(mirror.cursor);
        scribble(&arena, &mut random);
        mirror.gather(&mut *snapshot, epoch, 1 + random.below(20));
        mirror.assert_is(&image, &format!("step {step}"));
        scribble(&arena, &mut random);
    }
}

fn restored(choice: Choice, _: &Path) {
    let mut arena = Scattered::new(choice);
    for page in [0, 17, 40, 50] {
        arena.subject.put(page, page as u64);
    }
    let first = arena.subject.commit();
    for page in [18, 41, 50] {
        arena.put(page, 999);
    }
    arena.adopt(Wins::Pages);
    for page in 16..60 {
        let expected = if [17, 40, 50].contains(&page) {
            page as u64
        } else {
            0
        };
        assert_eq!(arena.page(page)[0].load(Ordering::Relaxed), expected);
        assert!(
            arena.page(page)[1..]
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0)
        );
    }
    arena.put(19, 4);
    let second = arena.subject.commit();
    assert!(arena.subject.delta(first).contains(&19));
    arena.put(50, 8);
    arena.subject.commit();
    assert_eq!(arena.subject.delta(second), [50]);
}

fn given_back(choice: Choice, _: &Path) {
    let mut arena = Scattered::new(choice);
    arena.put(17, 3);
    arena.adopt(Wins::Memory);
    arena.put(18, 4);
    arena.subject.commit();
    arena.put(20, 5);
    arena.subject.tracker.release(16..24).unwrap();
    arena.put(21, 6);
    let values = [17, 18, 20, 21].map(|page| arena.page(page)[page].load(Ordering::Relaxed));
    assert_eq!(values, [3, 4, 5, 6]);
    // It is of no interest any more, and the arena's pages are.
    arena.subject.put(16, 0);
    let epoch = arena.subject.commit();
    arena.put(19, 7);
    arena.subject.put(22, 8);
    arena.subject.commit();
    assert_eq!(arena.subject.delta(epoch), [22]);
    // Nothing but the memory's owner takes it away.
    let (pages, memory) = arena.parts.remove(0);
    drop(arena);
    assert_eq!(
        words(memory.span())[4 * WORDS + 20].load(Ordering::Relaxed),
        5
    );
    assert_eq!(pages, ADOPTED[0]);
}
