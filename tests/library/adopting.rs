// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about programs that have their state in memory of their own, and adopt it.

use std::alloc::Layout;
use std::alloc::alloc_zeroed;
use std::cell::UnsafeCell;
use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use ckptctl::Adopted;
use ckptctl::Context;
use ckptctl::Error;
use ckptctl::Options;
use ckptctl::Restore;
use ckptctl::track;
use ckptctl::track::Choice;
use nix::libc;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::fork;

use super::claims::Claim;

/// Those that hold anywhere.
pub const ANYWHERE: &[Claim] = &[
    (
        "adopted_memory_comes_back_at_its_address_in_another_process",
        lives,
    ),
    (
        "only_what_is_written_of_adopted_memory_is_saved",
        what_is_written,
    ),
    (
        "what_threads_write_to_memory_while_it_is_adopted_is_kept",
        threads,
    ),
    (
        "memory_that_cannot_be_adopted_is_refused_and_stays_as_it_is",
        super::refused_memory::refusals,
    ),
    ("a_child_does_not_have_adopted_memory", children),
];

pub const PAGE: usize = 4096;
pub const BASE: u64 = 0x2300_0000_0000;
/// Where memory is mapped that shall be at the same address in another process.
pub const FIXED: usize = 0x2700_0000_0000;

pub fn options(dir: &Path) -> Options {
    Options::new()
        .dir(dir.join("chain"))
        .name("adopting")
        .base(BASE)
        .arena_bytes(1 << 30)
        .no_code_pointers()
}

pub fn open(dir: &Path, restore: Restore) -> Context {
    Context::open(options(dir).restore(restore)).unwrap_or_else(|error| panic!("{error}"))
}

/// Memory of the program's.
#[derive(Clone, Copy)]
pub struct Memory {
    pub name: &'static str,
    pub start: NonNull<u8>,
    pub len: usize,
}

// SAFETY: It lives as long as the process, and is used through atomics.
unsafe impl Send for Memory {}
// SAFETY: As above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps pages; at an address, or anywhere when it is 0.
    pub fn mapped(name: &'static str, address: usize, pages: usize, flags: i32) -> Memory {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fixed = if address == 0 {
            0
        } else {
            libc::MAP_FIXED_NOREPLACE
        };
        // SAFETY: Replaces nothing.
        let start = unsafe {
            let flags = flags | fixed | libc::MAP_ANONYMOUS;
            libc::mmap(address as *mut _, pages * PAGE, protection, flags, -1, 0)
        };
        assert_ne!(
            start,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        Memory {
            name,
            start: NonNull::new(start.cast()).unwrap(),
            len: pages * PAGE,
        }
    }

    pub fn private(pages: usize) -> Memory {
        Memory::mapped("memory", 0, pages, libc::MAP_PRIVATE)
    }

    pub fn part(&self, page: usize, pages: usize) -> Memory {
        assert!((page + pages) * PAGE <= self.len);
        // SAFETY: Within it.
        let start = unsafe { self.start.add(page * PAGE) };
        Memory {
            start,
            len: pages * PAGE,
            ..*self
        }
    }

    pub fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: It is this long, aligned, and there as long as the process.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.len / 8) }
    }

    pub fn put(&self, page: usize, value: u64) {
        self.words()[page * PAGE / 8].store(value, Ordering::Relaxed);
    }

    pub fn get(&self, page: usize) -> u64 {
        self.words()[page * PAGE / 8].load(Ordering::Relaxed)
    }

    pub fn adopt_as(&self, context: &Context, name: &str, kind: u32) -> Result<Adopted, Error> {
        let memory = NonNull::slice_from_raw_parts(self.start, self.len);
        // SAFETY: It lives as long as the process, and is used through atomics.
        unsafe { context.adopt(name, kind, memory) }
    }

    pub fn adopt(&self, context: &Context) -> Adopted {
        let done = self.adopt_as(context, self.name, 1);
        done.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub fn fill(&self, seed: u64) {
        for (at, word) in (seed..).zip(self.words()) {
            // Some pages are zero.
            let page = (at - seed) as usize * 8 / PAGE;
            let value = if page % 3 == 1 {
                0
            } else {
                at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            };
            word.store(value, Ordering::Relaxed);
        }
    }

    pub fn image(&self) -> Vec<u64> {
        self.words()
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .collect()
    }

    /// Whether it is what [`Memory::fill`] made it.
    pub fn assert_filled(&self, seed: u64, what: &str) {
        let now = self.image();
        self.fill(seed);
        assert!(now == self.image(), "{what}: {}", self.name);
    }
}

