// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a process can learn about itself and set for its children.

use std::ffi::CStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use nix::sys::personality;
use nix::sys::personality::Persona;

use super::gate::Call;
use super::gate::call;

/// An executable or a library that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedObject {
    /// Path as the loader knows it; empty for the executable.
    pub path: PathBuf,
    /// By how much its addresses differ from those in the file.
    pub load_address: u64,
    /// The note that tells one build from another; empty if it has none.
    pub build_id: Vec<u8>,
}

/// All loaded objects, the executable first.
pub fn loaded_objects() -> Vec<LoadedObject> {
    let mut objects: Vec<LoadedObject> = Vec::new();
    // SAFETY: The callback takes what it is given to be what `dl_iterate_phdr` documents, and
    // the data to be the vector, which lives as long as the call.
    unsafe {
        nix::libc::dl_iterate_phdr(Some(note_object), (&raw mut objects).cast());
    }
    objects
}

/// # Safety
///
/// Called by `dl_iterate_phdr` with a vector of objects as its data.
unsafe extern "C" fn note_object(
    info: *mut nix::libc::dl_phdr_info,
    _size: usize,
    data: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    // SAFETY: As this function's contract.
    let (info, objects) = unsafe { (&*info, &mut *data.cast::<Vec<LoadedObject>>()) };
    let path = match info.dlpi_name.is_null() {
        true => PathBuf::new(),
        false => {
            // SAFETY: The loader's names are C strings.
            let name = unsafe { CStr::from_ptr(info.dlpi_name) };
            PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()))
        }
    };
    objects.push(LoadedObject {
        path,
        load_address: info.dlpi_addr,
        // SAFETY: As this function's contract.
        build_id: unsafe { build_id(info) }.unwrap_or_default(),
    });
    0
}

const NT_GNU_BUILD_ID: u32 = 3;

/// # Safety
///
/// `info` describes an object that is loaded.
unsafe fn build_id(info: &nix::libc::dl_phdr_info) -> Option<Vec<u8>> {
    if info.dlpi_phdr.is_null() {
        return None;
    }
    // SAFETY: The loader says that there are so many headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        if header.p_type != nix::libc::PT_NOTE {
            continue;
        }
        let start = (info.dlpi_addr + header.p_vaddr) as *const u8;
        // SAFETY: Note segments are loaded, readable, and do not change.
        let notes = unsafe { std::slice::from_raw_parts(start, header.p_memsz as usize) };
        if let Some(id) = build_id_in(notes) {
            return Some(id.to_vec());
        }
    }
    None
}

/// The build id among the notes of a segment.
pub fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
    while notes.len() >= 12 {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|n| notes[at + n]));
        let (name_len, desc_len, kind) = (word(0) as usize, word(4) as usize, word(8));
        let name = 12;
        let desc = name + name_len.next_multiple_of(4);
        let end = desc + desc_len.next_multiple_of(4);
        if end > notes.len() {
            break;
        }
        if kind == NT_GNU_BUILD_ID && &notes[name..name + name_len] == b"GNU\0" {
            return Some(&notes[desc..desc + desc_len]);
        }
        notes = &notes[end..];
    }
    None
}

/// Whether addresses of what is loaded differ from start to start.
pub fn addresses_are_random() -> bool {
    let fixed =
        personality::get().is_ok_and(|persona| persona.contains(Persona::ADDR_NO_RANDOMIZE));
    !fixed
        && std::fs::read("/proc/sys/kernel/randomize_va_space").is_ok_and(|level| level != b"0\n")
}

/// Makes the programs that this process executes from now on be loaded at the same addresses
/// each time.
pub fn fix_addresses() -> io::Result<()> {
    let persona = personality::get()?;
    personality::set(persona | Persona::ADDR_NO_RANDOMIZE)?;
    Ok(())
}

/// How many forks lie between this process and the one that asked first: what a child inherits
/// and must not use can be told by it, at the cost of a load.
pub fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static WATCH: Once = Once::new();
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    WATCH.call_once(|| {
        // SAFETY: The handler adds to a number, which is allowed in any child. It can fail for
        // want of memory only; then a child is not told from its parent, and what it inherits
        // fails it in another way.
        unsafe { nix::libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Fills with random bytes.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    call(Call::Random, || {
        getrandom::fill(bytes).map_err(io::Error::other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_comes_first_and_has_a_build_id_or_none() {
        let objects = loaded_objects();
        assert!(objects.len() > 1, "the C library is loaded, too");
        assert_eq!(objects[0].path, PathBuf::new());
        let libc = objects
            .iter()
            .find(|object| object.path.to_string_lossy().contains("libc.so"));
        let libc = libc.expect("the C library");
        assert!(
            !libc.build_id.is_empty(),
            "Debian's libraries have a build id"
        );
        assert_ne!(libc.load_address, 0);
    }
}
