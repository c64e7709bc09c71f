// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which program this is, and where it is loaded: what a pointer to code depends on.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Error;
use crate::error::name_program;
use crate::store::Identity;
use crate::sys::file::File;
use crate::sys::process;
use crate::sys::process::LoadedObject;

/// The kernel's own object in every process. It changes with the kernel, and nobody keeps
/// pointers into it.
const VDSO: &str = "linux-vdso.so.1";

/// The running program, whatever became of its file's name.
const EXECUTABLE: &str = "/proc/self/exe";

/// The identity of the running program.
pub(crate) fn current(no_code_pointers: bool) -> Identity {
    let path = std::env::current_exe().unwrap_or_default();
    let mut objects = process::loaded_objects();
    // Not every linker notes a build id; the content tells builds apart as well.
    if let Some(program) = objects.first_mut().filter(|it| it.build_id.is_empty()) {
        program.build_id = content_id(Path::new(EXECUTABLE)).unwrap_or_default();
    }
    of(&objects, path, no_code_pointers)
}

/// As many bytes of a file's BLAKE3 as a build id has.
fn content_id(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.len_bytes()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut offset = 0;
    while offset < len {
        let part = &mut buffer[..(len - offset).min(1 << 16) as usize];
        file.read_exact_at(part, offset)?;
        hasher.update(part);
        offset += part.len() as u64;
    }
    Ok(hasher.finalize().as_bytes()[..20].to_vec())
}

fn of(objects: &[LoadedObject], path: PathBuf, no_code_pointers: bool) -> Identity {
    let mut digest = blake3::Hasher::new();
    let kept = objects
        .iter()
        .filter(|object| object.path.as_os_str() != VDSO);
    for object in kept {
        digest.update(&object.load_address.to_le_bytes());
        digest.update(&(object.build_id.len() as u64).to_le_bytes());
        digest.update(&object.build_id);
    }
    let program = objects.first();
    Identity {
        build_id: program.map_or_else(Vec::new, |object| object.build_id.clone()),
        load_address: program.map_or(0, |object| object.load_address),
        objects_digest: *digest.finalize().as_bytes(),
        path,
        no_code_pointers,
    }
}

/// Whether a state saved by one program can be used by another. Only a program that has
/// declared, then and now, that its state holds no pointers to code may differ.
pub(crate) fn check(saved: &Identity, running: &Identity) -> Result<(), Error> {
    if saved.no_code_pointers && running.no_code_pointers {
        return Ok(());
    }
    let same_file = saved.build_id.is_empty() && saved.path == running.path;
    if saved.build_id != running.build_id || saved.build_id.is_empty() && !same_file {
        return Err(Error::OtherProgram {
            theirs: name_program(&saved.path, &saved.build_id),
            ours: name_program(&running.path, &running.build_id),
        });
    }
    if saved.load_address != running.load_address {
        return Err(Error::Moved {
            what: "the executable is",
        });
    }
    if saved.objects_digest != running.objects_digest {
        return Err(Error::Moved {
            what: "its libraries are not those, or are",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str, load_address: u64, build_id: &[u8]) -> LoadedObject {
        LoadedObject {
            path: path.into(),
            load_address,
            build_id: build_id.to_vec(),
        }
    }

    fn identity(objects: &[LoadedObject]) -> Identity {
        of(objects, "/bin/program".into(), false)
    }

    #[test]
    fn the_same_program_at_the_same_place_may_restore() {
        let objects = [object("", 0x5000, b"a"), object("libc.so.6", 0x7000, b"c")];
        assert!(check(&identity(&objects), &identity(&objects)).is_ok());
    }

    #[test]
    fn another_build_is_refused_and_both_are_named() {
        let saved = identity(&[object("", 0, &[0xaa])]);
        let running = identity(&[object("", 0, &[0xbb])]);
        let error = check(&saved, &running).unwrap_err();
        assert!(matches!(error, Error::OtherProgram { .. }));
        let text = error.to_string();
        assert!(
            text.contains("build id aa") && text.contains("build id bb"),
            "{text}"
        );
    }

    #[test]
    fn another_address_is_refused() {
        let saved = identity(&[object("", 0x1000, b"a")]);
        let running = identity(&[object("", 0x2000, b"a")]);
        assert!(matches!(check(&saved, &running), Err(Error::Moved { .. })));
    }

    #[test]
    fn another_library_is_refused_but_another_kernel_is_not() {
        let program = object("", 0, b"a");
        let with = |path: &str, id: &[u8]| identity(&[program.clone(), object(path, 9, id)]);
        let error = check(&with("libc.so.6", b"1"), &with("libc.so.6", b"2"));
        assert!(matches!(error, Err(Error::Moved { .. })));
        assert!(check(&with(VDSO, b"1"), &with(VDSO, b"2")).is_ok());
    }

    #[test]
    fn state_without_code_pointers_may_move_if_both_sides_say_so() {
        let mut saved = identity(&[object("", 0, b"a")]);
        let mut running = identity(&[object("", 1, b"b")]);
        running.no_code_pointers = true;
        assert!(check(&saved, &running).is_err());
        saved.no_code_pointers = true;
        assert!(check(&saved, &running).is_ok());
    }

    #[test]
    fn the_content_of_a_file_is_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let id = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            content_id(&path).unwrap()
        };
        let mut content = vec![7; 100_000];
        let first = id("a", &content);
        assert_eq!((first.len(), id("b", &content)), (20, first.clone()));
        content[99_999] = 8;
        assert_ne!(id("a", &content), first);
        assert!(!current(false).build_id.is_empty());
    }

    #[test]
    fn programs_without_any_id_are_told_apart_by_path() {
        let objects = [object("", 0, b"")];
        let saved = identity(&objects);
        let other = of(&objects, "/bin/other".into(), false);
        assert!(check(&saved, &identity(&objects)).is_ok());
        assert!(matches!(
            check(&saved, &other),
            Err(Error::OtherProgram { .. })
        ));
    }
}
