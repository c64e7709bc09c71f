// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hash table in the arena. Its pointers stay good: a restored arena is at the same address.

use std::ptr::NonNull;
use std::ptr::null_mut;
use std::slice;

use ckptctl::Context;
use ckptctl::Error;

/// Buckets of a new table.
const BUCKETS: usize = 1024;

/// What the arena's root points to. A program that is changed so that this means something else
/// changes the number as well, and can tell.
const LAYOUT: u64 = 1;

#[repr(C)]
struct Table {
    layout: u64,
    len: usize,
    bucket_count: usize,
    buckets: *mut *mut Entry,
}

/// A key and its value, which stand behind it.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    hash: u64,
    key_len: usize,
    value_len: usize,
}

impl Entry {
    /// Key and value.
    ///
    /// # Safety
    ///
    /// It is an entry that [`Map::entry`] has made, which stays as it is while they are used.
    unsafe fn strings<'a>(this: *const Entry) -> (&'a [u8], &'a [u8]) {
        // SAFETY: So many bytes were allocated behind it, and filled.
        let (entry, bytes) = unsafe {
            let len = (*this).key_len + (*this).value_len;
            (&*this, slice::from_raw_parts(this.add(1).cast(), len))
        };
        bytes.split_at(entry.key_len)
    }
}

/// The table.
///
/// # Invariants
///
/// `table` is what this module has made, in this life of the program or an earlier one, and the
/// buckets and entries in it are blocks of the context's heap. Only this map changes them.
pub struct Map {
    context: Context,
    table: NonNull<Table>,
}

/// FNV-1a. The same in each life, as the standard library's is not.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

impl Map {
    /// The map that is the context's root, or a new one.
    pub fn open(context: &Context) -> Result<Map, Error> {
        let table = match context.root()? {
            Some(root) => root.cast(),
            None => Map::make(context)?,
        };
        // SAFETY: Only this program has set the root of this chain, to a table, and the layout
        // comes first in all of them.
        let layout = unsafe { table.cast::<u64>().read() };
        if layout != LAYOUT {
            return Err(Error::Invalid(format!(
                "the chain's table has layout {layout}, this program knows {LAYOUT}: run the kv that wrote it"
            )));
        }
        Ok(Map {
            context: context.clone(),
            table,
        })
    }

    fn make(context: &Context) -> Result<NonNull<Table>, Error> {
        let buckets = new_buckets(context, BUCKETS)?;
        let table = context.allocate(size_of::<Table>(), align_of::<Table>())?;
        // SAFETY: The block is new, and large and aligned enough.
        unsafe {
            table.cast::<Table>().write(Table {
                layout: LAYOUT,
                len: 0,
                bucket_count: BUCKETS,
                buckets,
            });
        }
        context.set_root(Some(table))?;
        Ok(table.cast())
    }

    fn table(&self) -> &Table {
        // SAFETY: By the invariant.
        unsafe { self.table.as_ref() }
    }

    /// Keys in it.
    pub fn len(&self) -> usize {
        self.table().len
    }

    /// Where the pointer to the entry with this key is, or would be.
    fn find(&self, key: &[u8]) -> *mut *mut Entry {
        let hash = hash(key);
        let table = self.table();
        let at = hash as usize % table.bucket_count;
        let mut link = table.buckets.wrapping_add(at);
        // SAFETY: By the invariant; a list ends with null.
        unsafe {
            while !(*link).is_null() {
                let entry = *link;
                if (*entry).hash == hash && Entry::strings(entry).0 == key {
                    break;
                }
                link = &raw mut (*entry).next;
            }
        }
        link
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        // SAFETY: By the invariant; nobody changes the map while the value is borrowed.
        unsafe {
            let entry = *self.find(key);
            (!entry.is_null()).then(|| Entry::strings(entry).1)
        }
    }

