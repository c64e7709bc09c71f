// SPDX-License-Identifier: GPL-2.0-only
//! What `shim.c` wraps, and what the kernel exports but its Rust bindings leave out.

use kernel::bindings;
use kernel::prelude::*;

#[expect(
    improper_ctypes,
    reason = "the kernel's own types are opaque here; some of them are empty in this configuration"
)]
extern "C" {
    // barrier.rs
    pub(super) fn ckpt_rwsem_init(sem: *mut bindings::rw_semaphore);

    // folio.rs
    pub(super) fn ckpt_folio_alloc() -> *mut bindings::folio;
    pub(super) fn ckpt_folio_set_index(folio: *mut bindings::folio, index: c_ulong);
    pub(super) fn ckpt_folio_set_mapping(
        folio: *mut bindings::folio,
        mapping: *mut bindings::address_space,
    );
    pub(super) fn ckpt_folio_page(folio: *mut bindings::folio) -> *mut bindings::page;
    pub(super) fn ckpt_folio_lock(folio: *mut bindings::folio);
    pub(super) fn ckpt_folio_put(folio: *mut bindings::folio);
    pub(super) fn ckpt_folio_maybe_dma_pinned(folio: *mut bindings::folio) -> bool;
    pub(super) fn ckpt_cond_resched();

    // mapping.rs
    pub(super) fn ckpt_file_inode(file: *mut bindings::file) -> *mut bindings::inode;
    pub(super) fn ckpt_folio_index(folio: *mut bindings::folio) -> c_ulong;
    pub(super) fn ckpt_inode_set_size(inode: *mut bindings::inode, size: i64);
    pub(super) fn ckpt_inode_size(inode: *mut bindings::inode) -> i64;

    #[cfg(not(CONFIG_MAPPING_DIRTY_HELPERS))]
    pub(super) fn ckpt_folio_pfn(folio: *mut bindings::folio) -> c_ulong;
    #[cfg(not(CONFIG_MAPPING_DIRTY_HELPERS))]
    pub(super) fn mapping_wrprotect_range(
        mapping: *mut bindings::address_space,
        pgoff: c_ulong,
        pfn: c_ulong,
        pages: c_ulong,
    ) -> c_int;

    // owner.rs
    pub(super) fn ckpt_current_user_get() -> *mut bindings::user_struct;
    pub(super) fn ckpt_locked_vm_read(user: *mut bindings::user_struct) -> c_long;
    pub(super) fn ckpt_locked_vm_try_cmpxchg(
        user: *mut bindings::user_struct,
        old: *mut c_long,
        new: c_long,
    ) -> bool;
    pub(super) fn ckpt_locked_vm_sub(user: *mut bindings::user_struct, pages: c_long);
    pub(super) fn ckpt_rlimit_memlock() -> c_ulong;
    pub(super) fn ckpt_current_tgid_get() -> *mut bindings::pid;
    pub(super) fn ckpt_pid_has_process(pid: *mut bindings::pid) -> bool;
    pub(super) fn ckpt_current_cred_get() -> *const bindings::cred;
    pub(super) fn ckpt_cred_ns_capable(cred: *const bindings::cred, cap: c_int) -> bool;

    // file.rs
    pub(super) fn anon_inode_create_getfile(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
        flags: c_int,
        context: *const bindings::inode,
    ) -> *mut bindings::file;
    pub(super) fn ckpt_file_allow_positions(file: *mut bindings::file);
    pub(super) fn ckpt_file_writable(file: *const bindings::file) -> bool;
}
