// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whatever writes to a page, the page is in the next delta.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ckptctl::track::Choice;
use nix::libc;

use super::Claim;
use super::PAGE;
use super::Subject;
use super::skip;

pub const CLAIMS: &[Claim] = &[
    ("whatever_writes_to_a_page_the_delta_has_it", every_kind),
    ("a_delta_has_the_written_pages_and_no_others", exactly),
    ("deltas_since_any_cursor_have_all_that_was_written", cursors),
    ("a_page_that_becomes_zero_again_is_in_the_delta", zero),
    ("an_epoch_without_writes_has_no_delta", nothing),
];

/// Fills a page with a byte, or says why this machine cannot do it this way.
type Fill = fn(&Path, *mut u8, u8) -> Result<(), String>;

const KINDS: &[(&str, Fill)] = &[
    ("stores", stores),
    ("one store", one_store),
    ("an atomic exchange", exchange),
    ("read", read),
    ("pread", pread),
    ("readv", readv),
    ("read with O_DIRECT", direct_read),
    ("recv", receive),
    ("process_vm_writev", vm_write),
    ("a write to /proc/self/mem", proc_mem),
    ("getrandom", random),
];

/// A page as the call takes it.
///
/// # Safety
///
/// `page` is the address of a page that nobody else uses meanwhile.
unsafe fn bytes<'a>(page: *mut u8) -> &'a mut [u8] {
    // SAFETY: As this function's contract.
    unsafe { std::slice::from_raw_parts_mut(page, PAGE) }
}

fn stores(_: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    // SAFETY: The claim's, and nobody else's.
    unsafe { bytes(page) }.fill(value);
    Ok(())
}

fn one_store(_: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    // SAFETY: Within the page.
    unsafe { page.add(PAGE - 1).write_volatile(value) };
    Ok(())
}

fn exchange(_: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    // SAFETY: Within the page, and aligned.
    let word = unsafe { &*page.add(64).cast::<AtomicU64>() };
    let before = word.load(Ordering::Relaxed);
    let swapped = word.compare_exchange(before, value.into(), Ordering::SeqCst, Ordering::Relaxed);
    swapped
        .map(drop)
        .map_err(|_| unreachable!("nobody else writes"))
}

/// A file with a page of a byte.
fn file_of(dir: &Path, value: u8) -> File {
    let path = dir.join("page");
    std::fs::write(&path, [value; PAGE]).unwrap();
    File::open(path).unwrap()
}

fn read(dir: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    let mut file = file_of(dir, value);
    // SAFETY: The claim's, and nobody else's.
    file.read_exact(unsafe { bytes(page) }).unwrap();
    Ok(())
}

fn pread(dir: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    let file = file_of(dir, value);
    // SAFETY: The claim's, and nobody else's.
    let bytes = unsafe { bytes(page) };
    file.read_exact_at(&mut bytes[..100], 0).unwrap();
    Ok(())
}

fn readv(dir: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    let mut file = file_of(dir, value);
    // SAFETY: The claim's, and nobody else's.
    let (front, back) = unsafe { bytes(page) }.split_at_mut(1000);
    let mut parts = [
        std::io::IoSliceMut::new(front),
        std::io::IoSliceMut::new(back),
    ];
    assert_eq!(file.read_vectored(&mut parts).unwrap(), PAGE);
    Ok(())
}

fn direct_read(dir: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    drop(file_of(dir, value));
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    let opened = options.open(dir.join("page"));
    let mut file = opened.map_err(|error| format!("no O_DIRECT here: {error}"))?;
    // SAFETY: The claim's, and nobody else's.
    let bytes = unsafe { bytes(page) };
    match file.read(bytes) {
        Ok(count) => assert_eq!(count, PAGE),
        Err(error) => return Err(format!("no O_DIRECT here: {error}")),
    }
    Ok(())
}

fn receive(_: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    let (mut from, mut to) = UnixStream::pair().unwrap();
    from.write_all(&[value; 200]).unwrap();
    // SAFETY: The claim's, and nobody else's.
    to.read_exact(unsafe { &mut bytes(page)[300..500] })
        .unwrap();
    Ok(())
}

