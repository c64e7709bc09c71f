// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keeps a chain small while its program runs.
//!
//! Whenever a segment is full, it is worth a look: when what is in closed segments is more than so
//! many times what the newest epoch needs, a thread compacts them. Commits go on meanwhile. What goes
//! wrong is said once, and does no harm: the chain grows on, and the next full segment is the
//! next occasion.

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::error::Error;
use crate::store;
use crate::store::Chain;
use crate::store::Keep;
use crate::store::StoreError;
use crate::store::Writer;
use crate::sys::thread;

/// Variable that says when a chain is compacted.
pub const COMPACT: &str = "CKPT_COMPACT";

/// Name of the thread, as the system shows it.
const NAME: &str = "ckpt-compact";

/// When a chain is compacted by the program that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacting {
    /// Never: the chain keeps all epochs, and grows.
    Never,
    /// When closed segments have more than so many times the bytes that the newest epoch needs.
    Beyond(u32),
}

impl Compacting {
    /// Epochs that are kept: the newest ones. What those in the last segment build on is kept as well.
    pub const KEEPS: u64 = 10;
    /// What it can be, for people.
    pub const EXPECTED: &'static str = "it is off, or a number from 2 to 1000";

    /// What `CKPT_COMPACT` says.
    pub(crate) fn from_environment() -> Result<Compacting, Error> {
        let Some(value) = env::var_os(COMPACT).filter(|value| !value.is_empty()) else {
            return Ok(Compacting::default());
        };
        let value = value.to_string_lossy().into_owned();
        value.parse().map_err(|expected| Error::Environment {
            name: COMPACT,
            value,
            expected,
        })
    }
}

impl Default for Compacting {
    fn default() -> Compacting {
        Compacting::Beyond(4)
    }
}

impl FromStr for Compacting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Compacting, &'static str> {
        match text.parse() {
            _ if text == "off" => Ok(Compacting::Never),
            Ok(times @ 2..=1000) => Ok(Compacting::Beyond(times)),
            _ => Err(Compacting::EXPECTED),
        }
    }
}

/// Looks after the chain of one writer.
pub(crate) struct Tending {
    dir: PathBuf,
    options: store::Options,
    when: Compacting,
    /// Segments at the last look.
    segments: usize,
    running: Option<Running>,
    /// A failure was told.
    told: bool,
}

/// A thread that compacts, or finds that there is no reason to.
struct Running {
    thread: JoinHandle<Result<(), StoreError>>,
    stop: Arc<AtomicBool>,
    process: u32,
}

impl Tending {
    pub(crate) fn new(dir: PathBuf, options: store::Options, when: Compacting) -> Tending {
        Tending {
            dir,
            options,
            when,
            segments: 1,
            running: None,
            told: false,
        }
    }

    /// Something was appended.
    pub(crate) fn appended(&mut self, writer: &mut Writer) {
        let Compacting::Beyond(times) = self.when else {
            return;
        };
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.thread.is_finished())
        {
            let ended = self.end();
            // The writer shall not go on from what is not there any more.
            let ended = ended.and_then(|()| writer.refresh());
            self.segments = writer.chain().segments();
            self.tell(ended);
        }
        let segments = writer.chain().segments();
        if self.running.is_some() || segments <= self.segments {
            return;
        }
        self.segments = segments;
        let stop = Arc::new(AtomicBool::new(false));
        let started = {
            let (dir, options, stop) = (self.dir.clone(), self.options.clone(), Arc::clone(&stop));
            thread::spawn(NAME, move || tend(&dir, times, &options, &stop))
        };
        match started {
            Ok(thread) => {
                self.running = Some(Running {
                    thread,
                    stop,
                    process: std::process::id(),
                });
            }
            Err(error) => self.tell(Err(StoreError::NoThread(error))),
        }
    }

    /// Waits until the thread has ended.
    fn end(&mut self) -> Result<(), StoreError> {
        match self.running.take() {
            Some(running) => running.thread.join().unwrap_or(Ok(())),
            None => Ok(()),
        }
    }

    fn tell(&mut self, ended: Result<(), StoreError>) {
        match ended {
            // Somebody else does it, or the program was faster.
            Ok(()) | Err(StoreError::Compacting { .. } | StoreError::GivenUp { .. }) => {}
            Err(error) if !self.told => {
                self.told = true;
                let dir = self.dir.display();
                eprintln!(
                    "ckpt: {dir} could not be compacted, and grows on: {error}; `ckptctl compact` does \
                     it by hand, {COMPACT}=off ends the attempts"
                );
            }
            Err(_) => {}
        }
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        if running.process == std::process::id() {
            running.stop.store(true, Ordering::Relaxed);
            let ended = self.end();
            self.tell(ended);
        } else {
            // The thread is the parent's.
            std::mem::forget(self.running.take());
        }
    }
}

