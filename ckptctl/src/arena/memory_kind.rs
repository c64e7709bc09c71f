// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which memory of a program can be adopted: private memory without a file, that nobody has made
//! something special of.

use std::ops::Range;

use crate::error::Error;
use crate::sys::maps;
use crate::sys::maps::Area;
use crate::sys::thread;

/// Refuses memory that cannot be adopted.
pub(super) fn check(addresses: &Range<u64>) -> Result<(), Error> {
    let stack = thread::own_stack();
    if stack.start < addresses.end && addresses.start < stack.end {
        return Err(Error::NotAdoptable {
            address: addresses.start,
            why: IS_STACK.into(),
        });
    }
    let areas = maps::areas(addresses).map_err(|source| Error::System {
        doing: "read /proc/self/smaps",
        source,
    })?;
    let mut next = addresses.start;
    for area in &areas {
        if area.addresses.start > next {
            break;
        }
        if let Err(why) = judge(area) {
            return Err(Error::NotAdoptable { address: next, why });
        }
        next = area.addresses.end;
    }
    match next >= addresses.end {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "nothing is mapped at {next:#x}: adopt memory that is there"
        ))),
    }
}

const IS_STACK: &str = "it is a stack; adopt memory that outlives the thread";

/// Why an area cannot be adopted.
fn judge(area: &Area) -> Result<(), String> {
    let own_name = area.name.is_empty() || area.name == "[heap]" || area.name.starts_with("[anon:");
    let has = |flags: &[&str]| flags.iter().any(|flag| area.has(flag));
    let why = match () {
        () if area.name == "[stack]" || has(&["gd", "gu", "ss"]) => IS_STACK.into(),
        () if has(&["ht"]) => "it is of huge pages (hugetlbfs), and an arena has pages of 4 KiB; use ordinary memory".into(),
        () if area.permissions.ends_with('s') => "it is shared (MAP_SHARED), and others could write to it unnoticed; use private memory".into(),
        () if area.inode != 0 => format!("it is of the file {}; adopt memory without a file: static data must be zero to begin with", area.name),
        () if !own_name => format!("it is {} of the system; use memory of the program's own", area.name),
        () if !area.permissions.starts_with("rw-") => format!("its protection is {}; make it readable and writable, and not executable (mprotect)", area.permissions),
        () if has(&["lo", "lf"]) => "it is locked (mlock), and pages of the arena would not be; unlock it first (munlock)".into(),
        () if area.protection_key != 0 => format!("it has protection key {}; take it off first (pkey_mprotect)", area.protection_key),
        () if has(&["um", "uw", "ui"]) => "it is watched by a userfaultfd, of another arena or of the program's; unregister it there first".into(),
        () if has(&["dc", "wf"]) => "children do not get it (MADV_DONTFORK, MADV_WIPEONFORK): it is another arena's, or the program keeps it for itself; undo that first (MADV_DOFORK, MADV_KEEPONFORK)".into(),
        () if has(&["io", "pf", "mm"]) => "it is of a device; use ordinary memory".into(),
        () if has(&["sl"]) => "it is sealed (mseal), so nothing can be mapped there; use other memory".into(),
        () => return Ok(()),
    };
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(permissions: &str, inode: u64, name: &str, flags: &str) -> Area {
        Area {
            addresses: 0x1000..0x2000,
            permissions: permissions.into(),
            inode,
            name: name.into(),
            flags: flags.split(' ').map(str::to_owned).collect(),
            protection_key: 0,
        }
    }

    #[test]
    fn private_memory_without_a_file_can_be_adopted() {
        for name in ["", "[heap]", "[anon: glibc: malloc]"] {
            assert_eq!(judge(&area("rw-p", 0, name, "rd wr mr mw me ac")), Ok(()));
        }
    }

    #[test]
    fn all_other_memory_cannot_and_is_named() {
        let keyed = Area {
            protection_key: 3,
            ..area("rw-p", 0, "", "rd wr")
        };
        for (area, word) in [
            (area("rw-p", 0, "[stack]", "rd wr"), "stack"),
            (area("rw-p", 0, "", "rd wr gd"), "stack"),
            (
                area("rw-p", 7, "/anon_hugepage (deleted)", "rd ht"),
                "huge pages",
            ),
            (
                area("rw-s", 7, "/dev/zero (deleted)", "rd wr sh"),
                "MAP_SHARED",
            ),
            (area("rw-p", 9, "/bin/program", "rd wr"), "/bin/program"),
            (area("rw-p", 0, "[vvar]", "rd"), "[vvar]"),
            (area("r--p", 0, "", "rd"), "mprotect"),
            (area("rwxp", 0, "", "rd wr ex"), "not executable"),
            (area("rw-p", 0, "", "rd wr lo"), "munlock"),
            (keyed, "key 3"),
            (area("rw-p", 0, "", "rd wr uw"), "userfaultfd"),
            (area("rw-p", 0, "", "rd wr dc"), "MADV_DONTFORK"),
            (area("rw-p", 0, "", "rd wr mm"), "device"),
            (area("rw-p", 0, "", "rd wr sl"), "mseal"),
        ] {
            let why = judge(&area).unwrap_err();
            assert!(why.contains(word), "{area:?}: {why}");
        }
    }
}
