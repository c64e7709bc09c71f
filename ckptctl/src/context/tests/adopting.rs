// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that the program had already. `tests/library/adopting.rs` has the claims that hold over
//! every tracker.

use std::sync::mpsc;

use nix::sys::mman::MmapAdvise;

use super::*;
use crate::Adopted;
use crate::sys::memory::Mapping;

/// Memory of a test's. It outlives the context when it is made before.
struct Memory(Mapping);

impl Memory {
    fn new(pages: usize) -> Memory {
        Memory(Mapping::anonymous(0, pages * PAGE).unwrap())
    }

    fn at(&self) -> NonNull<u8> {
        self.0.base()
    }

    fn adopt(&self, context: &Context, name: &str) -> Result<Adopted, Error> {
        let memory = NonNull::slice_from_raw_parts(self.at(), self.0.len_bytes());
        // SAFETY: It outlives the context, and nobody else uses it.
        unsafe { context.adopt(name, 1, memory) }
    }
}

#[test]
fn memory_that_is_not_adopted_again_is_carried_on_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(3);
    let context = open(dir.path());
    assert_eq!(memory.adopt(&context, "m").unwrap(), Adopted::New);
    put(memory.at(), PAGE, 5);
    context.commit().unwrap();
    drop(context);
    put(memory.at(), PAGE, 6);
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit().unwrap();
    assert_eq!(get(memory.at(), PAGE), 6, "nobody has touched it");
    drop(context);
    let context = open(dir.path());
    assert_eq!(memory.adopt(&context, "m").unwrap(), Adopted::Found);
    assert_eq!(get(memory.at(), PAGE), 5);
    assert_eq!(context.region_len("m").unwrap(), Some(3 * PAGE as u64));
}

#[test]
fn regions_behind_adopted_memory_have_pages_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = [Memory::new(3), Memory::new(2)];
    let context = open(dir.path());
    one.adopt(&context, "one").unwrap();
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    other.adopt(&context, "other").unwrap();
    let block = context.allocate(3 * PAGE, 16).unwrap();
    for (at, value) in [(one.at(), 1), (region, 2), (other.at(), 3), (block, 4)] {
        put(at, 0, value);
    }
    context.commit().unwrap();
    drop(context);
    let context = open(dir.path());
    one.adopt(&context, "one").unwrap();
    other.adopt(&context, "other").unwrap();
    let values = [one.at(), region, other.at(), block].map(|at| get(at, 0));
    assert_eq!(values, [1, 2, 3, 4]);
}

#[test]
fn a_failing_call_of_the_system_leaves_memory_and_arena_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(2);
    let context = open(dir.path());
    put(memory.at(), 0, 3);
    let mut calls = vec![Call::OpenMaps, Call::Advise(MmapAdvise::MADV_DONTFORK)];
    if context.tracker() == "module" {
        calls = vec![Call::OpenMaps, Call::Map, Call::Remap];
    }
    for call in calls {
        let failing = fake::fail(call, libc::ENOMEM);
        let error = memory.adopt(&context, "m").unwrap_err();
        drop(failing);
        assert_eq!(error.errno(), libc::ENOMEM, "{call:?}: {error}");
        assert_eq!(context.region_len("m").unwrap(), None, "{call:?}");
        let region = format!("{call:?}");
        let region = context.region(&spec(&region[..8], 2 * 4096, 0)).unwrap();
        assert_eq!((get(region, 0), get(memory.at(), 0)), (0, 3), "{call:?}");
    }
    assert_eq!(memory.adopt(&context, "m").unwrap(), Adopted::New);
    put(memory.at(), 0, 4);
    context.commit().unwrap();
}

#[test]
fn hooks_adopt_but_those_behind_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new([Memory::new(1), Memory::new(1), Memory::new(1)]);
    let adopting = |which: usize, told: mpsc::Sender<Result<Adopted, i32>>| {
        let memory = Arc::clone(&memory);
        let told = Mutex::new(told);
        move |context: &Context, _: u64| {
            let names = ["restore", "before", "after"];
            let done = memory[which].adopt(context, names[which]);
            let done = done.map_err(|error| error.errno());
            told.lock().unwrap().send(done).unwrap();
            0
        }
    };
    for life in [Adopted::New, Adopted::Found] {
        let (tell, told) = mpsc::channel();
        let options = options(dir.path()).hook(When::AfterRestore, adopting(0, tell.clone()));
        let context = Context::open(options).unwrap();
        if life == Adopted::New {
            memory[0].adopt(&context, "restore").unwrap();
        } else {
            assert_eq!(told.recv().unwrap(), Ok(Adopted::Found));
            assert_eq!(get(memory[0].at(), 0), 7);
        }
        context
            .hook(When::BeforeCommit, Arc::new(adopting(1, tell.clone())))
            .unwrap();
        context
            .hook(When::AfterCommit, Arc::new(adopting(2, tell)))
            .unwrap();
        put(memory[0].at(), 0, 7);
        context.commit_sync().unwrap();
        assert_eq!(told.recv().unwrap(), Ok(life));
        assert_eq!(told.recv().unwrap(), Err(libc::EDEADLK));
        context.commit().unwrap();
        assert_eq!(told.recv().unwrap(), Ok(Adopted::Found));
        assert_eq!(told.recv().unwrap(), Err(libc::EDEADLK));
        put(memory[0].at(), 0, 8);
    }
}

#[test]
fn adopted_memory_goes_back_with_the_arena_or_is_left_to_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(2);
    let context = open(dir.path());
    let region = context.region(&spec("r", 4096, 0)).unwrap();
    put(region, 0, 1);
    context.commit().unwrap();
    put(memory.at(), 0, 2);
    memory.adopt(&context, "m").unwrap();
    put(memory.at(), PAGE, 2);
    let with = context.commit().unwrap().epoch;
    put(memory.at(), 0, 3);
    put(region, 0, 3);
    context.commit().unwrap();
    let values =
        || [(memory.at(), 0), (memory.at(), PAGE), (region, 0)].map(|(at, to)| get(at, to));
    context.rollback(with).unwrap();
    assert_eq!(values(), [2, 2, 1]);
    assert_eq!(memory.adopt(&context, "m").unwrap(), Adopted::Found);
    put(memory.at(), PAGE, 4);
    context.rollback(1).unwrap();
    assert_eq!(values(), [2, 4, 1], "it is no part of that state");
    assert_eq!(context.region_len("m").unwrap(), None);
    let other = context.region(&spec("other", 3 * 4096, 0)).unwrap();
    assert_eq!([0, PAGE, 2 * PAGE].map(|at| get(other, at)), [0; 3]);
    put(other, 0, 5);
    context.commit().unwrap();
    assert_eq!(values(), [2, 4, 1]);
    context.rollback(with).unwrap();
    assert_eq!(values(), [2, 4, 1], "it comes back when it is adopted");
    assert_eq!(memory.adopt(&context, "m").unwrap(), Adopted::Found);
    assert_eq!(values(), [2, 2, 1]);
    put(memory.at(), 0, 6);
    context.commit().unwrap();
    drop(context);
    put(memory.at(), 0, 0);
    let context = open(dir.path());
    memory.adopt(&context, "m").unwrap();
    assert_eq!(values(), [6, 2, 1]);
}

#[test]
fn a_root_in_adopted_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new(1);
    let context = open(dir.path());
    memory.adopt(&context, "m").unwrap();
    let error = context.set_root(Some(memory.at())).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
}
