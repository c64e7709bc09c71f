// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about adopted memory that goes back, and about what lies beside it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::Adopted;
use ckptctl::Context;
use ckptctl::RegionSpec;
use ckptctl::Restore;
use ckptctl::When;
use nix::libc;

use super::adopting::FIXED;
use super::adopting::Memory;
use super::adopting::open;
use super::claims::Claim;

/// Those that hold anywhere.
pub const ANYWHERE: &[Claim] = &[
    (
        "adopted_memory_goes_back_to_any_epoch_and_its_neighbours_stay",
        any_epoch,
    ),
    (
        "threads_in_adopted_memory_go_back_with_it_and_others_are_not_held",
        threads,
    ),
];

/// Set in the process that restores what another one has committed.
const SECOND: &str = "CKPT_TEST_SECOND";

/// Pages that are mapped in one piece: parts to adopt, two of them side by side, and ordinary
/// memory before, between and behind them.
const PAGES: usize = 40;
const PARTS: [(&str, Range<usize>); 3] = [("a", 5..12), ("b", 12..20), ("c", 25..33)];
/// Pages of an ordinary region.
const REGION: usize = 6;

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

/// What is in a state: of each page a number, in the arena's region and in the parts that are
/// regions, in the order in which they became so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    region: Vec<u64>,
    parts: Vec<(usize, Vec<u64>)>,
}

impl State {
    fn of(&mut self, part: usize) -> Option<&mut Vec<u64>> {
        let mut parts = self.parts.iter_mut();
        parts.find(|it| it.0 == part).map(|it| &mut it.1)
    }

    /// Where a part is in the arena, behind which pages of others.
    fn place(&self, part: usize) -> Option<usize> {
        let at = self.parts.iter().position(|it| it.0 == part)?;
        Some(self.parts[..at].iter().map(|it| it.1.len()).sum())
    }

    fn text(&self) -> String {
        let words = |numbers: &[u64]| {
            let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
            words.join(" ")
        };
        let mut text = words(&self.region);
        for (part, numbers) in &self.parts {
            text.push_str(&format!("\n{part} {}", words(numbers)));
        }
        text
    }
}

fn part_of(whole: &Memory, part: usize) -> Memory {
    let (name, pages) = PARTS[part].clone();
    Memory {
        name,
        ..whole.part(pages.start, pages.len())
    }
}

struct Program {
    context: Context,
    region: Memory,
    whole: Memory,
}

impl Program {
    fn open(dir: &Path, whole: Memory, restore: Restore) -> Program {
        let context = open(dir, restore);
        let spec = RegionSpec {
            name: "region",
            kind: 1,
            len_bytes: (REGION * super::adopting::PAGE) as u64,
            reserve_bytes: 0,
        };
        let region = Memory {
            name: "region",
            start: context.region(&spec).unwrap(),
            len: REGION * super::adopting::PAGE,
        };
        Program {
            context,
            region,
            whole,
        }
    }

    fn numbers(memory: &Memory) -> Vec<u64> {
        let pages = memory.len / super::adopting::PAGE;
        (0..pages).map(|page| memory.get(page)).collect()
    }
}

/// A program and what there should be.
struct Modelled {
    program: Program,
    state: State,
    /// All of the memory, whatever it is.
    memory: Vec<u64>,
    attached: [bool; 3],
    images: BTreeMap<u64, State>,
}

impl Modelled {
    fn write(&mut self, random: &mut Random) {
        let value = random.below(4) as u64;
        let page = random.below(PAGES + REGION);
        let Some(page) = page.checked_sub(REGION) else {
            self.program.region.put(page, value);
            self.state.region[page] = value;
            return;
        };
        self.program.whole.put(page, value);
        self.memory[page] = value;
        let owner = PARTS.iter().position(|it| it.1.contains(&page));
        if let Some(part) = owner.filter(|&part| self.attached[part]) {
            self.state.of(part).unwrap()[page - PARTS[part].1.start] = value;
        }
    }

