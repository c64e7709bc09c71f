// SPDX-License-Identifier: GPL-2.0-only
//! What the actors share, and where each of them is.

use std::fmt;
use std::rc::Rc;

use ckpt_core::bits::{Bits, CHUNK_PAGES};
use ckpt_core::tracker::Policy;

use crate::memory::{Image, Memory};

/// Pages of the model: two in one chunk, not in the same word, and one in the next.
pub const PAGES: [u64; 3] = [3, 70, 512 + 5];
pub const COUNT: usize = PAGES.len();

/// First page of a page's chunk.
pub fn chunk_of(page: usize) -> u64 {
    PAGES[page] & !(CHUNK_PAGES as u64 - 1)
}

/// The set, in its chunk, of one page.
pub fn only(page: usize) -> Bits {
    let at = PAGES[page] as usize % CHUNK_PAGES;
    Bits::range(at, at + 1)
}

/// A set of pages of the model, a bit each.
pub type Few = u8;

/// Those pages of the model that are in a set of a chunk.
pub fn few(first: u64, set: &Bits) -> Few {
    let has = |page: &usize| chunk_of(*page) == first && !set.and(&only(*page)).is_empty();
    (0..COUNT)
        .filter(has)
        .fold(0, |few, page| few | (1 << page))
}

/// As a set of a chunk.
pub fn bits(few: Few) -> Bits {
    pages(few).fold(Bits::default(), |all, page| all.or(&only(page)))
}

/// The pages of a set.
pub fn pages(few: Few) -> impl DoubleEndedIterator<Item = usize> {
    (0..COUNT).filter(move |page| few & (1 << page) != 0)
}

/// The content of pages: a bit for each store.
pub type Content = [u16; COUNT];

/// The protocol with a mistake in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A commit does not make processors forget the entries it changed.
    NoFlush,
    /// A commit takes the number of its epoch before it has the barrier.
    EpochBeforeBarrier,
    /// The epoch is made known before processors forget entries.
    EpochBeforeFlush,
    /// An entry is made writable before the barrier is taken and the page noted.
    WritableBeforeNoted,
    /// The barrier is released between the note and the entry.
    WritableAfterBarrier,
    /// Whether a page is frozen is asked only before the barrier.
    FrozenNotAskedAgain,
    /// A copy counts although a commit came since.
    CopyOfAnyEpoch,
    /// Pages are thawed beside commits.
    ThawWithoutBarrier,
    /// Pages are thawed that another snapshot needs.
    ThawForOthers,
    /// Who reads a page does not look for a copy again.
    NoSecondLook,
    /// What is waited for is asked after it was found that it has to be waited.
    WaitTooLate,
    /// Whether an entry is dirty is asked before it is taken out, and not of what was taken.
    DirtyAskedBefore,
}

/// A commit of a committer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub snapshot: Option<Consume>,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consume {
    /// Pages that may be copied aside at the same time.
    pub reserve: usize,
    /// It holds what changed since the beginning, not since the commit before.
    pub all: bool,
    /// Its pages are read.
    pub read: bool,
    /// Each page is thawed after it was read.
    pub thaw: bool,
}

/// What is to be explored.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub policy: Policy,
    pub mistake: Mistake,
    /// Epochs before it begins: the pages that are written in each.
    pub before: Vec<&'static [usize]>,
    /// Pages that each writer writes, in order.
    pub writers: Vec<&'static [usize]>,
    pub committers: Vec<Vec<Asked>>,
    /// Pages whose entries are taken away by somebody.
    pub zaps: &'static [usize],
}

impl Scenario {
    /// Nobody does anything.
    pub fn new(policy: Policy) -> Self {
        Scenario {
            policy,
            mistake: Mistake::None,
            before: Vec::new(),
            writers: Vec::new(),
            committers: Vec::new(),
            zaps: &[],
        }
    }

    pub fn with(mut self, mistake: Mistake) -> Self {
        self.mistake = mistake;
        self
    }

