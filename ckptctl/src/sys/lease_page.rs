// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page by which a program knows that its host is the primary: a file that its supervisor
//! writes and it reads.
//!
//! It has an instant of the future, and the host is the primary until then. The supervisor
//! moves the instant forward as often as it renews its lease. When the supervisor is stopped or
//! killed nobody does, and the program finds by itself, with one load and one look at the clock,
//! that it must not release outputs any more.
//!
//! A page is of one term. The next term of the same host gets a page of its own in a new file of the same
//! name, so that a program that was left over from an earlier term never finds itself valid again.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::libc;

use super::clock::since_boot_ns;
use super::gate::Call;
use super::gate::call;
use super::memory::PAGE;

/// Name of the file in the chain's directory.
pub const FILE_NAME: &str = "LEASE";

#[repr(C)]
struct Fields {
    magic: AtomicU64,
    /// The boot whose clock this is. The clock begins anew with each, and a file outlives it.
    boot: [AtomicU64; 2],
    term: AtomicU64,
    /// By CLOCK_BOOTTIME. 0: not valid.
    valid_until_ns: AtomicU64,
}

const MAGIC: u64 = u64::from_le_bytes(*b"CKPTLSE1");

/// The page, as the program sees it.
#[derive(Debug)]
pub struct LeasePage {
    map: Map,
    of_this_boot: bool,
}

impl LeasePage {
    /// That in a file. `None` when there is no file.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the file is something else.
    pub fn in_file(path: &Path) -> io::Result<Option<LeasePage>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // What is behind the end of a file cannot be read.
        if file.metadata()?.len() < PAGE as u64 {
            return Err(no_page(path));
        }
        let map = Map::of_file(&file, libc::PROT_READ)?;
        let fields = map.fields();
        if fields.magic.load(Ordering::Acquire) != MAGIC {
            return Err(no_page(path));
        }
        let boot = boot_id()?;
        let of_this_boot = (0..2).all(|i| fields.boot[i].load(Ordering::Relaxed) == boot[i]);
        Ok(Some(LeasePage { map, of_this_boot }))
    }

    /// Whether the host is still the primary: outputs may be released now, and must be on their
    /// way within the margin that the supervisor has left (a fifth of the lease).
    ///
    /// False as well when the clock cannot be read, and in a page of an earlier boot.
    pub fn is_valid(&self) -> bool {
        since_boot_ns().is_ok_and(|now| now < self.valid_until_ns())
    }

    /// Until when, by CLOCK_BOOTTIME in nanoseconds; 0 when it is not valid.
    pub fn valid_until_ns(&self) -> u64 {
        match self.of_this_boot {
            // The word says all by itself, there is nothing that it would have to be seen with.
            true => self.map.fields().valid_until_ns.load(Ordering::Relaxed),
            false => 0,
        }
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.map.fields().term.load(Ordering::Relaxed)
    }
}

/// The page, as the supervisor sees it.
#[derive(Debug)]
pub struct LeaseWriter {
    map: Map,
    ended: bool,
}

impl LeaseWriter {
    /// A new one for a term, not valid yet, in the place of what was there. Those who have mapped
    /// the earlier one keep that.
    pub fn in_new_file(path: &Path, term: u64) -> io::Result<LeaseWriter> {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        // Written, not only made longer: a full disk is told here, instead of by a signal later.
        file.write_all(&[0; PAGE])?;
        let map = Map::of_file(&file, libc::PROT_READ | libc::PROT_WRITE)?;
        let fields = map.fields();
        for (field, word) in fields.boot.iter().zip(boot_id()?) {
            field.store(word, Ordering::Relaxed);
        }
        fields.term.store(term, Ordering::Relaxed);
        fields.magic.store(MAGIC, Ordering::Release);
        fs::rename(&new, path)?;
        Ok(LeaseWriter { map, ended: false })
    }

    /// The host is the primary until then, by CLOCK_BOOTTIME in nanoseconds. An instant before
    /// one that was written already changes nothing, and nothing does any more after `end`.
    pub fn extend(&mut self, valid_until_ns: u64) {
        if !self.ended {
            let word = &self.map.fields().valid_until_ns;
            word.fetch_max(valid_until_ns, Ordering::Relaxed);
        }
    }

    /// The term is over, for good.
    pub fn end(&mut self) {
        self.ended = true;
        let word = &self.map.fields().valid_until_ns;
        word.store(0, Ordering::Relaxed);
    }
}

