// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Read-only memory, opened page by page by a handler of SIGSEGV.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::Result;
use nix::libc;
use nix::sys::mman::ProtFlags;
use nix::sys::mman::mprotect;
use nix::sys::signal::SaFlags;
use nix::sys::signal::SigAction;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signal::sigaction;

use super::memory::PAGE;
use super::memory::Private;
use super::runs::Mechanism;

/// Where the memory is, for the handler.
static BASE: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
/// A bit per page that faulted, and where they are; null for none.
static NOTED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: The kernel gives a handler with SA_SIGINFO a valid one.
    let address = unsafe { (*info).si_addr() } as usize;
    let offset = address.wrapping_sub(BASE.load(Ordering::Relaxed));
    let noted = NOTED.load(Ordering::Relaxed) as *const AtomicU64;
    if offset >= LEN.load(Ordering::Relaxed) || noted.is_null() {
        // Not ours: let it kill.
        // SAFETY: May be called in a handler.
        unsafe { libc::abort() };
    }
    let page = offset / PAGE;
    // SAFETY: As many words as the memory has pages, divided by 64; they live as long as the
    // memory. `mprotect` may be called in a handler, and the page is ours.
    unsafe {
        (*noted.add(page / 64)).fetch_or(1 << (page % 64), Ordering::Relaxed);
        let page = (address & !(PAGE - 1)) as *mut libc::c_void;
        if libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            libc::abort();
        }
    }
}

/// Private memory.
pub struct Mprotect {
    memory: Private,
    noted: Vec<AtomicU64>,
}

impl Mprotect {
    /// Memory of so many pages.
    pub fn new(pages: u64) -> Result<Mprotect> {
        let memory = Private::new(pages)?;
        let mut noted = Vec::new();
        noted.resize_with(pages.div_ceil(64) as usize, AtomicU64::default);
        BASE.store(memory.base().as_ptr() as usize, Ordering::Relaxed);
        LEN.store(memory.len(), Ordering::Relaxed);
        NOTED.store(noted.as_ptr() as usize, Ordering::Relaxed);
        let action = SigAction::new(
            SigHandler::SigAction(handle),
            SaFlags::SA_SIGINFO | SaFlags::SA_NODEFER,
            SigSet::empty(),
        );
        // SAFETY: The handler does only what handlers may.
        unsafe { sigaction(Signal::SIGSEGV, &action) }.context("sigaction")?;
        let mprotect = Mprotect { memory, noted };
        mprotect.protect()?;
        Ok(mprotect)
    }

    /// One call for all: the areas that the handler split become one again.
    fn protect(&self) -> Result<()> {
        // SAFETY: The memory is ours, and who writes to it faults into our handler.
        unsafe {
            mprotect(
                self.memory.base().cast(),
                self.memory.len(),
                ProtFlags::PROT_READ,
            )
        }
        .context("mprotect")
    }
}

impl Mechanism for Mprotect {
    fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    fn commit(&mut self, told: &mut dyn FnMut(), found: &mut dyn FnMut(u64, u64)) -> Result<bool> {
        self.protect()?;
        told();
        for (index, word) in self.noted.iter().enumerate() {
            let mut word = word.swap(0, Ordering::Relaxed);
            while word != 0 {
                found(index as u64 * 64 + u64::from(word.trailing_zeros()), 1);
                word &= word - 1;
            }
        }
        Ok(true)
    }
}

impl Drop for Mprotect {
    fn drop(&mut self) {
        LEN.store(0, Ordering::Relaxed);
        NOTED.store(0, Ordering::Relaxed);
    }
}
