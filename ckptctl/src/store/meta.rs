// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a record says about its commit besides the pages, and the encoding of
//! its meta section.

use std::collections::HashMap;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

use super::format;
use super::format::Kind;

/// What a commit says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitMeta {
    /// Its epoch, from 1.
    pub epoch: u64,
    /// The epoch that its pages are a delta to; `None` when it stands alone.
    pub parent: Option<u64>,
    /// Commit or restore.
    pub kind: Kind,
    /// Random id, made anew by every restore.
    pub generation: [u8; 16],
    /// Wall clock of the commit, nanoseconds since 1970.
    pub time_ns: u64,
    /// For how long the commit held up the program's writers.
    pub pause_ns: u64,
    /// Address at which the arena is mapped.
    pub arena_base: u64,
    /// Size of the arena.
    pub arena_len_pages: u64,
    /// log2 of the page size; the same in all epochs of a branch.
    pub page_shift: u32,
    /// The regions, with unique names.
    pub regions: Vec<RegionEntry>,
    /// The program.
    pub identity: Identity,
}

/// A named, typed part of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// 1 to 255 bytes.
    pub name: String,
    /// Type, of the program's choosing.
    pub kind: u32,
    /// Where in the arena it begins.
    pub offset_pages: u64,
    /// Its current length.
    pub len_pages: u64,
    /// Address space kept for it, at least its length.
    pub reserve_pages: u64,
    /// The program uses it at this address, above 0; `None`: at its place in the arena.
    pub adopted_at: Option<u64>,
}

/// Which program made the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Build-id of the executable, at most 64 bytes; empty when it has none.
    pub build_id: Vec<u8>,
    /// Where the executable was loaded.
    pub load_address: u64,
    /// Over the build-ids and load addresses of all loaded objects.
    pub objects_digest: [u8; 32],
    /// The executable, for people; at most 4096 bytes.
    pub path: PathBuf,
    /// The program declared that its state holds no code pointers.
    pub no_code_pointers: bool,
}

const ITEM_REGION: u32 = 1;
const ITEM_IDENTITY: u32 = 2;
const ITEM_ADOPTED: u32 = 3;
/// From here up, an item that is not known must not be skipped.
const ITEM_MUST_KNOW: u32 = 1 << 31;

const IDENTITY_NO_CODE_POINTERS: u32 = 1;
const NOT_ADOPTED: &str = "an address in it is of no region, or of one that has another";
const NAME_MAX_BYTES: usize = 255;
const BUILD_ID_MAX_BYTES: usize = 64;
const PATH_MAX_BYTES: usize = 4096;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Item {
    item_type: U32,
    len: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RegionItem {
    offset_pages: U64,
    len_pages: U64,
    reserve_pages: U64,
    kind: U32,
    name_len: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct AdoptedItem {
    address: U64,
    name_len: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct IdentityItem {
    load_address: U64,
    objects_digest: [u8; 32],
    flags: U32,
    build_id_len: U32,
    path_len: U32,
    reserved: U32,
}

impl Identity {
    /// As an item of a meta section has it.
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        let fixed = IdentityItem {
            load_address: self.load_address.into(),
            objects_digest: self.objects_digest,
            flags: if self.no_code_pointers {
                IDENTITY_NO_CODE_POINTERS
            } else {
                0
            }
            .into(),
            build_id_len: (self.build_id.len() as u32).into(),
            path_len: (path.len() as u32).into(),
            reserved: 0.into(),
        };
        [fixed.as_bytes(), &self.build_id, path].concat()
    }

    /// What `encode` gave, or what is wrong with it.
    pub fn decode(value: &[u8]) -> Result<Identity, &'static str> {
        decode_identity(value)
    }
}

impl CommitMeta {
    /// The meta section, or what must not be in one.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        self.check()?;
        let mut section = Vec::new();
        for region in &self.regions {
            let fixed = RegionItem {
                offset_pages: region.offset_pages.into(),
                len_pages: region.len_pages.into(),
                reserve_pages: region.reserve_pages.into(),
                kind: region.kind.into(),
                name_len: (region.name.len() as u32).into(),
            };
            push(
                &mut section,
                ITEM_REGION,
                &[fixed.as_bytes(), region.name.as_bytes()],
            );
            if let Some(address) = region.adopted_at {
                let fixed = AdoptedItem {
                    address: address.into(),
                    name_len: (region.name.len() as u32).into(),
                    reserved: 0.into(),
                };
                push(
                    &mut section,
                    ITEM_ADOPTED,
                    &[fixed.as_bytes(), region.name.as_bytes()],
                );
            }
        }
        push(&mut section, ITEM_IDENTITY, &[&self.identity.encode()]);
        if section.len() as u64 > format::META_MAX_BYTES {
            return Err(format!(
                "{} regions do not fit into a record: use fewer or give them shorter names",
                self.regions.len()
            ));
        }
        Ok(section)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=format::EPOCH_MAX).contains(&self.epoch) {
            return Err(format!("epoch {} is out of range", self.epoch));
        }
        if !format::PAGE_SHIFTS.contains(&self.page_shift) {
            return Err(format!(
                "a page size of 2^{} bytes cannot be stored",
                self.page_shift
            ));
        }
        if self.arena_len_pages > format::ARENA_MAX_PAGES {
            return Err(format!(
                "an arena of {} pages cannot be stored",
                self.arena_len_pages
            ));
        }
        if self.identity.build_id.len() > BUILD_ID_MAX_BYTES {
            return Err("the executable's build-id is longer than 64 bytes".into());
        }
        if self.identity.path.as_os_str().len() > PATH_MAX_BYTES {
            return Err("the executable's path is longer than 4096 bytes".into());
        }
        check_regions(&self.regions, self.arena_len_pages)
            .map_err(|(name, fault)| format!("region {name:?} {fault}"))
    }
}