    /// All pages were written in so many epochs before.
    pub fn after(mut self, epochs: usize) -> Self {
        self.before = vec![&[0, 1, 2]; epochs];
        self
    }

    pub fn writer(mut self, pages: &'static [usize]) -> Self {
        self.writers.push(pages);
        self
    }

    pub fn committer(mut self, commits: &[Asked]) -> Self {
        self.committers.push(commits.to_vec());
        self
    }

    pub fn zapper(mut self, pages: &'static [usize]) -> Self {
        self.zaps = pages;
        self
    }
}

/// A page-table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    pub present: bool,
    pub writable: bool,
    pub dirty: bool,
}

/// Where a writer is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Writing {
    /// Before its next store, if there is one.
    Access,
    /// Has a translation, and did not store yet.
    Translated,
    /// In the fault handler. `exists`: there is a read-only entry.
    Fault {
        exists: bool,
    },
    Copy {
        exists: bool,
        epoch: u64,
    },
    Enter {
        exists: bool,
        epoch: u64,
        copy: Option<u16>,
    },
    /// From here to `Entry` with the barrier held.
    CopyAside {
        exists: bool,
        copy: u16,
        seen: u8,
    },
    Count {
        epoch: u64,
    },
    Opened {
        few: Few,
    },
    Note,
    Entry,
    /// Not enough room for copies: takes the entry away, to come again by the other handler.
    Unmap,
    /// As above, and waits.
    Wait {
        seen: u8,
    },
    /// Mistaken handlers only: the entry was made writable.
    Early {
        exists: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Stores done.
    pub done: usize,
    pub at: Writing,
}

/// An entry that a commit looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    Arm(usize),
    Clean(usize),
    /// Whether it is dirty, to be armed later.
    Ask(usize),
    /// Mistaken commits only: to be armed whatever it is now.
    Blind(usize),
}

/// Where a commit is in the index, which is told by what it was told so far: it begins anew
/// from `start` each time, and gets the same answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub start: Image,
    pub answers: Vec<Few>,
    /// Pages noted meanwhile, each with the number of the question that was asked.
    pub late: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Committing {
    /// Before its next commit, if there is one.
    Idle,
    /// Mistaken commits only: the epoch is chosen.
    Chosen,
    Begun,
    /// At the entries of a chunk.
    Visit(Visit),
    /// To go on in the index.
    GoOn,
    /// Through with the index.
    Harvested,
    Flush {
        processor: usize,
    },
    Publish,
    /// Mistaken commits only.
    Release,
}

/// A visit of the entries of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Visit {
    pub first: u64,
    /// The last one comes first.
    pub todo: Vec<Look>,
    pub dirty: Few,
    /// Pages to be armed if they are dirty, by a visit of their own.
    pub freeze: Few,
    /// The table's lock is held.
    pub locked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committer {
    /// Commits done.
    pub done: usize,
    pub at: Committing,
    pub epoch: u64,
    pub call: Option<Call>,
    /// Pages that the snapshot will hold.
    pub draft: [bool; COUNT],
    /// Whether entries were changed.
    pub changed: bool,
    /// What was in memory when the commit had the barrier.
    pub begun: Content,
}

/// Where the consumer of a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Consuming {
    /// The commit has not returned.
    NotYet,
    Page(usize),
    Read(usize),
    LookAgain(usize, u16),
    Thaw(usize),
    Tell(usize),
    Close,
    TellClosed,
    OffList,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    pub epoch: u64,
    pub how: Consume,
    pub wanted: [bool; COUNT],
    pub copies: [Option<u16>; COUNT],
    pub listed: bool,
    pub at: Consuming,
    /// What was in memory at the end of the commit.
    pub content: Content,
}