    fn adopt(&mut self, part: usize) {
        let pages = PARTS[part].1.clone();
        let done = part_of(&self.program.whole, part).adopt(&self.program.context);
        match self.state.of(part) {
            Some(content) => {
                assert_eq!(done, Adopted::Found);
                self.memory[pages].clone_from_slice(content);
            }
            None => {
                assert_eq!(done, Adopted::New);
                self.state.parts.push((part, self.memory[pages].to_vec()));
            }
        }
        self.attached[part] = true;
    }

    fn go_back(&mut self, nth: usize) {
        let (&epoch, to) = self.images.iter().nth(nth).unwrap();
        for (part, (_, pages)) in PARTS.into_iter().enumerate() {
            // Memory stays a part of the arena where it is one in both states, at the same place.
            self.attached[part] &= to.place(part) == self.state.place(part);
            if self.attached[part] {
                let content = to.clone().of(part).unwrap().clone();
                self.memory[pages].clone_from_slice(&content);
            }
        }
        self.state = to.clone();
        let report = self.program.context.rollback(epoch);
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.to, epoch);
        self.images.insert(report.epoch, self.state.clone());
    }

    fn commit(&mut self, sync: bool) {
        let context = &self.program.context;
        let report = match sync {
            true => context.commit_sync(),
            false => context.commit(),
        };
        self.images
            .insert(report.unwrap().epoch, self.state.clone());
    }

    fn check(&self, what: &str) {
        let Program { region, whole, .. } = &self.program;
        assert_eq!(
            Program::numbers(region),
            self.state.region,
            "{what}: region"
        );
        assert_eq!(Program::numbers(whole), self.memory, "{what}: memory");
    }
}

fn any_epoch(dir: &Path) {
    let whole = Memory::mapped("whole", FIXED, PAGES, libc::MAP_PRIVATE);
    if env::var_os(SECOND).is_some() {
        return every_state_comes_back(dir, whole);
    }
    let mut images = BTreeMap::new();
    let mut random = Random(0x5eed);
    for life in 0..3 {
        let newest: Option<(u64, State)> = images.clone().pop_last();
        let program = Program::open(dir, whole, Restore::Newest);
        if let (Some(epoch), Some((_, state))) = (program.context.epoch().unwrap(), &newest) {
            images.insert(epoch, state.clone());
        }
        let state = newest.map_or_else(
            || State {
                region: vec![0; REGION],
                ..State::default()
            },
            |(_, state)| state,
        );
        let mut modelled = Modelled {
            program,
            state,
            memory: Program::numbers(&whole),
            attached: [false; 3],
            images,
        };
        for step in 0..60 {
            for _ in 0..random.below(12) {
                modelled.write(&mut random);
            }
            match random.below(8) {
                0 | 1 if !modelled.images.is_empty() => {
                    modelled.go_back(random.below(modelled.images.len()));
                }
                0..=2 => modelled.commit(true),
                3 | 4 => modelled.commit(false),
                5 | 6 => modelled.adopt(random.below(PARTS.len())),
                _ => {}
            }
            modelled.check(&format!("life {life}, step {step}"));
        }
        modelled.commit(true);
        images = std::mem::take(&mut modelled.images);
        let memory = std::mem::take(&mut modelled.memory);
        modelled.program.context.close().unwrap();
        assert_eq!(Program::numbers(&whole), memory, "closed, life {life}");
    }
    for (epoch, state) in &images {
        fs::write(dir.join(format!("epoch-{epoch}")), state.text()).unwrap();
    }
    let second = Command::new(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(SECOND, "1")
        .status();
    assert!(second.unwrap().success());
}

fn every_state_comes_back(dir: &Path, whole: Memory) {
    let mut tried = 0;
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(epoch) = name.strip_prefix("epoch-") else {
            continue;
        };
        let expected = fs::read_to_string(&path).unwrap();
        let restore = Restore::Epoch(epoch.parse().unwrap());
        let program = Program::open(dir, whole, restore);
        let mut state = State {
            region: Program::numbers(&program.region),
            ..State::default()
        };
        for line in expected.lines().skip(1) {
            let part: usize = line.split(' ').next().unwrap().parse().unwrap();
            let memory = part_of(&whole, part);
            assert_eq!(memory.adopt(&program.context), Adopted::Found);
            state.parts.push((part, Program::numbers(&memory)));
        }
        assert_eq!(state.text(), expected, "epoch {epoch}");
        for (part, (name, _)) in PARTS.into_iter().enumerate() {
            let there = program.context.region_len(name).unwrap().is_some();
            assert_eq!(there, state.of(part).is_some(), "epoch {epoch}: {name}");
        }
        program.context.close().unwrap();
        tried += 1;
    }
    assert!(tried > 30, "{tried} epochs are too few");
}

