// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One of the processes: what it has, and the steps it takes.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
use nix::unistd::fork;

use super::super::fuzz::argument;
use super::super::fuzz::keep_short;
use super::super::fuzz::number;
use super::Canaries;
use crate::abi;
use crate::arena::Arena;
use crate::credentials::SOMEBODY;
use crate::credentials::become_user;
use crate::device::Device;
use crate::device::PAGE;
use crate::ensure;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::ioctl;
use crate::ioctl::ARENA_COMMANDS;
use crate::ioctl::Bytes;
use crate::ioctl::Command;
use crate::ioctl::DEVICE_COMMANDS;
use crate::ioctl::SNAPSHOT_COMMANDS;
use crate::mapping::Mapping;
use crate::process::Link;
use crate::process::exit_now;
use crate::process::wait_end;
use crate::rng::Rng;

/// What a worker has open.
#[derive(Default)]
pub struct Table {
    pub arenas: Vec<OwnedFd>,
    pub snapshots: Vec<OwnedFd>,
    pub ids: Vec<u64>,
}

pub struct Worker<'a> {
    pub device: &'a Device,
    pub canaries: &'a Canaries,
    pub table: &'a Mutex<Table>,
    beats: &'a AtomicU64,
    pub rng: Rng,
    pub maps: Vec<Mapping>,
    pub own: Mapping,
    done: u64,
}

const FDS_MOST: usize = 40;
/// Pages of the largest arena.
pub const PAGES_MOST: usize = 2000;

/// Room in the worker's own memory: what the kernel writes goes there. As nothing else is near,
/// a call with wrong counts harms nobody.
pub const ROOM_PAGES: usize = 64;
pub const ENTRIES: usize = 16;

fn guarded_memory() -> Result<Mapping, Failure> {
    let memory = Mapping::anonymous(2 * ROOM_PAGES * PAGE)?;
    memory.protect(ROOM_PAGES, ROOM_PAGES, libc::PROT_NONE)?;
    Ok(memory)
}

/// Where the fields of a command are that point somewhere.
fn pointers_of(command: &Command) -> &'static [usize] {
    match command.number {
        abi::CKPT_IOC_LIST => &[std::mem::offset_of!(abi::ckpt_list, entries)],
        abi::CKPT_IOC_DELTA => &[std::mem::offset_of!(abi::ckpt_delta, ranges)],
        abi::CKPT_IOC_GATHER => &[
            std::mem::offset_of!(abi::ckpt_gather, ranges),
            std::mem::offset_of!(abi::ckpt_gather, buffer),
        ],
        _ => &[],
    }
}

// A worker that waits for a snapshot of its own would wait for ever: another thread sees that
// nothing happens and closes them.
pub fn work(device: &Device, canaries: &Canaries, calls: usize, seed: u64, link: &Link) -> Outcome {
    let memory = 4 * (PAGES_MOST * PAGE) as u64;
    setrlimit(Resource::RLIMIT_MEMLOCK, memory, memory)?;
    become_user(SOMEBODY)?;
    let (table, beats, stop) = (
        Mutex::new(Table::default()),
        AtomicU64::new(0),
        AtomicBool::new(false),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(4));
                let now = beats.load(Ordering::Relaxed);
                if now == last {
                    lock(&table).snapshots.clear();
                }
                last = now;
            }
        });
        let mut worker = Worker {
            device,
            canaries,
            table: &table,
            beats: &beats,
            rng: Rng::new(seed),
            maps: Vec::new(),
            own: guarded_memory()?,
            done: 0,
        };
        let mut outcome = Ok(());
        for _ in 0..calls {
            beats.fetch_add(1, Ordering::Relaxed);
            outcome = worker.step();
            if outcome.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        outcome?;
        Ok(link.send_number(worker.done)?)
    })
}