/// Finds a region that a record must not have.
fn check_regions(
    regions: &[RegionEntry],
    arena_len_pages: u64,
) -> Result<(), (String, &'static str)> {
    let mut names = HashSet::new();
    for region in regions {
        let fault = |fault| Err((region.name.clone(), fault));
        if !(1..=NAME_MAX_BYTES).contains(&region.name.len()) {
            return fault("has a name that is empty or longer than 255 bytes");
        }
        if region.len_pages > region.reserve_pages {
            return fault("is longer than its reserve");
        }
        let end = region.offset_pages.checked_add(region.reserve_pages);
        if end.is_none_or(|end| end > arena_len_pages) {
            return fault("reaches beyond the arena");
        }
        if !names.insert(region.name.as_str()) {
            return fault("is there twice");
        }
        if region.adopted_at == Some(0) {
            return fault("is adopted at address 0");
        }
    }
    Ok(())
}

fn push(section: &mut Vec<u8>, item_type: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let item = Item {
        item_type: item_type.into(),
        len: (len as u32).into(),
    };
    section.extend_from_slice(item.as_bytes());
    for part in parts {
        section.extend_from_slice(part);
    }
    section.resize(section.len().next_multiple_of(8), 0);
}

/// Takes a meta section apart, or says what is wrong with it.
pub(super) fn decode(
    mut section: &[u8],
    arena_len_pages: u64,
) -> Result<(Vec<RegionEntry>, Identity), &'static str> {
    let mut regions = Vec::new();
    let mut adopted = HashMap::new();
    let mut identity = None;
    while !section.is_empty() {
        let (item, rest) =
            Item::read_from_prefix(section).map_err(|_| "its meta section ends within an item")?;
        let len = item.len.get() as usize;
        let padded = len.next_multiple_of(8);
        if padded > rest.len() {
            return Err("its meta section ends within an item");
        }
        let (value, padding) = rest[..padded].split_at(len);
        if padding.iter().any(|&byte| byte != 0) {
            return Err("a pad in its meta section is not zero");
        }
        match item.item_type.get() {
            ITEM_REGION => regions.push(decode_region(value)?),
            ITEM_ADOPTED => {
                let (name, address) = decode_adopted(value)?;
                if adopted.insert(name, address).is_some() {
                    return Err(NOT_ADOPTED);
                }
            }
            ITEM_IDENTITY if identity.is_some() => {
                return Err("it has more than one program identity");
            }
            ITEM_IDENTITY => identity = Some(decode_identity(value)?),
            ITEM_MUST_KNOW.. => return Err("its meta section has an item of unknown type"),
            _ => {}
        }
        section = &rest[padded..];
    }
    for region in &mut regions {
        region.adopted_at = adopted.remove(region.name.as_str());
    }
    if !adopted.is_empty() {
        return Err(NOT_ADOPTED);
    }
    check_regions(&regions, arena_len_pages).map_err(|_| "its region table is not valid")?;
    Ok((regions, identity.ok_or("it has no program identity")?))
}

fn decode_region(value: &[u8]) -> Result<RegionEntry, &'static str> {
    let (fixed, name) =
        RegionItem::read_from_prefix(value).map_err(|_| "a region in it is cut short")?;
    if fixed.name_len.get() as usize != name.len() {
        return Err("a region in it has a name of another length than it says");
    }
    Ok(RegionEntry {
        name: std::str::from_utf8(name)
            .map_err(|_| "a region's name is not UTF-8")?
            .to_owned(),
        kind: fixed.kind.get(),
        offset_pages: fixed.offset_pages.get(),
        len_pages: fixed.len_pages.get(),
        reserve_pages: fixed.reserve_pages.get(),
        adopted_at: None,
    })
}

fn decode_adopted(value: &[u8]) -> Result<(&str, u64), &'static str> {
    let (fixed, name) =
        AdoptedItem::read_from_prefix(value).map_err(|_| "an address in it is cut short")?;
    if fixed.name_len.get() as usize != name.len() || fixed.reserved.get() != 0 {
        return Err("an address in it is of a region with a name of another length than it says");
    }
    let name = std::str::from_utf8(name).map_err(|_| "a region's name is not UTF-8")?;
    Ok((name, fixed.address.get()))
}

fn decode_identity(value: &[u8]) -> Result<Identity, &'static str> {
    let (fixed, rest) =
        IdentityItem::read_from_prefix(value).map_err(|_| "its program identity is cut short")?;
    let build_id_len = fixed.build_id_len.get() as usize;
    let path_len = fixed.path_len.get() as usize;
    if build_id_len > BUILD_ID_MAX_BYTES
        || path_len > PATH_MAX_BYTES
        || build_id_len + path_len != rest.len()
    {
        return Err("its program identity has another length than it says");
    }
    if fixed.flags.get() & !IDENTITY_NO_CODE_POINTERS != 0 || fixed.reserved.get() != 0 {
        return Err("its program identity has unknown flags");
    }
    let (build_id, path) = rest.split_at(build_id_len);
    Ok(Identity {
        build_id: build_id.to_owned(),
        load_address: fixed.load_address.get(),
        objects_digest: fixed.objects_digest,
        path: OsString::from_vec(path.to_owned()).into(),
        no_code_pointers: fixed.flags.get() & IDENTITY_NO_CODE_POINTERS != 0,
    })
}

#[cfg(test)]
mod tests;