#[repr(C, align(4096))]
struct Pages(UnsafeCell<[u8; 24 * PAGE]>);
// SAFETY: Used through atomics.
unsafe impl Sync for Pages {}
static STATIC: Pages = Pages(UnsafeCell::new([0; 24 * PAGE]));

fn static_memory() -> Memory {
    Memory {
        name: "static",
        start: NonNull::new(STATIC.0.get().cast()).unwrap(),
        len: 24 * PAGE,
    }
}

/// Which life of the program a process is, in another process each.
const LIFE: &str = "CKPT_TEST_LIFE";

/// Lives one after the other, without address randomisation, over all trackers that there are.
fn lives(dir: &Path) {
    if let Ok(life) = env::var(LIFE) {
        return live(dir, life.parse().unwrap());
    }
    let own = env::var("CKPT_TRACKER").unwrap_or_else(|_| "auto".into());
    let others = [
        ("module", Choice::Module),
        ("pagemap", Choice::Pagemap),
        ("compare", Choice::Compare),
    ];
    let geometry = track::Geometry {
        name: "trial".into(),
        base: 0,
        len_bytes: 1 << 20,
        epoch: 0,
    };
    let others = others
        .into_iter()
        .filter(|it| track::open(it.1, &geometry).is_ok());
    let trackers = [own.as_str(); 2].into_iter().chain(others.map(|it| it.0));
    for (life, tracker) in trackers.chain([own.as_str()]).enumerate() {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(env::args_os().skip(1))
            .env(LIFE, life.to_string())
            .env("CKPT_TRACKER", tracker);
        // SAFETY: A system call, and nothing else.
        unsafe {
            command.pre_exec(|| {
                libc::personality(libc::ADDR_NO_RANDOMIZE as u64);
                Ok(())
            });
        }
        assert!(
            command.status().unwrap().success(),
            "life {life} over {tracker}"
        );
    }
}

fn live(dir: &Path, life: u64) {
    let context = open(dir, Restore::Newest);
    let fixed = Memory::mapped("fixed", FIXED, 700, libc::MAP_PRIVATE);
    let all = [static_memory(), fixed];
    for memory in all {
        // What was there before is dropped, when there is something to come back.
        memory.fill(if life == 0 { 100 } else { 77_777 });
        let expected = if life == 0 {
            Adopted::New
        } else {
            Adopted::Found
        };
        assert_eq!(memory.adopt(&context), expected, "life {life}");
        memory.assert_filled(100 + life, "adopted");
        assert_eq!(memory.adopt(&context), Adopted::Found, "adopted already");
        memory.assert_filled(100 + life, "adopted again");
    }
    context.commit().unwrap();
    if life == 0 {
        // Of an allocator, which gives another address in another process.
        let layout = Layout::from_size_align(5 * PAGE, PAGE).unwrap();
        // SAFETY: The layout has a size.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let heap = Memory {
            name: "heap memory",
            start,
            len: 5 * PAGE,
        };
        heap.fill(5);
        assert_eq!(heap.adopt(&context), Adopted::New);
        heap.assert_filled(5, "adopted");
    }
    let elsewhere = Memory::private(24);
    let of_others = elsewhere.adopt_as(&context, "static", 1).unwrap_err();
    assert!(
        matches!(of_others, Error::RegionPlace { .. }),
        "{of_others}"
    );
    for memory in all {
        memory.fill(100 + life + 1);
    }
    let report = context.commit_sync().unwrap();
    let regions = ckptctl::store::Chain::open(dir.join("chain")).unwrap();
    let regions = regions.get(report.epoch).unwrap().regions;
    let told = regions
        .iter()
        .find(|region| region.name == "fixed")
        .unwrap();
    assert_eq!(told.adopted_at, Some(FIXED as u64));
    // Not committed, so it is not there in the next life.
    fixed.put(2, 1);
    context.close().unwrap();
    assert_eq!(
        fixed.get(2),
        1,
        "it is the program's, and has the content that it had"
    );
    fixed.put(3, 2);
}

