// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain of somebody else's arena: its commits are taken from outside, each as far as it
//! changed since the last one that was taken, while the program runs.
//!
//! The program needs no code for it. It commits when it likes; each time, what a puller has
//! subscribed to becomes a snapshot, from which the puller saves. Nobody ever waits for a puller.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use nix::libc;

use crate::arena::HEAD_PAGES;
use crate::arena::OutsideView;
use crate::error::Error;
use crate::store;
use crate::store::CommitMeta;
use crate::store::Identity;
use crate::store::Kind;
use crate::store::Recovery;
use crate::store::StoreError;
use crate::store::Writer;
use crate::sys::abi::ckpt_info;
use crate::sys::consumers::Level;
use crate::sys::consumers::wait_readable;
use crate::sys::device::ArenaFd;
use crate::sys::device::SnapshotFd;
use crate::sys::device::text;
use crate::sys::memory::PAGE;
use crate::sys::takeover::has_ended;

/// Pages that are held in a buffer on their way to the chain.
const GATHER_PAGES: usize = 1024;

/// How often it is looked whether the program is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Somebody else's arena, and the chain that is kept of it.
pub struct Puller {
    arena: ArenaFd,
    dir: PathBuf,
    writer: Writer,
    /// The arena's own, so that the chain goes on only with commits of the same arena.
    generation: [u8; 16],
    /// The last commit that the chain has of this arena.
    cursor: Option<u64>,
    /// The arena's first pages as of the cursor: they say what is in the rest.
    head: Vec<u8>,
    /// For programs whose arena does not tell.
    stranger: Identity,
    page_shift: u32,
    len_pages: u64,
    buffer: Vec<u8>,
}

/// A commit that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its epoch.
    pub epoch: u64,
    /// Pages that changed since the one before.
    pub pages: u64,
    /// Bytes the chain grew by; 0 when nothing had changed, and so no record was needed.
    pub stored_bytes: u64,
    /// How often the snapshot ended before it was read, because the program wrote more than
    /// could be copied aside.
    pub again: u64,
    /// From the commit until it was durable here.
    pub took: Duration,
}

/// What a wait for a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A commit was taken.
    Pulled(Pulled),
    /// There was none in the time.
    TimedOut,
    /// There was none, the arena's program is gone, and nobody keeps the arena for another.
    Ended,
    /// The descriptor that interrupts has something to read.
    Interrupted,
}

/// How a pull is to go.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Ask the program for a commit.
    pub ask: bool,
    /// How long to wait for one.
    pub timeout: Duration,
    /// Readable when it is to be given up.
    pub interrupt: BorrowedFd<'a>,
}

/// Why a snapshot could not be saved.
enum Failure {
    /// It has ended. The same can be tried again.
    Ended,
    Other(Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Other(error.into())
    }
}

fn refused(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| match source.raw_os_error() {
        Some(libc::ESTALE) => Failure::Ended,
        _ => Failure::Other(Error::Module { doing, source }),
    }
}

impl Puller {
    /// Opens the chain in `dir`, or begins it. It goes on where an earlier puller of the same
    /// arena stopped, however it ended.
    pub fn open(
        arena: ArenaFd,
        dir: &Path,
        options: store::Options,
    ) -> Result<(Puller, Recovery), Error> {
        let told = |source| Error::Module {
            doing: "tell what the arena is",
            source,
        };
        let info = arena.info().map_err(told)?;
        let (writer, recovery) = Writer::open_or_create(dir, options)?;
        let generation = generation(&info);
        let newest = writer.chain().newest()?.cloned();
        let mut head = vec![0; HEAD_PAGES as usize * PAGE];
        let mut cursor = None;
        if let Some(newest) = &newest {
            if newest.generation == generation {
                cursor = Some(newest.epoch);
                load_head(&writer, newest.epoch, &mut head)?;
            } else if newest.epoch > info.epoch {
                return Err(Error::Invalid(format!(
                    "{} has epochs up to {} of another arena, and {} is at epoch {}: pull to a new directory",
                    dir.display(),
                    newest.epoch,
                    text(&info.name),
                    info.epoch
                )));
            }
        }
        let puller = Puller {
            dir: dir.to_owned(),
            writer,
            generation,
            cursor,
            head,
            stranger: stranger(&info),
            page_shift: info.page_shift,
            len_pages: info.len_bytes >> info.page_shift,
            buffer: vec![0; GATHER_PAGES << info.page_shift],
            arena,
        };
        Ok((puller, recovery))
    }

    /// The last commit that the chain has of this arena.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Where the chain is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for the next commit and saves it. It is durable, and acknowledged, when this
    /// returns it.
    pub fn pull(&mut self, wish: &Wish<'_>) -> Result<Outcome, Error> {
        let deadline = Instant::now().checked_add(wish.timeout);
        let mut again = 0;
        loop {
            let snapshot = self
                .arena
                .subscribe(self.cursor.unwrap_or(0))
                .map_err(|source| Error::Module {
                    doing: "subscribe to the next commit",
                    source,
                })?;
            if wish.ask || again != 0 {
                self.arena.request().map_err(|source| Error::Module {
                    doing: "ask for a commit",
                    source,
                })?;
            }
            if let Some(outcome) = self.await_commit(&snapshot, deadline, wish.interrupt)? {
                return Ok(outcome);
            }
            match self.save(&snapshot, again) {
                Ok(pulled) => return Ok(Outcome::Pulled(pulled)),
                Err(Failure::Ended) => again += 1,
                Err(Failure::Other(error)) => return Err(error),
            }
        }
    }