fn vm_write(_: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    let content = [value; PAGE];
    let part = |base: *mut u8| libc::iovec {
        iov_base: base.cast(),
        iov_len: PAGE,
    };
    let (local, remote) = (part(content.as_ptr().cast_mut()), part(page));
    // SAFETY: Reads the one and writes the other, which are both a page long.
    let count = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    match count == PAGE as isize {
        true => Ok(()),
        false => Err(std::io::Error::last_os_error().to_string()),
    }
}

fn proc_mem(_: &Path, page: *mut u8, value: u8) -> Result<(), String> {
    let memory = OpenOptions::new().write(true).open("/proc/self/mem");
    let memory = memory.map_err(|error| error.to_string())?;
    let written = memory.write_all_at(&[value; 100], page as u64 + 2000);
    written.map_err(|error| error.to_string())
}

fn random(_: &Path, page: *mut u8, _: u8) -> Result<(), String> {
    // SAFETY: Within the page.
    let count = unsafe { libc::syscall(libc::SYS_getrandom, page, 64, 0) };
    assert_eq!(count, 64);
    Ok(())
}

fn every_kind(choice: Choice, dir: &Path) {
    let mut subject = Subject::new(choice, 3);
    let mut last = subject.commit();
    for (name, fill) in KINDS {
        // The second time the page is there and watched; the last time it was just written.
        for value in 1..=4 {
            if value == 4 {
                one_store(dir, subject.page(1), 77).unwrap();
            }
            let before = subject.image();
            if let Err(why) = fill(dir, subject.page(1), value) {
                skip(name, &why);
                break;
            }
            assert_ne!(subject.image(), before, "{name} wrote nothing");
            let epoch = subject.commit();
            assert!(subject.delta(last).contains(&1), "{name}, {value}: missed");
            last = epoch;
        }
    }
    // What is given to a descriptor that was opened before counts, too.
    let (mut to, from) = UnixStream::pair().unwrap();
    to.write_all(&[9; 8]).unwrap();
    // SAFETY: Within the page.
    let count = unsafe { libc::read(from.as_raw_fd(), subject.page(2).cast(), 8) };
    assert_eq!(count, 8);
    subject.commit();
    assert!(subject.delta(last).contains(&2));
}

fn exactly(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 2000);
    let mut last = subject.commit();
    let mut random = super::Random(11);
    for round in 1..=20 {
        let mut written: Vec<usize> = (0..random.below(200)).map(|_| random.below(2000)).collect();
        if round % 3 == 0 {
            let first = random.below(1000);
            written.extend(first..first + random.below(900));
        }
        written.sort_unstable();
        written.dedup();
        for &page in &written {
            subject.put(page, round);
        }
        let epoch = subject.commit();
        assert_eq!(subject.delta(last), written);
        last = epoch;
    }
}

fn cursors(choice: Choice, _: &Path) {
    let pages = 1200;
    let mut subject = Subject::new(choice, pages);
    let mut random = super::Random(5);
    let mut changed_in = vec![0; pages];
    let mut newest = 0;
    for _ in 0..25 {
        let written: Vec<usize> = (0..random.below(60)).map(|_| random.below(pages)).collect();
        for &page in &written {
            subject.put(page, newest + 1);
        }
        newest = subject.commit();
        for page in written {
            changed_in[page] = newest;
        }
        for since in 0..=newest {
            let expected: Vec<usize> = (0..pages)
                .filter(|&page| changed_in[page] > since)
                .collect();
            assert_eq!(subject.delta(since), expected, "since {since} of {newest}");
        }
    }
}

fn zero(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 4);
    subject.put(2, 5);
    let first = subject.commit();
    subject.put(2, 0);
    let second = subject.commit();
    assert_eq!(subject.delta(first), [2]);
    subject.put(2, 6);
    subject.commit();
    assert_eq!(subject.delta(second), [2]);
}

fn nothing(choice: Choice, _: &Path) {
    let mut subject = Subject::new(choice, 600);
    for page in 0..600 {
        subject.put(page, 1);
    }
    let mut last = subject.commit();
    for _ in 0..3 {
        let image = subject.image();
        assert!(image.contains(&1));
        let epoch = subject.commit();
        assert_eq!(subject.delta(last), Vec::<usize>::new());
        assert_eq!(subject.delta(epoch), Vec::<usize>::new());
        last = epoch;
    }
}
