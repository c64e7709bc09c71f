// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All tests once more, while the module is refused memory at random.
//!
//! A test may end early then, because a call failed for want of memory. Whatever else is not as
//! the test claims is a finding like any other: a wrong byte, a lost page, a hang, something left
//! behind. A test that ended early is tried again, as the kernel takes its chances anew.

use crate::diag;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::options::Options;
use crate::runner::Test;
use crate::starvation;
use crate::starvation::Hungry;
use crate::starvation::Starvation;

/// How often a test is tried.
const ATTEMPTS: usize = 4;

/// Tests that cannot be tried in this way, and why.
const NOT_TRIED: &[(&str, &str)] = &[
    ("starved::", "it decides itself what is refused"),
    (
        "memcg::",
        "the shortage that it makes itself is what it is about",
    ),
    (
        "module::",
        "it loads the module anew, whose code is then elsewhere than what is refused memory",
    ),
];

/// Memory is refused while this is there.
pub struct Famine {
    _starvation: Starvation,
    /// Tests that were as they claim although memory was refused meanwhile.
    carried_through: usize,
    ended_early: usize,
    not_tried: usize,
    refusals: u64,
}

impl Famine {
    /// If the options want one.
    pub fn begin(options: &Options) -> Result<Option<Famine>, Failure> {
        if options.starve == 0 {
            return Ok(None);
        }
        let starvation = Starvation::of_the_module(options.starve)?;
        diag!("{}", starvation.describe());
        Ok(Some(Famine {
            _starvation: starvation,
            carried_through: 0,
            ended_early: 0,
            not_tried: 0,
            refusals: 0,
        }))
    }

    /// Tries a test: `run` runs it once, in a process that is hungry, and looks for what it left.
    pub fn try_out(&mut self, test: &Test, mut run: impl FnMut() -> Outcome) -> Outcome {
        let exempt = NOT_TRIED
            .iter()
            .find(|(part, _)| test.name().contains(part));
        if let Some((_, reason)) = exempt {
            self.not_tried += 1;
            return Err(Failure::skip(*reason));
        }
        for _ in 0..ATTEMPTS {
            let before = starvation::refusals()?;
            let outcome = run();
            let refused = starvation::refusals()? - before;
            self.refusals += refused;
            match outcome {
                Err(Failure::Failed(text)) if refused > 0 && is_early_end(&text) => {}
                Ok(()) if refused > 0 => {
                    self.carried_through += 1;
                    return Ok(());
                }
                outcome => return outcome,
            }
        }
        self.ended_early += 1;
        diag!("ended early {ATTEMPTS} times");
        Ok(())
    }

    /// What it came to. A famine that nobody noticed has shown nothing.
    pub fn end(self, tests: usize) -> Outcome {
        diag!(
            "{} refusals; {} tests carried through them, {} ended early each time, {} not tried",
            self.refusals,
            self.carried_through,
            self.ended_early,
            self.not_tried
        );
        crate::ensure!(
            self.carried_through * 3 >= tests - self.not_tried,
            "memory was refused in {} of {tests} tests that went to their ends",
            self.carried_through
        );
        Ok(())
    }
}

/// The calling process, and all that it forks, as one that is refused memory.
pub fn join() -> Outcome {
    Hungry::new()?.for_good();
    Ok(())
}

/// By the words: want of memory, or a peer that ended for it, or a count of faults: one whose memory
/// is refused is taken again, and counted again.
fn is_early_end(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "faults",
        // A subscription whose snapshot could not be made.
        "got PollFlags(POLLERR)",
        "the other process is gone",
        "ended without a result",
        "Broken pipe",
    ];
    crate::oracle::starved::is_want_of_memory(text)
        || WORDS.iter().any(|words| text.contains(words))
}