    /// Gives a key a value. For want of memory nothing is changed.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let new = self.entry(key, value)?;
        let link = self.find(key);
        // SAFETY: By the invariant, and the new entry is only ours.
        let replaced = unsafe {
            let old = *link;
            (*new).next = old.as_ref().map_or(null_mut(), |old| old.next);
            *link = new;
            self.discard(old)?
        };
        if replaced {
            return Ok(());
        }
        // SAFETY: By the invariant.
        unsafe { self.table.as_mut() }.len += 1;
        self.grow()
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, Error> {
        let link = self.find(key);
        // SAFETY: By the invariant.
        unsafe {
            let entry = *link;
            if entry.is_null() {
                return Ok(false);
            }
            *link = (*entry).next;
            self.table.as_mut().len -= 1;
            self.discard(entry)
        }
    }

    /// Frees an entry that is in no list any more; false if there is none.
    fn discard(&self, entry: *mut Entry) -> Result<bool, Error> {
        match NonNull::new(entry) {
            None => Ok(false),
            Some(entry) => self.context.free(entry.cast()).map(|()| true),
        }
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let table = self.table();
        let buckets = (0..table.bucket_count).map(|at| table.buckets.wrapping_add(at));
        // SAFETY: By the invariant; nobody changes the map while this iterator borrows it.
        let follow = |link: *mut *mut Entry| NonNull::new(unsafe { *link });
        let list = move |bucket| {
            std::iter::successors(follow(bucket), move |last| {
                // SAFETY: As above.
                follow(unsafe { &raw mut (*last.as_ptr()).next })
            })
        };
        buckets
            .flat_map(list)
            // SAFETY: As above.
            .map(|entry| unsafe { Entry::strings(entry.as_ptr()) })
    }

    /// A new entry, in no list yet.
    fn entry(&self, key: &[u8], value: &[u8]) -> Result<*mut Entry, Error> {
        let size = size_of::<Entry>() + key.len() + value.len();
        let entry: NonNull<Entry> = self.context.allocate(size, align_of::<Entry>())?.cast();
        // SAFETY: The block is new, aligned, and so large.
        unsafe {
            entry.write(Entry {
                next: null_mut(),
                hash: hash(key),
                key_len: key.len(),
                value_len: value.len(),
            });
            let bytes: NonNull<u8> = entry.add(1).cast();
            bytes.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            let behind = bytes.add(key.len());
            behind.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
        }
        Ok(entry.as_ptr())
    }

    /// Doubles the buckets when there are more keys. Without memory for that, it goes on with
    /// those that there are.
    fn grow(&mut self) -> Result<(), Error> {
        // SAFETY: By the invariant.
        let table = unsafe { self.table.as_mut() };
        if table.len <= table.bucket_count {
            return Ok(());
        }
        let count = table.bucket_count * 2;
        let Ok(buckets) = new_buckets(&self.context, count) else {
            return Ok(());
        };
        let old = NonNull::new(table.buckets);
        for at in 0..table.bucket_count {
            // SAFETY: By the invariant; each entry moves from one list to another.
            unsafe {
                let mut entry = *table.buckets.add(at);
                while let Some(moving) = entry.as_mut() {
                    entry = moving.next;
                    let to = buckets.add(moving.hash as usize % count);
                    moving.next = *to;
                    *to = moving;
                }
            }
        }
        table.buckets = buckets;
        table.bucket_count = count;
        match old {
            Some(old) => self.context.free(old.cast()),
            None => Ok(()),
        }
    }
}

/// Buckets with nothing in them.
fn new_buckets(context: &Context, count: usize) -> Result<*mut *mut Entry, Error> {
    let size = count * size_of::<*mut Entry>();
    let buckets: NonNull<*mut Entry> = context.allocate(size, align_of::<*mut Entry>())?.cast();
    // SAFETY: The block is new and so large; null is all zeros.
    unsafe { buckets.write_bytes(0, count) };
    Ok(buckets.as_ptr())
}