impl Snapshot {
    pub fn needs(&self, page: usize) -> bool {
        self.listed && self.wanted[page] && self.copies[page].is_none()
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub index: Image,
    pub epoch: u64,
    /// Writers that hold the barrier for reading, a bit each.
    pub readers: u8,
    /// The committer that holds it for writing.
    pub holder: Option<usize>,
    pub entries: [Entry; COUNT],
    pub memory: Content,
    /// Writable, dirty translations that each writer's processor has.
    pub cached: Vec<[bool; COUNT]>,
    pub writers: Vec<Writer>,
    pub committers: Vec<Committer>,
    pub zapped: usize,
    pub snapshots: Vec<Snapshot>,
    /// How often it was told that pages were thawed.
    pub thawed: u8,
    /// Only to check: memory as consumers of all deltas have it, and the last epoch closed.
    pub replica: Content,
    pub closed: u64,
}

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Writer(usize),
    Committer(usize),
    Consumer(usize),
    Zapper,
}

/// A step, to be told of.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub actor: Actor,
    pub what: &'static str,
    pub page: Option<usize>,
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.actor {
            Actor::Writer(n) => write!(to, "writer {n} ")?,
            Actor::Committer(n) => write!(to, "committer {n} ")?,
            Actor::Consumer(n) => write!(to, "consumer {n} ")?,
            Actor::Zapper => write!(to, "zapper ")?,
        }
        write!(to, "{}", self.what)?;
        self.page
            .map_or(Ok(()), |page| write!(to, " (page {page})"))
    }
}

/// What came of trying a step: none if the actor is blocked or done; or what is wrong.
pub type Tried = Result<Option<(&'static str, Option<usize>)>, String>;

/// A scenario with the memory of its index.
pub struct World {
    pub scenario: Rc<Scenario>,
    pub memory: Memory,
}

impl World {
    pub fn new(scenario: Scenario) -> Self {
        World {
            memory: Memory::new(scenario.policy, &PAGES),
            scenario: Rc::new(scenario),
        }
    }

    pub fn mistaken(&self, mistake: Mistake) -> bool {
        self.scenario.mistake == mistake
    }

    /// Looks at the index of a state.
    pub fn frozen(&self, state: &State, page: usize) -> bool {
        self.memory.load(&state.index);
        let chunk = self.memory.index().get(PAGES[page]).expect("made");
        chunk.is_frozen(PAGES[page])
    }

    /// The bit of a store.
    pub fn bit(&self, writer: usize, store: usize) -> u16 {
        let before: usize = self.scenario.writers[..writer]
            .iter()
            .map(|pages| pages.len())
            .sum();
        1 << (before + store)
    }
}

impl State {
    /// Makes processors forget a page's entry.
    pub fn flush(&mut self, world: &World, processor: usize, page: usize) {
        self.cached[processor][page] = false;
        let writer = &mut self.writers[processor];
        let pages = world.scenario.writers[processor];
        if writer.at == Writing::Translated && pages[writer.done] == page {
            writer.at = Writing::Access;
        }
    }

    /// Takes a page's entry away, as the kernel does it: with the table's lock held, so not
    /// while a commit is at it. False if that has to be waited for.
    pub fn zap(&mut self, world: &World, page: usize) -> bool {
        let locked = self.committers.iter().any(|one| {
            matches!(&one.at, Committing::Visit(visit) if visit.locked && visit.first == chunk_of(page))
        });
        if locked {
            return false;
        }
        let entry = std::mem::take(&mut self.entries[page]);
        if entry.dirty {
            world.memory.load(&self.index);
            world.memory.index().note(PAGES[page]);
            self.index = world.memory.save();
            for one in &mut self.committers {
                let answered = one.at == Committing::GoOn;
                if let Some(call) = &mut one.call {
                    // The last question is still being asked until the call goes on.
                    let question = call.answers.len() - usize::from(answered);
                    call.late.push((question, page));
                }
            }
        }
        for processor in 0..self.writers.len() {
            self.flush(world, processor, page);
        }
        true
    }
}
