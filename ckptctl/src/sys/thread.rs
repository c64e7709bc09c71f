// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads: those of the library's own, and the one that calls.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::thread;
use std::thread::JoinHandle;

use nix::libc;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;

use super::gate::Call;
use super::gate::call;

/// Signals that a thread brings upon itself. Blocked ones would end the program without asking
/// its handlers.
const OWN_FAULTS: [Signal; 6] = [
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Starts a thread in which no handler of the program's runs: all signals but those that it
/// brings upon itself go to other threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    call(Call::Thread, || {
        with_signals_blocked(|| {
            #[cfg(test)]
            let body = super::file::fake::inherited(body);
            thread::Builder::new().name(name.into()).spawn(body)
        })
    })
}

/// Starts a thread while all signals but a thread's own are blocked: it begins with the mask of
/// the one that starts it.
fn with_signals_blocked<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut blocked = SigSet::all();
    for signal in OWN_FAULTS {
        blocked.remove(signal);
    }
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}

/// The addresses of this thread's stack; none where that is not told.
pub fn own_stack() -> Range<u64> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut len) = (std::ptr::null_mut(), 0);
    // SAFETY: The attributes are made by the first call, and destroyed if they were.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return 0..0;
        }
        let told = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut len);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        match told {
            0 => start as u64..start as u64 + len as u64,
            _ => 0..0,
        }
    }
}

/// Processors that this process may use.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `body` in so many threads at the same time, this one among them, and returns when all
/// have come to its end. Where there cannot be as many there are fewer.
pub fn in_parallel(name: &str, threads: usize, body: &(dyn Fn() + Sync)) {
    thread::scope(|scope| {
        for _ in 1..threads {
            let started = call(Call::Thread, || {
                with_signals_blocked(|| {
                    #[cfg(test)]
                    let body = super::file::fake::inherited(body);
                    thread::Builder::new()
                        .name(name.into())
                        .spawn_scoped(scope, body)
                })
            });
            if started.is_err() {
                break;
            }
        }
        body();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_run_in_parallel_as_were_asked_for_or_as_can_be() {
        let run = || {
            let ids = std::sync::Mutex::new(Vec::new());
            in_parallel("test", 3, &|| {
                ids.lock().unwrap().push(thread::current().id())
            });
            let ids = ids.into_inner().unwrap();
            assert!(ids.contains(&thread::current().id()));
            ids.len()
        };
        assert_eq!(run(), 3);
        let _failing = crate::sys::fake::fail(Call::Thread, nix::libc::EAGAIN);
        assert_eq!(run(), 1);
    }

    #[test]
    fn a_thread_has_no_signals_but_its_own_faults_and_the_starter_keeps_its_mask() {
        let before = SigSet::thread_get_mask().unwrap();
        let (to, from) = std::sync::mpsc::channel();
        let thread = spawn("test", move || {
            to.send(SigSet::thread_get_mask().unwrap()).unwrap();
        });
        thread.unwrap().join().unwrap();
        let mask = from.recv().unwrap();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGALRM,
            Signal::SIGCHLD,
        ] {
            assert!(mask.contains(signal), "{signal}");
        }
        assert!(OWN_FAULTS.iter().all(|&signal| !mask.contains(signal)));
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
