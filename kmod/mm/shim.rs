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
    pub(super) fn ckpt_rwsem_init(
        sem: *mut bindings::rw_semaphore,
        name: *const c_char,
        class: *mut bindings::lock_class_key,
    );

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

    pub(super) fn ckpt_folio_pfn(folio: *mut bindings::folio) -> c_ulong;
    pub(super) fn mapping_wrprotect_range(
        mapping: *mut bindings::address_space,
        pgoff: c_ulong,
        pfn: c_ulong,
        pages: c_ulong,
    ) -> c_int;

    // table.rs
    pub(super) fn ckpt_table_lock(
        mm: *mut bindings::mm_struct,
        addr: c_ulong,
        lock: *mut *mut bindings::spinlock_t,
    ) -> *mut bindings::pte_t;
    pub(super) fn ckpt_table_unlock(lock: *mut bindings::spinlock_t);
    pub(super) fn ckpt_ptes_dirty(pte: *mut bindings::pte_t, of: u64) -> u64;
    pub(super) fn ckpt_ptes_clean(
        vma: *mut bindings::vm_area_struct,
        addr: c_ulong,
        pte: *mut bindings::pte_t,
        of: u64,
    ) -> u64;
    pub(super) fn ckpt_ptes_arm(
        vma: *mut bindings::vm_area_struct,
        addr: c_ulong,
        pte: *mut bindings::pte_t,
        of: u64,
        changed: *mut bool,
    ) -> u64;
    pub(super) fn ckpt_ptes_open(
        vma: *mut bindings::vm_area_struct,
        addr: c_ulong,
        pte: *mut bindings::pte_t,
        of: u64,
    ) -> u64;

    // direct.rs
    pub(super) fn ckpt_current_mm() -> *mut bindings::mm_struct;
    pub(super) fn ckpt_mmap_read_lock_killable(mm: *mut bindings::mm_struct) -> c_int;
    pub(super) fn ckpt_mmap_read_unlock(mm: *mut bindings::mm_struct);
    pub(super) fn ckpt_mm_has_notifiers(mm: *mut bindings::mm_struct) -> bool;
    pub(super) fn ckpt_mm_has_pinned(mm: *mut bindings::mm_struct) -> bool;
    pub(super) fn ckpt_tlb_flush_pending_inc(mm: *mut bindings::mm_struct);
    pub(super) fn ckpt_tlb_flush_pending_dec(mm: *mut bindings::mm_struct);
    #[cfg(CONFIG_X86_64)]
    pub(super) fn ckpt_tlb_generation(mm: *mut bindings::mm_struct) -> u64;

    // fault.rs
    pub(super) fn ckpt_release_fault_lock(vmf: *mut bindings::vm_fault);
    pub(super) fn ckpt_get_file(file: *mut bindings::file) -> *mut bindings::file;

    // copies.rs
    pub(super) fn ckpt_folio_alloc_copy() -> *mut bindings::folio;
    pub(super) fn ckpt_folio_copy(to: *mut bindings::folio, from: *mut bindings::folio);
    pub(super) fn ckpt_folio_to_user(to: *mut c_void, from: *mut bindings::folio) -> c_ulong;
    pub(super) fn ckpt_folio_get(folio: *mut bindings::folio);

    // control.rs
    pub(super) fn ckpt_control_page_alloc() -> *mut c_void;
    pub(super) fn ckpt_control_page_free(page: *mut c_void);
    pub(super) fn ckpt_control_page_get(page: *mut c_void) -> *mut bindings::page;

    // wait.rs
    pub(super) fn ckpt_wait_queue_init(queue: *mut bindings::wait_queue_head);
    pub(super) fn ckpt_wait_interruptible(
        queue: *mut bindings::wait_queue_head,
        done: unsafe extern "C" fn(*mut c_void) -> bool,
        data: *mut c_void,
    ) -> c_int;
    pub(super) fn ckpt_wait_killable(
        queue: *mut bindings::wait_queue_head,
        done: unsafe extern "C" fn(*mut c_void) -> bool,
        data: *mut c_void,
    ) -> c_int;
    pub(super) fn ckpt_wait_timeout(
        queue: *mut bindings::wait_queue_head,
        done: unsafe extern "C" fn(*mut c_void) -> bool,
        data: *mut c_void,
        ns: u64,
    ) -> c_int;
    pub(super) fn ckpt_has_sleeper(queue: *mut bindings::wait_queue_head) -> bool;
    pub(super) fn ckpt_wake_all(queue: *mut bindings::wait_queue_head);
    pub(super) fn ckpt_current() -> *mut c_void;

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
    pub(super) fn ckpt_current_cred_get() -> *const bindings::cred;
    pub(super) fn ckpt_cred_ns_capable(cred: *const bindings::cred, cap: c_int) -> bool;

    // program.rs
    pub(super) fn ckpt_current_tgid_get() -> *mut bindings::pid;
    pub(super) fn ckpt_pid_has_process(pid: *mut bindings::pid) -> bool;

    // file.rs
    pub(super) fn anon_inode_create_getfile(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
        flags: c_int,
        context: *const bindings::inode,
    ) -> *mut bindings::file;
    pub(super) fn anon_inode_getfile(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
        flags: c_int,
    ) -> *mut bindings::file;
    pub(super) fn ckpt_file_allow_positions(file: *mut bindings::file);
    pub(super) fn ckpt_file_writable(file: *const bindings::file) -> bool;
}
