// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compressing runs, in threads of its own when there is enough to do.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread::JoinHandle;

use super::codec::Codec;
use super::codec::Compressor;
use super::compression::Compression;
use crate::sys::thread;

/// Most bytes of pages in a parcel.
pub(super) const PARCEL_BYTES: usize = 256 << 10;

/// Parcels of a record that are packed where they are made, before threads are started: a small
/// commit is done sooner than a thread has begun.
const ALONE: usize = 8;

/// Parcels that are under way beside one for each thread: what threads have to do while the one
/// that appends waits for the disk.
const AHEAD: usize = 16;

/// Name of the threads, as the system shows it.
const NAME: &str = "ckpt-pack";

/// Pages on their way to the disk: the runs that are to be compressed, then what to store.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// The pages of the runs, one behind the other.
    pub raw: Vec<u8>,
    /// Raw length of each run.
    pub lens: Vec<usize>,
    /// How each run is stored; as many as `lens` when it is packed.
    pub packed: Vec<Packed>,
    /// The stored bytes of the runs, one behind the other. Longer than that: it is never cut,
    /// so that it need not be cleared.
    stored: Vec<u8>,
    stored_len: usize,
}

/// How a run is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub codec: Codec,
    pub stored_len: u32,
    pub crc: u32,
}

impl Parcel {
    /// What to store.
    pub fn stored(&self) -> &[u8] {
        &self.stored[..self.stored_len]
    }

    /// Makes it an empty one, which keeps its memory.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.lens.clear();
        self.packed.clear();
        self.stored_len = 0;
    }

    fn pack(&mut self, compressor: &mut Compressor) {
        let mut rest = self.raw.as_slice();
        for &len in &self.lens {
            let (raw, behind) = rest.split_at(len);
            rest = behind;
            let room = self.stored_len + compressor.room(len);
            if self.stored.len() < room {
                self.stored.resize(room, 0);
            }
            let to = &mut self.stored[self.stored_len..];
            let (codec, stored_len) = compressor.encode(raw, to);
            self.packed.push(Packed {
                codec,
                stored_len: stored_len as u32,
                crc: crc32c::crc32c(&to[..stored_len]),
            });
            self.stored_len += stored_len;
        }
    }
}

/// Packs the parcels of one record, and gives them back in their order.
///
/// With threads, at most [`AHEAD`] parcels more than threads are under way; [`Packer::put`] waits
/// for the oldest of them when there would be more.
#[derive(Debug)]
pub(super) struct Packer {
    compression: Compression,
    threads: usize,
    /// Parcels that were put in.
    parcels: usize,
    /// Packs where it is used.
    compressor: Compressor,
    beside: Option<Beside>,
    /// No thread could be started.
    alone: bool,
    /// Parcels with no content.
    spare: Vec<Parcel>,
}

impl Packer {
    /// A packer; no thread is started yet. With none it packs where it is used.
    pub fn new(compression: Compression, threads: usize) -> Packer {
        Packer {
            compression,
            threads,
            parcels: 0,
            compressor: Compressor::new(compression),
            beside: None,
            alone: threads == 0,
            spare: Vec::new(),
        }
    }

    /// An empty parcel.
    pub fn parcel(&mut self) -> Parcel {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a parcel back that is not needed any more.
    pub fn reuse(&mut self, mut parcel: Parcel) {
        parcel.clear();
        self.spare.push(parcel);
    }

    /// Puts a parcel in; the oldest may come out, packed.
    pub fn put(&mut self, mut parcel: Parcel) -> Option<Parcel> {
        self.parcels += 1;
        if self.beside.is_none() && !self.alone && self.parcels > ALONE {
            self.beside = Beside::start(self.compression, self.threads);
            self.alone = self.beside.is_none();
        }
        let Some(beside) = &mut self.beside else {
            parcel.pack(&mut self.compressor);
            return Some(parcel);
        };
        beside.put(parcel);
        if beside.under_way > self.threads + AHEAD {
            return beside.take();
        }
        None
    }

    /// The oldest parcel that is under way, packed; `None` when there is none.
    pub fn take(&mut self) -> Option<Parcel> {
        self.beside.as_mut()?.take()
    }
}

/// Threads that pack.
#[derive(Debug)]
struct Beside {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    under_way: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a parcel to pack, or there will be none.
    put: Condvar,
    /// The oldest parcel may be packed.
    packed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Under way, oldest first.
    parcels: VecDeque<Place>,
    /// Number of parcels that were taken out.
    taken: usize,
    closing: bool,
}

#[derive(Debug)]
enum Place {
    Waiting(Parcel),
    InHand,
    Packed(Parcel),
    /// The thread that had it panicked.
    Lost,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, compressor: &mut Compressor) {
        let mut state = self.lock();
        while !state.closing {
            let waiting = |place: &Place| matches!(place, Place::Waiting(_));
            let Some(at) = state.parcels.iter().position(waiting) else {
                state = self.put.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let number = state.taken + at;
            let Place::Waiting(mut parcel) =
                std::mem::replace(&mut state.parcels[at], Place::InHand)
            else {
                unreachable!("it was waiting")
            };
            drop(state);
            let done = catch_unwind(AssertUnwindSafe(|| parcel.pack(compressor)));
            state = self.lock();
            // What is in hand is not taken out.
            let at = number - state.taken;
            state.parcels[at] = match done {
                Ok(()) => Place::Packed(parcel),
                Err(_) => Place::Lost,
            };
            if at == 0 {
                self.packed.notify_one();
            }
        }
    }
}

impl Beside {
    /// Starts threads: as many as asked for, or as many as there can be. `None` if that is none.
    fn start(compression: Compression, threads: usize) -> Option<Beside> {
        let mut beside = Beside {
            shared: Arc::default(),
            threads: Vec::new(),
            under_way: 0,
        };
        for _ in 0..threads {
            let shared = Arc::clone(&beside.shared);
            let body = move || shared.work(&mut Compressor::new(compression));
            match thread::spawn(NAME, body) {
                Ok(thread) => beside.threads.push(thread),
                Err(_) => break,
            }
        }
        (!beside.threads.is_empty()).then_some(beside)
    }

