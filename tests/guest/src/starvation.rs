// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Allocations of the kernel that fail because a test wants them to.
//!
//! The debug kernel can refuse memory: at random, or the Nth time. Only what is asked for on
//! behalf of the module is refused, that is, with code of the module among the callers, and
//! only to threads that said so. The tests' own memory, and the rest of the kernel, have
//! all they need, so whatever goes wrong is the module's.

use std::fs::File;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use crate::failure::Failure;
use crate::failure::Outcome;

const DEBUGFS: &str = "/sys/kernel/debug";
// Slab objects, and pages.
const ALLOCATORS: &[&str] = &["failslab", "fail_page_alloc"];
// Copies from and to user space can fail as well, and would be counted as allocations.
const COPIES: &str = "fail_usercopy";
// Of the pages, those too that may wait, that may lie anywhere, and single ones.
const PAGES_TOO: &[(&str, &str)] = &[("ignore-gfp-highmem", "N"), ("min-order", "0")];
// More than all tests together are refused. The kernel counts down from it.
const MANY: u64 = 2_000_000_000;
const MANY_TEXT: &str = "2000000000";
const EVERYTHING: &[(&str, &str)] = &[
    ("interval", "1"),
    ("times", MANY_TEXT),
    ("space", "0"),
    ("verbose", "0"),
    ("ignore-gfp-wait", "N"),
    ("stacktrace-depth", "32"),
    ("task-filter", "Y"),
];

/// The kernel's settings; as they were at boot when this is dropped.
pub struct Starvation {
    percent: u32,
}

impl Starvation {
    /// What the module asks for is refused in so many of a hundred cases, to threads that
    /// are [`Hungry`]. Skips the test where the kernel cannot do that.
    pub fn of_the_module(percent: u32) -> Result<Self, Failure> {
        for allocator in ALLOCATORS {
            if !Path::new(DEBUGFS).join(allocator).exists() {
                return Err(Failure::skip(format!(
                    "no {DEBUGFS}/{allocator}: only the debug kernel refuses memory (make test-debug)"
                )));
            }
        }
        let starvation = Self { percent };
        let (start, end) = module_text()?;
        set("fail_page_alloc", PAGES_TOO)?;
        set(COPIES, &[("require-start", "1"), ("require-end", "1")])?;
        for allocator in ALLOCATORS {
            set(allocator, EVERYTHING)?;
            set(allocator, &[("require-start", &format!("{start:#x}"))])?;
            set(allocator, &[("require-end", &format!("{end:#x}"))])?;
            set(allocator, &[("probability", &percent.to_string())])?;
        }
        Ok(starvation)
    }

    /// In words, to be printed.
    pub fn describe(&self) -> String {
        format!(
            "{} refuse {} % of what the module asks for",
            ALLOCATORS.join(" and "),
            self.percent
        )
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        for allocator in ALLOCATORS {
            // Nothing can be done when this fails; nobody is hungry afterwards.
            let _ = set(allocator, &[("probability", "0")]);
        }
    }
}

fn set(allocator: &str, settings: &[(&str, &str)]) -> Outcome {
    for (name, value) in settings {
        let path = Path::new(DEBUGFS).join(allocator).join(name);
        std::fs::write(&path, value)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

// The module's code is in here, and the code of nobody else.
fn module_text() -> Result<(u64, u64), Failure> {
    let modules = std::fs::read_to_string("/proc/modules")?;
    let line = modules
        .lines()
        .find(|line| line.starts_with("ckpt "))
        .ok_or_else(|| Failure::new(format!("no ckpt in /proc/modules: {modules}")))?;
    let words: Vec<_> = line.split_whitespace().collect();
    let (Some(size), Some(start)) = (words.get(1), words.get(5)) else {
        return Err(Failure::new(format!("/proc/modules says {line:?}")));
    };
    let start = u64::from_str_radix(start.trim_start_matches("0x"), 16)?;
    crate::ensure!(start > 0, "/proc/modules hides the module's address");
    Ok((start, start + size.parse::<u64>()?))
}

/// How many allocations have been refused since a [`Starvation`] began.
pub fn refusals() -> Result<u64, Failure> {
    let mut sum = 0;
    for allocator in ALLOCATORS {
        let path = Path::new(DEBUGFS).join(allocator).join("times");
        let left: u64 = std::fs::read_to_string(&path)?.trim().parse()?;
        sum += MANY - left;
    }
    Ok(sum)
}

/// The calling thread as one that is refused memory at random, while it is switched on.
///
/// Processes that it forks meanwhile are, too.
pub struct Hungry {
    file: File,
}

impl Hungry {
    /// Of the calling thread; not switched on.
    pub fn new() -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .open("/proc/thread-self/make-it-fail")?;
        Ok(Self { file })
    }

    /// Carries something out while it is switched on.
    pub fn during<T>(&self, body: impl FnOnce() -> T) -> T {
        self.switch(true);
        let result = body();
        self.switch(false);
        result
    }

    /// Switches it on, and leaves it on.
    pub fn for_good(&self) {
        self.switch(true);
    }

    fn switch(&self, on: bool) {
        let written = self.file.write_at(if on { b"1" } else { b"0" }, 0);
        written.expect("make-it-fail can be written");
    }
}

/// What became of a call of which one allocation was to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    /// There was such an allocation, and it failed.
    Refused,
    /// The call was over before.
    NotReached,
}

/// Carries something out, with the `nth` allocation of the module for this thread failing.
pub fn with_nth_refused<T>(nth: u32, body: impl FnOnce() -> T) -> Result<(T, Nth), Failure> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/thread-self/fail-nth")?;
    file.write_at(nth.to_string().as_bytes(), 0)?;
    let result = body();
    let mut left = [0; 16];
    let len = file.read_at(&mut left, 0)?;
    file.write_at(b"0", 0)?;
    let reached = std::str::from_utf8(&left[..len])?.trim() == "0";
    Ok((
        result,
        if reached {
            Nth::Refused
        } else {
            Nth::NotReached
        },
    ))
}

/// Whether a failure is one that want of memory explains: of the call itself, or of the
/// kernel's access to memory of the arena on its behalf.
pub fn explains(errno: Errno) -> bool {
    matches!(errno, Errno::ENOMEM | Errno::EFAULT)
}
