// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads of the library's own.

use std::io;
use std::thread;
use std::thread::JoinHandle;

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
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    call(Call::Thread, || {
        let mut blocked = SigSet::all();
        for signal in OWN_FAULTS {
            blocked.remove(signal);
        }
        // A thread begins with the mask of the one that starts it.
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        #[cfg(test)]
        let body = super::file::fake::inherited(body);
        let thread = thread::Builder::new().name(name.into()).spawn(body);
        before.thread_set_mask()?;
        thread
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