fn what_is_written(dir: &Path) {
    let context = open(dir, Restore::Newest);
    let memory = Memory::private(1000);
    memory.fill(1);
    memory.adopt(&context);
    let first = context.commit_sync().unwrap();
    assert!(first.pages >= 666, "{first:?}");
    assert_eq!(context.commit_sync().unwrap().pages, 0);
    for page in [0, 500, 999] {
        memory.put(page, 4);
    }
    assert_eq!(context.commit().unwrap().pages, 3);
    let smaller = Memory::private(2);
    smaller.put(0, 8);
    smaller.adopt_as(&context, "smaller", 3).unwrap();
    memory.put(7, 9);
    let report = context.commit_sync().unwrap();
    // The table of regions is in the arena's first page.
    assert!((3..=4).contains(&report.pages), "{report:?}");
    context.close().unwrap();
}

fn threads(dir: &Path) {
    const THREADS: usize = 3;
    let context = open(dir, Restore::Newest);
    let memory = Memory::private(2048);
    let words = memory.words();
    let stop = AtomicBool::new(false);
    let counts = [const { AtomicU64::new(0) }; THREADS];
    thread::scope(|scope| {
        for (thread, count) in counts.iter().enumerate() {
            let (context, stop) = (&context, &stop);
            scope.spawn(move || {
                let point = context.safe_point().unwrap();
                let mut at = thread * 7919;
                while !stop.load(Ordering::Relaxed) {
                    point.enter().unwrap();
                    for _ in 0..50 {
                        at = at.wrapping_mul(1103).wrapping_add(12345) % (32 * PAGE / 8);
                        // Some pages, far from each other; each thread has words of its own.
                        let place = at % (PAGE / 8 / THREADS) * THREADS + thread;
                        let word = &words[at / (PAGE / 8) * 64 * (PAGE / 8) + place];
                        word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                    point.leave().unwrap();
                }
            });
        }
        let worked = |more: u64| {
            let sum = || {
                counts
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .sum::<u64>()
            };
            let until = sum() + more;
            while sum() < until {
                thread::yield_now();
            }
        };
        worked(5000);
        assert_eq!(memory.adopt(&context), Adopted::New);
        for _ in 0..10 {
            worked(1000);
            context.commit().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let total = |thread: usize| {
        let places = words.chunks_exact(PAGE / 8).flat_map(|page| {
            let own = page[..PAGE / 8 / THREADS * THREADS].iter();
            own.skip(thread).step_by(THREADS)
        });
        places.map(|word| word.load(Ordering::Relaxed)).sum::<u64>()
    };
    let expected = |thread: usize| counts[thread].load(Ordering::Relaxed);
    for thread in 0..THREADS {
        assert_eq!(total(thread), expected(thread), "thread {thread}");
    }
    context.commit_sync().unwrap();
    let image = memory.image();
    context.close().unwrap();
    assert!(memory.image() == image);
    memory.fill(3);
    let context = open(dir, Restore::Newest);
    assert_eq!(memory.adopt(&context), Adopted::Found);
    assert!(memory.image() == image);
    context.close().unwrap();
}

/// How a child ends that writes to a page.
fn end_of_child(page: *mut u64) -> WaitStatus {
    // SAFETY: The child calls nothing but what is allowed in a child of a process with threads.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: A mapping that is not there ends the child, which is the claim.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                page.write_volatile(99);
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

fn children(dir: &Path) {
    let context = open(dir, Restore::Newest);
    let memory = Memory::private(8);
    memory.fill(1);
    let page: *mut u64 = memory.part(3, 1).start.cast().as_ptr();
    assert!(matches!(end_of_child(page), WaitStatus::Exited(_, 0)));
    memory.adopt(&context);
    let killed = |status| {
        matches!(
            status,
            WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSEGV, _)
        )
    };
    assert!(killed(end_of_child(page)));
    context.commit_sync().unwrap();
    memory.put(3, 5);
    assert!(killed(end_of_child(page)));
    assert_eq!(
        context.commit_sync().unwrap().pages,
        1,
        "children hide no write"
    );
    context.close().unwrap();
    assert!(matches!(end_of_child(page), WaitStatus::Exited(_, 0)));
    assert_eq!(memory.get(3), 5);
}