pub fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker<'_> {
    fn step(&mut self) -> Outcome {
        match self.rng.below(400) {
            0 if self.rng.chance(1, 3) => self.fork_and_kill()?,
            1 if self.rng.chance(1, 20) => self.exec()?,
            2..=4 => self.send_to_self()?,
            5..=14 => self.map_or_unmap(),
            15..=24 => self.touch(),
            25..=29 => self.close_or_dup()?,
            _ => self.call()?,
        }
        let mut table = lock(self.table);
        let crowded = table.arenas.len() + table.snapshots.len() > FDS_MOST;
        if crowded {
            table.arenas.clear();
            table.snapshots.clear();
            table.ids.clear();
        }
        drop(table);
        if crowded || self.maps.len() > 20 {
            self.maps.clear();
        }
        Ok(())
    }

    // The number may be somebody else's by the time it is used: what is called there is refused.
    fn some_fd(&mut self, of_arena: bool) -> Option<RawFd> {
        let table = lock(self.table);
        let fds = match of_arena {
            true => &table.arenas,
            false => &table.snapshots,
        };
        let index = self.rng.below(fds.len().max(1));
        fds.get(index).map(|fd| fd.as_raw_fd())
    }

    fn call(&mut self) -> Outcome {
        // Arenas are few: closing one takes the kernel a grace period of RCU.
        let (no_arena, no_snapshot) = {
            let table = lock(self.table);
            (table.arenas.is_empty(), table.snapshots.is_empty())
        };
        if no_arena {
            return self.make_arena();
        }
        let commands = match self.rng.below(20) {
            0 => DEVICE_COMMANDS,
            1..=11 => ARENA_COMMANDS,
            _ if no_snapshot => ARENA_COMMANDS,
            _ => SNAPSHOT_COMMANDS,
        };
        let command = *self.rng.pick(commands);
        let right = match commands.len() {
            _ if std::ptr::eq(commands, DEVICE_COMMANDS) => Some(self.device.as_fd().as_raw_fd()),
            _ => self.some_fd(std::ptr::eq(commands, ARENA_COMMANDS)),
        };
        let wrong = self.rng.chance(1, 30);
        let fd = match (right, wrong) {
            (Some(fd), false) => fd,
            // On purpose, or closed meanwhile.
            _ => self.device.as_fd().as_raw_fd(),
        };
        let mut size = command.size;
        if self.rng.chance(1, 20) {
            size = *self
                .rng
                .pick(&[0, 4, command.first_size, command.size + 8, 300, 4096]);
        }
        let mut bytes = match self.rng.chance(4, 5) {
            true => self.sensible(&command, size),
            false => argument(
                &mut self.rng,
                size.max(command.size),
                &[PAGE as u64, 1, 0x61],
            ),
        };
        bytes.put_u32(0, size as u32);
        let changes = match self.rng.chance(2, 3) {
            true => 0,
            false => self.rng.between(1, 3),
        };
        for _ in 0..changes {
            let offset = 4 * self.rng.between(1, command.size / 4 - 1);
            let value = number(&mut self.rng);
            bytes.put_u32(offset, value as u32);
        }
        keep_short(&command, &mut bytes);
        // Nowhere else may the kernel write.
        for offset in pointers_of(&command) {
            let target = match self.rng.below(12) {
                0 => self.somewhere(false),
                1 => self.own.at(ROOM_PAGES * PAGE - 8 * self.rng.below(ENTRIES)),
                2 => 0,
                _ => self.own.at(8 * self.rng.below(ENTRIES)),
            };
            bytes.put_u32(*offset, target as u32);
            bytes.put_u32(*offset + 4, (target >> 32) as u32);
        }
        let brings_descriptor = matches!(
            command.number,
            abi::CKPT_IOC_CREATE
                | abi::CKPT_IOC_OPEN
                | abi::CKPT_IOC_COMMIT
                | abi::CKPT_IOC_SUBSCRIBE
                | abi::CKPT_IOC_WAIT
        );
        let address = match self.rng.below(40) {
            0 => self.somewhere(brings_descriptor),
            _ => bytes.address(),
        };
        let number = ioctl::with_size(command.number, size);
        // SAFETY: the number is used for this call only. That another thread may close it
        // meanwhile is part of what is tried.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let result = ioctl::call_at(borrowed, number, address);
        if result.is_err() {
            return Ok(());
        }
        self.done += 1;
        if address == bytes.address() {
            self.take_in(&command, &bytes, size)?;
        }
        Ok(())
    }

    fn make_arena(&mut self) -> Outcome {
        let pages = self.rng.between(1, PAGES_MOST) as u64;
        if let Ok(arena) = self.device.create("fuzzed", pages) {
            let mut table = lock(self.table);
            table.ids.push(arena.id());
            table.arenas.push(arena.into_fd());
        }
        Ok(())
    }

    // What a call that was carried out brought; nothing of others may be among it.
    fn take_in(&mut self, command: &Command, bytes: &Bytes, size: usize) -> Outcome {
        let whole = |offset: usize| size >= offset + 4;
        let take = |offset: usize| {
            // SAFETY: a successful call returns a new descriptor, which is ours.
            whole(offset).then(|| unsafe { OwnedFd::from_raw_fd(bytes.get_u32(offset) as i32) })
        };
        let mut table = lock(self.table);
        match command.number {
            abi::CKPT_IOC_CREATE => {
                let id = bytes.get_u32(std::mem::offset_of!(abi::ckpt_create, id));
                table.ids.push(id.into());
                table
                    .arenas
                    .extend(take(std::mem::offset_of!(abi::ckpt_create, fd)));
            }
            abi::CKPT_IOC_OPEN => {
                let fd = take(std::mem::offset_of!(abi::ckpt_open, fd));
                drop(table);
                let fd = fd.ok_or_else(|| Failure::new("OPEN without a descriptor"))?;
                let arena = Arena::new(fd, 0, 0);
                let info = arena.info()?;
                ensure!(
                    !self.canaries.ids.contains(&info.id) && info.uid == SOMEBODY,
                    "arena {} of user {} was opened",
                    info.id,
                    info.uid
                );
                lock(self.table).arenas.push(arena.into_fd());
            }
            abi::CKPT_IOC_COMMIT => {
                let flags = bytes.get_u32(4);
                let offset = std::mem::offset_of!(abi::ckpt_commit, snapshot_fd);
                if flags & abi::CKPT_COMMIT_SNAPSHOT != 0 {
                    table.snapshots.extend(take(offset));
                }
            }
            abi::CKPT_IOC_SUBSCRIBE => {
                let offset = std::mem::offset_of!(abi::ckpt_subscribe, snapshot_fd);
                table.snapshots.extend(take(offset));
            }
            abi::CKPT_IOC_LIST => {
                drop(table);
                self.ensure_own_alone(bytes)?;
            }
            _ => {}
        }
        Ok(())
    }

    // Every entry of a list is of an arena of the worker's own user.
    fn ensure_own_alone(&self, bytes: &Bytes) -> Outcome {
        let offset = std::mem::offset_of!(abi::ckpt_list, entries);
        let (low, high) = (bytes.get_u32(offset), bytes.get_u32(offset + 4));
        let entries = ((u64::from(high) << 32) | u64::from(low)) as usize;
        let size = bytes.get_u32(std::mem::offset_of!(abi::ckpt_list, entry_size)) as usize;
        let count = bytes.get_u32(std::mem::offset_of!(abi::ckpt_list, count)) as usize;
        let room = self.own.address()..self.own.at(ROOM_PAGES * PAGE);
        if !room.contains(&entries) {
            // In an arena, where others write as well.
            return Ok(());
        }
        for index in 0..count {
            let at = entries - self.own.address() + index * size;
            let field = |offset: usize| self.own.read(at + offset, 8);
            let id = field(std::mem::offset_of!(abi::ckpt_info, id));
            let uid = field(std::mem::offset_of!(abi::ckpt_info, uid));
            ensure!(
                !self
                    .canaries
                    .ids
                    .iter()
                    .any(|canary| canary.to_ne_bytes()[..] == id[..])
                    && uid[..4] == SOMEBODY.to_ne_bytes(),
                "arena {id:?} of user {uid:?} is listed"
            );
        }
        Ok(())
    }

    fn map_or_unmap(&mut self) {
        if !self.maps.is_empty() && self.rng.chance(1, 2) {
            let index = self.rng.below(self.maps.len());
            drop(self.maps.swap_remove(index));
            return;
        }
        let Some(fd) = self.some_fd(true) else { return };
        // SAFETY: as in `call`.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let pages = self.rng.between(1, 64) as u64;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        self.maps
            .extend(Mapping::new(fd, 0, pages, both, libc::MAP_SHARED));
    }

    // With the kernel as the writer, which gets an error where a program would get SIGBUS.
    fn touch(&mut self) {
        if self.maps.is_empty() {
            return;
        }
        let map = self.rng.pick(&self.maps);
        let first = self.rng.below(map.len() / PAGE);
        let local = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(self.own.address()),
            iov_len: 8,
        };
        for page in first..(first + self.rng.between(1, 16)).min(map.len() / PAGE) {
            let remote = libc::iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(map.at(page * PAGE)),
                iov_len: 8,
            };
            // SAFETY: both ranges are mapped by this process for the purpose.
            unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        }
    }

    fn close_or_dup(&mut self) -> Outcome {
        let mut table = lock(self.table);
        let fds = match self.rng.chance(1, 2) {
            true => &mut table.arenas,
            false => &mut table.snapshots,
        };
        if fds.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(fds.len());
        if self.rng.chance(1, 3) {
            let copy = fds[index].try_clone();
            fds.extend(copy);
        } else {
            let fd = fds.swap_remove(index);
            drop(table);
            drop(fd);
        }
        Ok(())
    }

    // A child has all descriptors; it is killed in the middle of what it does with them.
    fn fork_and_kill(&mut self) -> Outcome {
        let seed = self.rng.next();
        let fds: Vec<RawFd> = {
            let table = lock(self.table);
            let all = table.arenas.iter().chain(&table.snapshots);
            all.map(|fd| fd.as_raw_fd()).collect()
        };
        let stays = self.rng.below(3000);
        // SAFETY: the child makes system calls on memory of its own only, and ends.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let mut rng = Rng::new(seed);
                let mut words = [0_u64; 64];
                loop {
                    words.iter_mut().for_each(|word| *word = number(&mut rng));
                    let commands = match rng.chance(1, 2) {
                        true => ARENA_COMMANDS,
                        false => SNAPSHOT_COMMANDS,
                    };
                    let command = rng.pick(commands);
                    words[0] = command.size as u64;
                    for fd in &fds {
                        // SAFETY: any argument is allowed; what the kernel writes at the address
                        // goes to this child's own memory. An argument points to what is never
                        // used again.
                        unsafe {
                            libc::ioctl(*fd, command.number.into(), words.as_mut_ptr());
                        }
                    }
                    if fds.is_empty() {
                        exit_now(0);
                    }
                }
            }
            ForkResult::Parent { child } => {
                for _ in 0..stays {
                    std::hint::spin_loop();
                }
                self.beats.fetch_add(1, Ordering::Relaxed);
                match nix::sys::signal::kill(child, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => wait_end(child).map(drop),
                    Err(errno) => Err(errno.into()),
                }
            }
        }
    }

    fn exec(&mut self) -> Outcome {
        let status = std::process::Command::new("true").status()?;
        ensure!(status.success(), "true: {status}");
        Ok(())
    }

    fn send_to_self(&mut self) -> Outcome {
        let (one, other) = Link::pair()?;
        let of_arena = self.rng.chance(1, 2);
        let copy = {
            let table = lock(self.table);
            let fds = match of_arena {
                true => &table.arenas,
                false => &table.snapshots,
            };
            fds.last().map(OwnedFd::try_clone)
        };
        let Some(copy) = copy else { return Ok(()) };
        one.send(b"x", &[copy?.as_fd()])?;
        if self.rng.chance(1, 3) {
            // It goes with the socket.
            return Ok(());
        }
        let fds = other.receive()?.fds;
        let mut table = lock(self.table);
        match of_arena {
            true => table.arenas.extend(fds),
            false => table.snapshots.extend(fds),
        }
        Ok(())
    }
}