/// Compacts a chain if that is worth it.
fn tend(
    dir: &Path,
    times: u32,
    options: &store::Options,
    stop: &AtomicBool,
) -> Result<(), StoreError> {
    let chain = Chain::open(dir)?;
    let Some(newest) = chain.newest()? else {
        return Ok(());
    };
    let needed = chain.load(newest.epoch)?.stored_bytes();
    // A segment may also be closed because the next one has features that it has not.
    let least = options
        .segment_bytes
        .max(needed.saturating_mul(times.into()));
    if chain.closed_bytes() < least {
        return Ok(());
    }
    let keep = Keep {
        last: Compacting::KEEPS,
        ..Keep::default()
    };
    drop(chain);
    store::compact(dir, &keep, options, |_| !stop.load(Ordering::Relaxed)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Compression;
    use crate::store::tests::every_call::every_call_alone;
    use crate::store::tests::failing_work::Work;
    use crate::store::tests::failing_work::options;
    use crate::store::tests::failing_work::page;

    const COMMITS: u64 = 12;

    /// A chain that is worth compacting, its writer, and who looks after it.
    fn worth_compacting() -> (Work, Writer, Tending) {
        // For four commits.
        let options = options(34_000, Compression::Lz4, true);
        let work = Work::new(&options, page);
        let mut writer = work.open().unwrap();
        for epoch in 1..=COMMITS {
            work.append(&mut writer, epoch).unwrap();
        }
        let tending = Tending::new(work.dir(), options, Compacting::Beyond(2));
        (work, writer, tending)
    }

    #[test]
    fn a_program_goes_on_whatever_fails_while_its_chain_is_compacted() {
        let tried = every_call_alone(
            worth_compacting,
            |(_, writer, tending)| {
                tending.appended(writer);
                // All calls are those of the thread.
                tending.end()
            },
            |(work, mut writer, mut tending), done, trouble| {
                match done {
                    Ok(()) => assert!(writer.chain().find(1).is_some(), "what it knows is old"),
                    Err(StoreError::Io { .. }) => assert!(trouble.is_some()),
                    Err(error) => panic!("{error}"),
                }
                work.append(&mut writer, COMMITS + 1).unwrap();
                // As when the thread has ended: the writer shall know what there is now.
                writer.refresh().unwrap();
                work.append(&mut writer, COMMITS + 2).unwrap();
                work.assert_holds(writer.chain(), COMMITS + 2);
                // The next full segment is the next occasion.
                tending.segments = 1;
                tending.appended(&mut writer);
                tending.end().unwrap();
                drop(writer);
                let chain = Chain::open(work.dir()).unwrap();
                let epochs = work.assert_holds(&chain, COMMITS + 2);
                assert!(!epochs.contains(&1), "nothing was compacted");
            },
        );
        assert!(tried > 100, "{tried} failures are too few to be all");
    }

    #[test]
    fn it_is_off_or_a_number() {
        assert_eq!("off".parse(), Ok(Compacting::Never));
        assert_eq!("2".parse(), Ok(Compacting::Beyond(2)));
        assert_eq!("1000".parse(), Ok(Compacting::Beyond(1000)));
        for wrong in ["", "on", "1", "1001", "4.5", "-3"] {
            assert_eq!(wrong.parse::<Compacting>(), Err(Compacting::EXPECTED));
        }
    }
}