    fn put(&mut self, parcel: Parcel) {
        self.under_way += 1;
        self.shared.lock().parcels.push_back(Place::Waiting(parcel));
        self.shared.put.notify_one();
    }

    fn take(&mut self) -> Option<Parcel> {
        if self.under_way == 0 {
            return None;
        }
        let mut state = self.shared.lock();
        loop {
            match state.parcels.front() {
                Some(Place::Packed(_)) => {}
                Some(Place::Lost) => {
                    drop(state);
                    panic!("a thread that compresses panicked, see above");
                }
                _ => {
                    let waited = self.shared.packed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            }
            self.under_way -= 1;
            state.taken += 1;
            return match state.parcels.pop_front() {
                Some(Place::Packed(parcel)) => Some(parcel),
                _ => unreachable!("it was packed"),
            };
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.put.notify_all();
        // They belong to one append, so no forked child ever comes here without them.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake;

    /// Packs this many parcels; returns the first byte of each as it comes out, and the most
    /// that were out at the same time.
    fn pack(threads: usize, parcels: usize) -> (Vec<u8>, usize) {
        let mut packer = Packer::new(Compression::Lz4, threads);
        let (mut order, mut made) = (Vec::new(), 0);
        let mut note = |packer: &mut Packer, parcel: Parcel| {
            assert_eq!(parcel.packed.len(), 2);
            let stored: usize = parcel
                .packed
                .iter()
                .map(|run| run.stored_len as usize)
                .sum();
            assert_eq!(parcel.stored().len(), stored);
            order.push(parcel.raw[0]);
            packer.reuse(parcel);
        };
        for number in 0..parcels {
            made += usize::from(packer.spare.is_empty());
            let mut parcel = packer.parcel();
            assert!(parcel.raw.is_empty() && parcel.stored().is_empty());
            // The first of them take longest.
            let len = 4096 * (2 + (parcels - number) % 9);
            parcel.raw.resize(len, number as u8);
            parcel.lens.extend([4096, len - 4096]);
            if let Some(parcel) = packer.put(parcel) {
                note(&mut packer, parcel);
            }
        }
        while let Some(parcel) = packer.take() {
            note(&mut packer, parcel);
        }
        (order, made)
    }

    #[test]
    fn parcels_come_back_in_their_order() {
        for threads in [0, 1, 2, 5] {
            let order: Vec<u8> = (0..200).collect();
            assert_eq!(pack(threads, 200).0, order, "{threads} threads");
        }
    }

    #[test]
    fn no_more_parcels_are_made_than_are_under_way_and_one_to_be_filled() {
        assert_eq!(pack(0, 200).1, 1);
        for threads in [1, 2, 3, 4] {
            assert_eq!(
                pack(threads, 200).1,
                threads + AHEAD + 1,
                "{threads} threads"
            );
        }
    }

    #[test]
    fn a_small_record_starts_no_thread() {
        let mut packer = Packer::new(Compression::Lz4, 4);
        for _ in 0..ALONE {
            let mut parcel = packer.parcel();
            parcel.raw.resize(4096, 1);
            parcel.lens.push(4096);
            assert!(packer.put(parcel).is_some());
        }
        assert!(packer.beside.is_none());
    }

    #[test]
    fn without_threads_it_packs_alone() {
        let _failing = fake::fail(fake::Call::Thread, nix::libc::EAGAIN);
        assert_eq!(pack(4, 50).0, (0..50).collect::<Vec<u8>>());
    }
}
