// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A claim about a program that has its state in memory of its own and dies in all the moments that
//! adopting has, under `ckptctl run --warm`.

use std::env;
use std::fs;
use std::path::Path;
use std::process;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use ckptctl::Adopted;
use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::store::Chain;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::adopting::FIXED;
use super::adopting::Memory;
use super::adopting::PAGE;
use super::claims::Claim;

/// Those that hold anywhere; warm is what goes on with the module alone.
pub const ANYWHERE: &[Claim] = &[("adopted_memory_goes_on_after_every_kind_of_death", goes_on)];

/// Set in the program.
const LIFE: &str = "CKPT_TEST_WARM_LIFE";

/// Pages in one piece: ordinary ones, two parts side by side, and ordinary ones again.
const PAGES: usize = 60;
const PARTS: [(&str, usize, usize); 2] = [("left", 10, 16), ("right", 26, 24)];
/// A part that is adopted in a life that does not commit it.
const NEVER: (&str, usize, usize) = ("never", 52, 5);

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// With writes that are no commit's, in adopted memory, at its address and in the region.
    Writing,
    /// Before anything was adopted, with a commit that carries it on.
    BeforeAdopting,
    /// Between two adoptions.
    Halfway,
    /// With more adopted than was committed.
    AdoptedMore,
    /// Behind a rollback, with writes.
    WentBack,
    /// Where the memory is the program's again, behind a rollback to before it was adopted and
    /// forward again.
    Released,
    /// By itself.
    Ended,
}

/// The deaths, one a life.
const LIVES: [Death; 10] = [
    Death::Writing,
    Death::BeforeAdopting,
    Death::Writing,
    Death::Halfway,
    Death::AdoptedMore,
    Death::WentBack,
    Death::Released,
    Death::BeforeAdopting,
    Death::Halfway,
    Death::Ended,
];

fn goes_on(dir: &Path) {
    if env::var_os(LIFE).is_some() {
        return live(dir);
    }
    let module = ckptctl::track::open(
        ckptctl::track::Choice::from_environment().unwrap(),
        &ckptctl::track::Geometry {
            name: "trial".into(),
            base: 0,
            len_bytes: 1 << 20,
            epoch: 0,
        },
    );
    let warm = module.unwrap().name() == "module";
    let output = Command::new("ckptctl")
        .args([
            "run",
            "--restart",
            "on-failure",
            "--warm",
            "--backoff",
            "0s",
        ])
        .args(["--max-restarts", "1", "--store"])
        .arg(dir.join("chain"))
        .arg("--")
        .arg(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(LIFE, "1")
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("words")).unwrap())
        .status();
    let words = fs::read_to_string(dir.join("words")).unwrap();
    assert!(output.unwrap().success(), "{words}");
    let lines = |what: &str| words.lines().filter(|line| line.contains(what)).count();
    let deaths = LIVES.len() - 1;
    let expected = if warm { (deaths, 0) } else { (0, deaths) };
    assert_eq!(
        (lines("put back in"), lines("restored from its chain")),
        expected,
        "{words}"
    );
    let chain = Chain::open(dir.join("chain")).unwrap();
    let report = chain.verify(|_, _| {}).unwrap();
    assert_eq!(report.damage, vec![]);
}

struct Program {
    context: Context,
    /// How many lives there were, and what was last committed.
    counts: Memory,
    whole: Memory,
}

/// What commit `number` makes of a page of a part.
fn written(number: u64, page: usize) -> Option<u64> {
    ((page as u64 + number) % 3 == 0).then_some(number * 1000 + page as u64)
}

/// What is in a page of a part as of commit `number`.
fn expected(number: u64, page: usize) -> u64 {
    let mut all = (1..=number).rev();
    all.find_map(|number| written(number, page)).unwrap_or(0)
}