/// Threads that work on the state, in adopted memory.
const INSIDE: usize = 3;

/// Threads count inside, each twice for a whole; another one writes without a pause to the pages
/// beside the adopted ones, which are none of the state.
fn threads(dir: &Path) {
    let context = open(dir, Restore::Newest);
    let whole = Memory::private(PAGES);
    let parts = [0, 1, 2].map(|part| part_of(&whole, part));
    let counts = move |part: usize, thread: usize| -> [&'static AtomicU64; 2] {
        let words = parts[part].words();
        [&words[thread], &words[words.len() - 1 - thread]]
    };
    let sum = move || -> Vec<u64> {
        let both = (0..INSIDE * PARTS.len()).map(|at| {
            let [first, last] = counts(at % PARTS.len(), at / PARTS.len());
            let done = first.load(Ordering::Relaxed);
            assert_eq!(done, last.load(Ordering::Relaxed), "a thread was inside");
            done
        });
        both.collect()
    };
    for when in [When::BeforeCommit, When::AfterRestore] {
        let examine = move |_: &Context, _: u64| {
            sum();
            0
        };
        context.hook(when, Arc::new(examine)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let beside = AtomicU64::new(0);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for thread in 0..INSIDE {
            let (context, stop) = (&context, &stop);
            scope.spawn(move || {
                let point = context.safe_point().unwrap();
                let mut part = thread;
                while !stop.load(Ordering::Relaxed) {
                    point.enter().unwrap();
                    part = (part + 1) % PARTS.len();
                    let [first, last] = counts(part, thread);
                    // Nobody else counts there.
                    let done = first.load(Ordering::Relaxed) + 1;
                    first.store(done, Ordering::Relaxed);
                    thread::yield_now();
                    last.store(done, Ordering::Relaxed);
                    point.leave().unwrap();
                }
            });
        }
        let (stop, beside) = (&stop, &beside);
        scope.spawn(move || {
            let ordinary = [4, 20, 24, 33];
            while !stop.load(Ordering::Relaxed) {
                let round = beside.load(Ordering::Relaxed) + 1;
                for page in ordinary {
                    assert_eq!(whole.get(page), round - 1, "page {page}");
                    whole.put(page, round);
                }
                beside.store(round, Ordering::Relaxed);
            }
        });
        // Both kinds get on between any two steps.
        let worked = || {
            let counted = || -> u64 {
                let all = (0..INSIDE * PARTS.len())
                    .map(|at| counts(at % PARTS.len(), at / PARTS.len())[0]);
                all.map(|word| word.load(Ordering::Relaxed)).sum()
            };
            let (before, outside) = (counted(), beside.load(Ordering::Relaxed));
            while counted() < before + 20 || beside.load(Ordering::Relaxed) < outside + 2 {
                thread::yield_now();
            }
        };
        context.commit().unwrap();
        let first = context.epoch().unwrap().unwrap();
        for round in 0..25 {
            for part in parts {
                worked();
                part.adopt(&context);
            }
            worked();
            let epoch = context.commit().unwrap().epoch;
            worked();
            context.rollback(epoch).unwrap();
            worked();
            context.rollback(0).unwrap();
            // Now and then to where nothing was adopted, so that all is the program's again.
            if round % 5 == 4 {
                worked();
                context.rollback(first).unwrap();
            }
        }
        worked();
    });
    assert!(sum().iter().all(|&done| done > 0));
    context.close().unwrap();
    sum();
}

/// Stops threads, also when a claim fails: the others wait for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