    /// `None` when there is a snapshot, or will be none.
    fn await_commit(
        &self,
        snapshot: &SnapshotFd,
        deadline: Option<Instant>,
        interrupt: BorrowedFd<'_>,
    ) -> Result<Option<Outcome>, Error> {
        let system = |source| Error::System {
            doing: "wait for a commit",
            source,
        };
        // Twice, so that a last commit is not missed.
        let mut gone = 0;
        loop {
            let left = deadline.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()));
            let [ready, interrupted] =
                wait_readable([snapshot.as_fd(), interrupt], left.min(LOOK)).map_err(system)?;
            if ready {
                return Ok(None);
            }
            if interrupted {
                return Ok(Some(Outcome::Interrupted));
            }
            if left <= LOOK && deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(Some(Outcome::TimedOut));
            }
            let info = self.arena.info().map_err(system)?;
            gone = if has_ended(&info) { gone + 1 } else { 0 };
            if gone == 2 {
                return Ok(Some(Outcome::Ended));
            }
        }
    }

    fn save(&mut self, snapshot: &SnapshotFd, again: u64) -> Result<Pulled, Failure> {
        let begun = Instant::now();
        let facts = snapshot
            .facts()
            .map_err(refused("make a snapshot of the commit"))?;
        let mut pulled = Pulled {
            epoch: facts.epoch,
            pages: facts.pages,
            stored_bytes: 0,
            again,
            took: Duration::ZERO,
        };
        if facts.pages != 0 || self.cursor.is_none() {
            let mut head = self.head.clone();
            self.read_head(snapshot, &mut head)?;
            pulled.stored_bytes = self.append(snapshot, facts.epoch, &head)?;
            self.head = head;
            self.cursor = Some(facts.epoch);
        }
        self.arena
            .acknowledge(facts.epoch, Level::Durable)
            .map_err(refused("take an acknowledgement"))?;
        pulled.took = begun.elapsed();
        Ok(pulled)
    }

    /// The arena's first pages as of the snapshot: those of them that it holds.
    fn read_head(&mut self, snapshot: &SnapshotFd, head: &mut [u8]) -> Result<(), Failure> {
        let mut runs = Vec::new();
        let buffer = &mut self.buffer[..HEAD_PAGES as usize * PAGE];
        snapshot
            .peek(0, buffer, self.page_shift, |first, pages| {
                runs.push((first, pages));
            })
            .map_err(refused("hand over the arena's head"))?;
        let mut rest = &buffer[..];
        for (first, pages) in runs {
            for page in first..first + pages {
                let (content, behind) = rest.split_at(PAGE);
                if page < HEAD_PAGES {
                    head[page as usize * PAGE..][..PAGE].copy_from_slice(content);
                }
                rest = behind;
            }
        }
        Ok(())
    }

    fn append(&mut self, snapshot: &SnapshotFd, epoch: u64, head: &[u8]) -> Result<u64, Failure> {
        let view = OutsideView::of(head, self.len_pages).unwrap_or_default();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let meta = CommitMeta {
            epoch,
            parent: self.cursor,
            kind: Kind::Commit,
            generation: self.generation,
            time_ns: now.as_nanos() as u64,
            pause_ns: 0,
            arena_base: view.base,
            arena_len_pages: self.len_pages,
            page_shift: self.page_shift,
            regions: view.regions,
            identity: view.identity.unwrap_or_else(|| self.stranger.clone()),
        };
        let (buffer, shift) = (&mut self.buffer, self.page_shift);
        let info = self.writer.append_with(&meta, |sink| {
            let mut next = Some(0);
            while let Some(start) = next {
                let mut runs = Vec::new();
                next = snapshot
                    .gather(start, buffer, shift, |first, pages| {
                        runs.push((first, pages));
                    })
                    .map_err(refused("hand over a snapshot"))?;
                let mut rest = &buffer[..];
                for (first, pages) in runs {
                    let (content, behind) = rest.split_at((pages as usize) << shift);
                    sink.push(first, content)?;
                    rest = behind;
                }
            }
            Ok::<_, Failure>(())
        })?;
        Ok(info.stored_bytes)
    }
}

/// Which arena it is: the same for every puller of it, and for no other arena ever.
fn generation(info: &ckpt_info) -> [u8; 16] {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&boot);
    hasher.update(&info.id.to_le_bytes());
    hasher.update(&info.created_ns.to_le_bytes());
    let mut generation = [0; 16];
    generation.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    generation
}

/// What can be said of a program whose arena says nothing.
fn stranger(info: &ckpt_info) -> Identity {
    let path = fs::read_link(format!("/proc/{}/exe", info.pid)).unwrap_or_default();
    Identity {
        path,
        no_code_pointers: true,
        ..Identity::default()
    }
}

/// The arena's first pages as the chain has them.
fn load_head(writer: &Writer, epoch: u64, head: &mut [u8]) -> Result<(), Error> {
    let mut loader = writer.chain().load(epoch)?;
    while let Some(run) = loader.next_run()? {
        for (at, content) in run.bytes.chunks_exact(PAGE).enumerate() {
            let page = run.pgoff + at as u64;
            if page < HEAD_PAGES {
                head[page as usize * PAGE..][..PAGE].copy_from_slice(content);
            }
        }
    }
    Ok(())
}