fn no_page(path: &Path) -> io::Error {
    let why = format!(
        "{} is not the page of a lease: remove it, its supervisor makes a new one",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Which boot of which machine this is, the same in all of its containers.
fn boot_id() -> io::Result<[u64; 2]> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path)?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) => Ok([(id >> 64) as u64, id as u64]),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, path)),
    }
}

/// A page, mapped.
#[derive(Debug)]
struct Map(NonNull<Fields>);

// SAFETY: The mapping belongs to the process, and only atomics are in it.
unsafe impl Send for Map {}
// SAFETY: As above.
unsafe impl Sync for Map {}

impl Map {
    /// The first page of a file, which must be as long.
    fn of_file(file: &File, protection: i32) -> io::Result<Map> {
        use std::os::fd::AsRawFd;
        call(Call::Map, || {
            // SAFETY: Replaces no mapping.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    PAGE,
                    protection,
                    libc::MAP_SHARED,
                    file.as_fd().as_raw_fd(),
                    0,
                )
            };
            match NonNull::new(at) {
                Some(at) if at.as_ptr() != libc::MAP_FAILED => Ok(Map(at.cast())),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }

    fn fields(&self) -> &Fields {
        // SAFETY: Mapped in `of_file`, for a page, until this is dropped; any bytes are fields,
        // and the place is a page's, so aligned. Who has it mapped to be read only loads.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = call(Call::Unmap, || {
            // SAFETY: Mapped by us, and borrowed by nobody any more.
            match unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        (dir, path)
    }

    fn soon() -> u64 {
        since_boot_ns().unwrap() + HOUR_NS
    }

    fn seen(path: &Path) -> LeasePage {
        LeasePage::in_file(path).unwrap().unwrap()
    }

    #[test]
    fn without_a_file_there_is_no_page() {
        let (_dir, path) = place();
        assert!(LeasePage::in_file(&path).unwrap().is_none());
    }

    #[test]
    fn a_new_page_is_not_valid() {
        let (_dir, path) = place();
        let _writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        assert!(!seen(&path).is_valid());
    }

    #[test]
    fn a_page_is_valid_until_the_instant_that_was_written() {
        let (_dir, path) = place();
        let mut writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        let page = seen(&path);
        let until = since_boot_ns().unwrap() + 50_000_000;
        writer.extend(until);
        loop {
            let before = since_boot_ns().unwrap();
            let valid = page.is_valid();
            let behind = since_boot_ns().unwrap();
            if behind < until {
                assert!(valid);
            }
            if before >= until {
                assert!(!valid);
                break;
            }
        }
    }

    #[test]
    fn a_page_that_is_mapped_already_follows_its_writer() {
        let (_dir, path) = place();
        let mut writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        let page = seen(&path);
        writer.extend(soon());
        assert!(page.is_valid());
    }

    #[test]
    fn the_instant_only_moves_forward() {
        let (_dir, path) = place();
        let mut writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        let until = soon();
        writer.extend(until);
        writer.extend(until - 1);
        assert_eq!(seen(&path).valid_until_ns(), until);
    }

    #[test]
    fn a_term_that_was_ended_is_never_valid_again() {
        let (_dir, path) = place();
        let mut writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        writer.extend(soon());
        writer.end();
        writer.extend(soon());
        assert!(!seen(&path).is_valid());
    }

    #[test]
    fn a_page_knows_its_term() {
        let (_dir, path) = place();
        let _writer = LeaseWriter::in_new_file(&path, 7).unwrap();
        assert_eq!(seen(&path).term(), 7);
    }

    #[test]
    fn who_has_the_page_of_an_earlier_term_does_not_see_the_next() {
        let (_dir, path) = place();
        let _first = LeaseWriter::in_new_file(&path, 3).unwrap();
        let page = seen(&path);
        let mut second = LeaseWriter::in_new_file(&path, 5).unwrap();
        second.extend(soon());
        assert_eq!((page.is_valid(), page.term()), (false, 3));
    }

    #[test]
    fn a_page_of_an_earlier_boot_is_not_valid() {
        let (_dir, path) = place();
        let mut writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        writer.extend(soon());
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0x5a; 16], std::mem::offset_of!(Fields, boot) as u64)
            .unwrap();
        assert!(!seen(&path).is_valid());
    }

    #[test]
    fn another_file_is_no_page() {
        let (_dir, path) = place();
        for content in [&[][..], &[0; PAGE][..]] {
            fs::write(&path, content).unwrap();
            let error = LeasePage::in_file(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn only_its_user_may_look_at_a_page() {
        let (_dir, path) = place();
        let _writer = LeaseWriter::in_new_file(&path, 3).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