fn part(whole: &Memory, (name, first, pages): (&'static str, usize, usize)) -> Memory {
    Memory {
        name,
        ..whole.part(first, pages)
    }
}

impl Program {
    fn open(dir: &Path) -> Program {
        let options = Options::new()
            .dir(dir.join("chain"))
            .name("adopting and dying")
            .arena_bytes(1 << 30)
            .no_code_pointers();
        let context = Context::open(options).unwrap_or_else(|error| panic!("{error}"));
        let spec = RegionSpec {
            name: "counts",
            kind: 1,
            len_bytes: PAGE as u64,
            reserve_bytes: 0,
        };
        let start = context.region(&spec).unwrap();
        let counts = Memory {
            name: "counts",
            start,
            len: PAGE,
        };
        // What is there before it is adopted is not to come back.
        let whole = Memory::mapped("whole", FIXED, PAGES, libc::MAP_PRIVATE);
        (0..PAGES).for_each(|page| whole.put(page, 77));
        Program {
            context,
            counts,
            whole,
        }
    }

    fn number(&self) -> u64 {
        self.counts.words()[1].load(Ordering::Relaxed)
    }

    fn part(&self, which: usize) -> Memory {
        part(&self.whole, PARTS[which])
    }

    /// Does what the next commit has, in those parts that are adopted, and commits.
    fn commit(&self, adopted: &[usize]) -> u64 {
        let number = self.number() + u64::from(!adopted.is_empty());
        self.counts.words()[1].store(number, Ordering::Relaxed);
        for &which in adopted {
            let part = self.part(which);
            for page in 0..PARTS[which].2 {
                if let Some(value) = written(number, page) {
                    part.put(page, value);
                }
            }
        }
        self.context.commit_sync().unwrap().epoch
    }

    fn adopt(&self, which: usize, first: bool) {
        let part = self.part(which);
        if first {
            (0..PARTS[which].2).for_each(|page| part.put(page, 0));
        }
        let wanted = if first { Adopted::New } else { Adopted::Found };
        assert_eq!(part.adopt(&self.context), wanted, "{}", part.name);
        self.check(which, "adopted");
    }

    fn check(&self, which: usize, what: &str) {
        let (part, number) = (self.part(which), self.number());
        for page in 0..PARTS[which].2 {
            let name = part.name;
            assert_eq!(
                part.get(page),
                expected(number, page),
                "{what}: {name}, page {page}"
            );
        }
    }

    fn check_ordinary(&self) {
        let adopted = |page: usize| PARTS.iter().any(|it| (it.1..it.1 + it.2).contains(&page));
        for page in (0..PAGES).filter(|&page| !adopted(page)) {
            assert_eq!(self.whole.get(page), 77, "ordinary page {page}");
        }
    }

    /// Writes what is no commit's.
    fn spoil(&self) {
        for (which, (_, _, pages)) in PARTS.into_iter().enumerate() {
            let part = self.part(which);
            (0..pages).step_by(2).for_each(|page| part.put(page, 99));
        }
        self.counts.put(0, 999);
        self.counts.words()[1].store(999, Ordering::Relaxed);
    }
}

fn die() -> ! {
    kill(Pid::from_raw(process::id() as i32), Signal::SIGKILL).unwrap();
    unreachable!("it was killed")
}

fn live(dir: &Path) {
    let program = Program::open(dir);
    let context = &program.context;
    let life = program.counts.get(0) as usize;
    let death = LIVES[life];
    program.counts.put(0, life as u64 + 1);
    // What the state was before anything was adopted, in a chain that is read anew.
    let bare = || {
        let chain = Chain::open(dir.join("chain")).unwrap();
        let mut commits = chain.commits().map(|commit| commit.epoch);
        commits.find(|&epoch| chain.get(epoch).unwrap().regions.len() == 1)
    };
    if life == 0 {
        context.commit_sync().unwrap();
    } else {
        // Carries on what is not adopted yet.
        program.commit(&[]);
    }
    if death == Death::BeforeAdopting {
        die();
    }
    program.adopt(0, life == 0);
    if death == Death::Halfway {
        program.commit(&[]);
        program.part(0).put(3, 99);
        die();
    }
    program.adopt(1, life == 0);
    program.check_ordinary();
    let all = [0, 1];
    let epoch = program.commit(&all);
    match death {
        Death::AdoptedMore => {
            assert_eq!(part(&program.whole, NEVER).adopt(context), Adopted::New);
            part(&program.whole, NEVER).put(1, 5);
        }
        Death::WentBack => {
            program.spoil();
            context.rollback(epoch).unwrap();
            all.iter()
                .for_each(|&which| program.check(which, "went back"));
            program.commit(&all);
            context.rollback(epoch).unwrap();
            all.iter()
                .for_each(|&which| program.check(which, "went back again"));
        }
        Death::Released => {
            context.rollback(bare().unwrap()).unwrap();
            assert_eq!(program.number(), 0);
            program.spoil();
            context.rollback(epoch).unwrap();
            // It is not adopted, though the state has it.
            program.part(1).put(5, 99);
            program.adopt(1, false);
        }
        _ => {}
    }
    if death != Death::AdoptedMore {
        program.check_ordinary();
    }
    if death == Death::Ended {
        all.iter()
            .for_each(|&which| program.check(which, "at the end"));
        let number = program.number();
        let whole = program.whole;
        program.context.close().unwrap();
        for (which, (name, first, pages)) in PARTS.into_iter().enumerate() {
            for page in 0..pages {
                let now = whole.get(first + page);
                assert_eq!(
                    now,
                    expected(number, page),
                    "closed: {which}, {name}, page {page}"
                );
            }
        }
        return;
    }
    program.spoil();
    die();
}
