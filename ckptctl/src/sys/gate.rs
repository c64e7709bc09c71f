// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The gate that system calls other than those of the chain go through.

use std::io;

/// A call, as the fake sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `open(2)` of the device.
    OpenDevice,
    /// `ioctl(2)` with this command.
    Ioctl(u32),
    /// `userfaultfd(2)`.
    Userfault,
    /// `open(2)` of the pagemap.
    OpenPagemap,
    /// `mmap(2)`.
    Map,
    /// `munmap(2)`.
    Unmap,
    /// `mremap(2)`.
    Remap,
    /// `madvise(2)` with this advice.
    Advise(nix::sys::mman::MmapAdvise),
    /// `open(2)` of the list of what is mapped.
    OpenMaps,
    /// `getrandom(2)`.
    Random,
    /// `eventfd2(2)`.
    Event,
    /// `inotify_init1(2)` and what follows.
    Watch,
    /// `pthread_create(3)`.
    Thread,
    /// What a program and its supervisor say to each other.
    Handover,
    /// A snapshot, which only the module makes by a call.
    #[cfg(test)]
    Snapshot,
}

/// Makes a call, unless the fake has something against it.
pub(super) fn call<T>(what: Call, real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    fake::ask(what)?;
    #[cfg(not(test))]
    let _ = what;
    real()
}

#[cfg(test)]
pub(crate) mod fake {
    //! Fails calls of the running thread on purpose.

    use std::cell::RefCell;
    use std::io;

    pub(crate) use super::Call;

    thread_local! {
        static FAILING: RefCell<Option<(Call, i32)>> = const { RefCell::new(None) };
    }

    /// While it lives, a call fails with an error number.
    pub(crate) struct Failing;

    /// Makes every such call of this thread fail.
    pub(crate) fn fail(call: Call, errno: i32) -> Failing {
        FAILING.with(|failing| *failing.borrow_mut() = Some((call, errno)));
        Failing
    }

    impl Drop for Failing {
        fn drop(&mut self) {
            FAILING.with(|failing| *failing.borrow_mut() = None);
        }
    }

    pub(crate) fn ask(what: Call) -> io::Result<()> {
        FAILING.with(|failing| match *failing.borrow() {
            Some((call, errno)) if call == what => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        })
    }
}
