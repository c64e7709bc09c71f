// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `/proc/self/smaps`: what is mapped in this process, and how.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::ops::Range;

use super::gate::Call;
use super::gate::call;

const PATH: &str = "/proc/self/smaps";

/// Addresses that are mapped alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Which.
    pub addresses: Range<u64>,
    /// As in `rw-p`: readable, writable, executable, private or shared.
    pub permissions: String,
    /// The file's, 0 when there is none.
    pub inode: u64,
    /// The file, a name in brackets, or nothing.
    pub name: String,
    /// The two-letter names of `VmFlags`.
    pub flags: Vec<String>,
    /// The protection key, 0 when it has none of its own.
    pub protection_key: u32,
}

impl Area {
    /// Whether a flag of `VmFlags` is set.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }
}

/// What is mapped in a range of addresses, ascending. There may be gaps between.
pub fn areas(addresses: &Range<u64>) -> io::Result<Vec<Area>> {
    let file = call(Call::OpenMaps, || File::open(PATH))?;
    parse(BufReader::new(file), addresses)
}

/// What such a text says of a range of addresses.
pub fn parse(text: impl BufRead, addresses: &Range<u64>) -> io::Result<Vec<Area>> {
    let mut areas: Vec<Area> = Vec::new();
    let mut wanted = false;
    // A path need not be UTF-8.
    for line in text.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let Some(area) = first_line(&line) {
            if area.addresses.start >= addresses.end {
                break;
            }
            wanted = area.addresses.end > addresses.start;
            if wanted {
                areas.push(area);
            }
        } else if let (true, Some(area)) = (wanted, areas.last_mut()) {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                area.flags = flags.split_whitespace().map(str::to_owned).collect();
            } else if let Some(key) = line.strip_prefix("ProtectionKey:") {
                area.protection_key = key.trim().parse().unwrap_or(u32::MAX);
            }
        }
    }
    Ok(areas)
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE NAME`, numbers in hexadecimal but for the inode.
fn first_line(line: &str) -> Option<Area> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    let addresses = address(start)?..address(end)?;
    if addresses.is_empty() {
        return None;
    }
    let permissions = words.next()?.to_owned();
    let inode = words.nth(2)?.parse().ok()?;
    Some(Area {
        addresses,
        permissions,
        inode,
        name: words.collect::<Vec<_>>().join(" "),
        ..Area::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
555555554000-555555556000 r--p 00000000 fd:01 123456                     /bin/with a space
Rss:                   8 kB
VmFlags: rd mr mw me
7ffff7d00000-7ffff7d10000 rw-p 00000000 00:00 0
ProtectionKey:         3
VmFlags: rd wr mr mw me ac lo
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
VmFlags: rd wr mr mw me gd ac
";

    #[test]
    fn areas_are_what_the_kernel_prints() {
        let all = parse(TEXT.as_bytes(), &(0..u64::MAX)).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].name, "/bin/with a space");
        assert_eq!(
            (all[0].inode, all[0].permissions.as_str()),
            (123_456, "r--p")
        );
        assert_eq!((all[1].protection_key, all[1].name.as_str()), (3, ""));
        assert!(all[1].has("lo") && !all[2].has("lo") && all[2].has("gd"));
    }

    #[test]
    fn areas_outside_of_the_range_are_left_out() {
        let at = |range| parse(TEXT.as_bytes(), &range).unwrap().len();
        assert_eq!(at(0x7fff_f7d0_0000..0x7fff_f7d1_0000), 1);
        assert_eq!(at(0x7fff_f7d1_0000..0x7fff_fffd_e000), 0);
        assert_eq!(at(0x5555_5555_5fff..0x7fff_f7d0_0001), 2);
    }

    #[test]
    fn what_has_no_addresses_is_no_area() {
        let none = "7000-6000 rw-p 0 0:0 0\n6000-6000 rw-p 0 0:0 0\n";
        assert_eq!(parse(none.as_bytes(), &(0..u64::MAX)).unwrap(), []);
    }

    #[test]
    fn this_process_is_found_by_its_addresses() {
        let local = 7;
        let at = &raw const local as u64;
        let found = areas(&(at..at + 1)).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].addresses.contains(&at) && found[0].has("wr"));
    }
}
