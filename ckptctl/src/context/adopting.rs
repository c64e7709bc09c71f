// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that the program has already, as a part of the arena.

use std::ptr::NonNull;

use super::Context;
use super::lock;
use crate::arena::Adopted;
use crate::error::Error;
use crate::sys::span::Span;

impl Context {
    /// Makes memory of the program's a region, at the address that it has: from now on it is
    /// tracked, committed and rolled back, and it is restored when the next run of the program
    /// calls this again with the same name, type, address and length. Then its content is that of
    /// the restored state, and [`Adopted::Found`] says so; what the memory had is dropped. Until
    /// then it is not there: pointers to it are good after this call only.
    ///
    /// Whole pages of private memory without a file, outside of the arena's addresses: static
    /// memory that is zero to begin with, `mmap`, what an allocator gave. When the context is
    /// closed it is ordinary memory again, with the content that it has then.
    ///
    /// Waits until no thread is inside, see [`Context::enter`], and holds those that come.
    ///
    /// # Errors
    ///
    /// All is as it was. [`Error::NotAdoptable`] for other kinds of memory; [`Error::Overlap`];
    /// [`Error::RegionType`] and [`Error::RegionPlace`] when there is another region of this name;
    /// [`Error::Memlock`], [`Error::ArenaFull`], [`Error::TooManyRegions`]; [`Error::Inside`];
    /// [`Error::FromHook`] in a hook behind a commit.
    ///
    /// # Safety
    ///
    /// The memory is the program's. As long as the context is open it stays mapped as it is (no
    /// `munmap`, `mremap`, `free`), and threads use it as they use the arena. During the call none does,
    /// and no reference to it is there: its content may become another. A write that another
    /// thread makes then may be lost.
    pub unsafe fn adopt(
        &self,
        name: &str,
        kind: u32,
        memory: NonNull<[u8]>,
    ) -> Result<Adopted, Error> {
        let shared = &self.shared;
        self.check_process()?;
        shared.threads.refuse_inside("adopt")?;
        shared.threads.refuse_while_telling("adopting memory")?;
        // In a hook before a commit, or behind a rollback, this thread is alone already.
        let alone = shared.threads.is_held_here()?;
        let _turn = (!alone).then(|| lock(&shared.turn));
        let _held = (!alone).then(|| shared.threads.hold()).transpose()?;
        // SAFETY: As this function's contract. That it is mapped is examined.
        let memory = unsafe { Span::new(memory.cast(), memory.len()) };
        self.charging(|inner| inner.arena.adopt(name, kind, memory))
    }
}
