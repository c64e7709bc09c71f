// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The C API, made from `include/ckpt.h` by `make bindings`. Do not edit.
//!
//! That header is where everything is documented.
#![allow(
    missing_docs,
    non_camel_case_types,
    dead_code,
    reason = "names and documentation are the header's"
)]

pub const CKPT_VERSION_MAJOR: u32 = 0;
pub const CKPT_VERSION_MINOR: u32 = 1;
pub const CKPT_VERSION_PATCH: u32 = 0;
pub const CKPT_NO_CODE_POINTERS: u32 = 1;
pub const CKPT_FRESH: u32 = 2;
pub const CKPT_SYNC: u32 = 4;
pub const CKPT_NO_SHARING: u32 = 8;
pub const CKPT_IN_FLIGHT_MAX: u32 = 4;
pub const CKPT_BEFORE_COMMIT: u32 = 1;
pub const CKPT_AFTER_COMMIT: u32 = 2;
pub const CKPT_AFTER_RESTORE: u32 = 3;
pub const CKPT_AFTER_TAKEOVER: u32 = 4;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ckpt {
    _unused: [u8; 0],
}
pub type ckpt_t = ckpt;
pub type ckpt_hook_fn = ::core::option::Option<
    unsafe extern "C" fn(
        ctx: *mut ckpt_t,
        epoch: u64,
        user: *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int,
>;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ckpt_options {
    pub size: usize,
    pub dir: *const ::core::ffi::c_char,
    pub name: *const ::core::ffi::c_char,
    pub arena_bytes: u64,
    pub base: u64,
    pub restore_epoch: u64,
    pub flags: u32,
    pub pack_threads: u32,
    pub after_restore: ckpt_hook_fn,
    pub after_restore_user: *mut ::core::ffi::c_void,
    pub compress: *const ::core::ffi::c_char,
    pub compact: *const ::core::ffi::c_char,
    pub after_takeover: ckpt_hook_fn,
    pub after_takeover_user: *mut ::core::ffi::c_void,
    pub wait_for: *const ::core::ffi::c_char,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_options"][::core::mem::size_of::<ckpt_options>() - 112usize];
    ["Alignment of ckpt_options"][::core::mem::align_of::<ckpt_options>() - 8usize];
    ["Offset of field: ckpt_options::size"][::core::mem::offset_of!(ckpt_options, size) - 0usize];
    ["Offset of field: ckpt_options::dir"][::core::mem::offset_of!(ckpt_options, dir) - 8usize];
    ["Offset of field: ckpt_options::name"][::core::mem::offset_of!(ckpt_options, name) - 16usize];
    ["Offset of field: ckpt_options::arena_bytes"]
        [::core::mem::offset_of!(ckpt_options, arena_bytes) - 24usize];
    ["Offset of field: ckpt_options::base"][::core::mem::offset_of!(ckpt_options, base) - 32usize];
    ["Offset of field: ckpt_options::restore_epoch"]
        [::core::mem::offset_of!(ckpt_options, restore_epoch) - 40usize];
    ["Offset of field: ckpt_options::flags"]
        [::core::mem::offset_of!(ckpt_options, flags) - 48usize];
    ["Offset of field: ckpt_options::pack_threads"]
        [::core::mem::offset_of!(ckpt_options, pack_threads) - 52usize];
    ["Offset of field: ckpt_options::after_restore"]
        [::core::mem::offset_of!(ckpt_options, after_restore) - 56usize];
    ["Offset of field: ckpt_options::after_restore_user"]
        [::core::mem::offset_of!(ckpt_options, after_restore_user) - 64usize];
    ["Offset of field: ckpt_options::compress"]
        [::core::mem::offset_of!(ckpt_options, compress) - 72usize];
    ["Offset of field: ckpt_options::compact"]
        [::core::mem::offset_of!(ckpt_options, compact) - 80usize];
    ["Offset of field: ckpt_options::after_takeover"]
        [::core::mem::offset_of!(ckpt_options, after_takeover) - 88usize];
    ["Offset of field: ckpt_options::after_takeover_user"]
        [::core::mem::offset_of!(ckpt_options, after_takeover_user) - 96usize];
    ["Offset of field: ckpt_options::wait_for"]
        [::core::mem::offset_of!(ckpt_options, wait_for) - 104usize];
};
unsafe extern "C" {
    pub fn ckpt_open(options: *const ckpt_options, ctx: *mut *mut ckpt_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_close(ctx: *mut ckpt_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_region(
        ctx: *mut ckpt_t,
        name: *const ::core::ffi::c_char,
        type_: u32,
        len: usize,
        reserve: usize,
        addr: *mut *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_region_grow(
        ctx: *mut ckpt_t,
        name: *const ::core::ffi::c_char,
        len: usize,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_region_len(ctx: *mut ckpt_t, name: *const ::core::ffi::c_char) -> usize;
}
unsafe extern "C" {
    pub fn ckpt_adopt(
        ctx: *mut ckpt_t,
        name: *const ::core::ffi::c_char,
        type_: u32,
        addr: *mut ::core::ffi::c_void,
        len: usize,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_malloc(ctx: *mut ckpt_t, size: usize) -> *mut ::core::ffi::c_void;
}
unsafe extern "C" {
    pub fn ckpt_calloc(ctx: *mut ckpt_t, count: usize, size: usize) -> *mut ::core::ffi::c_void;
}
unsafe extern "C" {
    pub fn ckpt_realloc(
        ctx: *mut ckpt_t,
        ptr: *mut ::core::ffi::c_void,
        size: usize,
    ) -> *mut ::core::ffi::c_void;
}
unsafe extern "C" {
    pub fn ckpt_aligned_alloc(
        ctx: *mut ckpt_t,
        align: usize,
        size: usize,
    ) -> *mut ::core::ffi::c_void;
}
unsafe extern "C" {
    pub fn ckpt_free(ctx: *mut ckpt_t, ptr: *mut ::core::ffi::c_void);
}
unsafe extern "C" {
    pub fn ckpt_set_root(ctx: *mut ckpt_t, root: *mut ::core::ffi::c_void) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_root(ctx: *mut ckpt_t) -> *mut ::core::ffi::c_void;
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ckpt_commit_info {
    pub size: usize,
    pub epoch: u64,
    pub pages: u64,
    pub stored_bytes: u64,
    pub pause_ns: u64,
    pub total_ns: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_commit_info"][::core::mem::size_of::<ckpt_commit_info>() - 48usize];
    ["Alignment of ckpt_commit_info"][::core::mem::align_of::<ckpt_commit_info>() - 8usize];
    ["Offset of field: ckpt_commit_info::size"]
        [::core::mem::offset_of!(ckpt_commit_info, size) - 0usize];
    ["Offset of field: ckpt_commit_info::epoch"]
        [::core::mem::offset_of!(ckpt_commit_info, epoch) - 8usize];
    ["Offset of field: ckpt_commit_info::pages"]
        [::core::mem::offset_of!(ckpt_commit_info, pages) - 16usize];
    ["Offset of field: ckpt_commit_info::stored_bytes"]
        [::core::mem::offset_of!(ckpt_commit_info, stored_bytes) - 24usize];
    ["Offset of field: ckpt_commit_info::pause_ns"]
        [::core::mem::offset_of!(ckpt_commit_info, pause_ns) - 32usize];
    ["Offset of field: ckpt_commit_info::total_ns"]
        [::core::mem::offset_of!(ckpt_commit_info, total_ns) - 40usize];
};
unsafe extern "C" {
    pub fn ckpt_commit(ctx: *mut ckpt_t, info: *mut ckpt_commit_info) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_commit_sync(ctx: *mut ckpt_t, info: *mut ckpt_commit_info) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_wait(
        ctx: *mut ckpt_t,
        epoch: u64,
        timeout_ms: ::core::ffi::c_int,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_enter(ctx: *mut ckpt_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_leave(ctx: *mut ckpt_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_rollback(ctx: *mut ckpt_t, epoch: u64) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_alive(ctx: *mut ckpt_t) -> ::core::ffi::c_int;
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ckpt_outputs {
    _unused: [u8; 0],
}
pub type ckpt_outputs_t = ckpt_outputs;
unsafe extern "C" {
    pub fn ckpt_output_open(
        ctx: *mut ckpt_t,
        limit: usize,
        outputs: *mut *mut ckpt_outputs_t,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_output_hold(
        outputs: *mut ckpt_outputs_t,
        epoch: u64,
        output: *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_output_next(
        outputs: *mut ckpt_outputs_t,
        timeout_ms: ::core::ffi::c_int,
        output: *mut *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_output_fd(outputs: *mut ckpt_outputs_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_output_close(outputs: *mut ckpt_outputs_t) -> ::core::ffi::c_int;
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ckpt_commit_stats {
    pub size: usize,
    pub commits: u64,
    pub saved: u64,
    pub given_up: u64,
    pub fallbacks: u64,
    pub in_flight: u64,
    pub queue_waits: u64,
    pub queue_wait_ns: u64,
    pub pause_ns: u64,
    pub pause_ns_max: u64,
    pub pause_ns_last: u64,
    pub durable_ns: u64,
    pub durable_ns_max: u64,
    pub durable_ns_last: u64,
    pub pages: u64,
    pub stored_bytes: u64,
    pub copied_pages: u64,
    pub writer_waits: u64,
    pub unchanged_pages: u64,
    pub shared_pages: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_commit_stats"][::core::mem::size_of::<ckpt_commit_stats>() - 160usize];
    ["Alignment of ckpt_commit_stats"][::core::mem::align_of::<ckpt_commit_stats>() - 8usize];
    ["Offset of field: ckpt_commit_stats::size"]
        [::core::mem::offset_of!(ckpt_commit_stats, size) - 0usize];
    ["Offset of field: ckpt_commit_stats::commits"]
        [::core::mem::offset_of!(ckpt_commit_stats, commits) - 8usize];
    ["Offset of field: ckpt_commit_stats::saved"]
        [::core::mem::offset_of!(ckpt_commit_stats, saved) - 16usize];
    ["Offset of field: ckpt_commit_stats::given_up"]
        [::core::mem::offset_of!(ckpt_commit_stats, given_up) - 24usize];
    ["Offset of field: ckpt_commit_stats::fallbacks"]
        [::core::mem::offset_of!(ckpt_commit_stats, fallbacks) - 32usize];
    ["Offset of field: ckpt_commit_stats::in_flight"]
        [::core::mem::offset_of!(ckpt_commit_stats, in_flight) - 40usize];
    ["Offset of field: ckpt_commit_stats::queue_waits"]
        [::core::mem::offset_of!(ckpt_commit_stats, queue_waits) - 48usize];
    ["Offset of field: ckpt_commit_stats::queue_wait_ns"]
        [::core::mem::offset_of!(ckpt_commit_stats, queue_wait_ns) - 56usize];
    ["Offset of field: ckpt_commit_stats::pause_ns"]
        [::core::mem::offset_of!(ckpt_commit_stats, pause_ns) - 64usize];
    ["Offset of field: ckpt_commit_stats::pause_ns_max"]
        [::core::mem::offset_of!(ckpt_commit_stats, pause_ns_max) - 72usize];
    ["Offset of field: ckpt_commit_stats::pause_ns_last"]
        [::core::mem::offset_of!(ckpt_commit_stats, pause_ns_last) - 80usize];
    ["Offset of field: ckpt_commit_stats::durable_ns"]
        [::core::mem::offset_of!(ckpt_commit_stats, durable_ns) - 88usize];
    ["Offset of field: ckpt_commit_stats::durable_ns_max"]
        [::core::mem::offset_of!(ckpt_commit_stats, durable_ns_max) - 96usize];
    ["Offset of field: ckpt_commit_stats::durable_ns_last"]
        [::core::mem::offset_of!(ckpt_commit_stats, durable_ns_last) - 104usize];
    ["Offset of field: ckpt_commit_stats::pages"]
        [::core::mem::offset_of!(ckpt_commit_stats, pages) - 112usize];
    ["Offset of field: ckpt_commit_stats::stored_bytes"]
        [::core::mem::offset_of!(ckpt_commit_stats, stored_bytes) - 120usize];
    ["Offset of field: ckpt_commit_stats::copied_pages"]
        [::core::mem::offset_of!(ckpt_commit_stats, copied_pages) - 128usize];
    ["Offset of field: ckpt_commit_stats::writer_waits"]
        [::core::mem::offset_of!(ckpt_commit_stats, writer_waits) - 136usize];
    ["Offset of field: ckpt_commit_stats::unchanged_pages"]
        [::core::mem::offset_of!(ckpt_commit_stats, unchanged_pages) - 144usize];
    ["Offset of field: ckpt_commit_stats::shared_pages"]
        [::core::mem::offset_of!(ckpt_commit_stats, shared_pages) - 152usize];
};
unsafe extern "C" {
    pub fn ckpt_stats(ctx: *mut ckpt_t, stats: *mut ckpt_commit_stats) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_is_restored(ctx: *mut ckpt_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_restored_epoch(ctx: *mut ckpt_t) -> u64;
}
unsafe extern "C" {
    pub fn ckpt_epoch(ctx: *mut ckpt_t) -> u64;
}
unsafe extern "C" {
    pub fn ckpt_durable(ctx: *mut ckpt_t) -> u64;
}
unsafe extern "C" {
    pub fn ckpt_safe(ctx: *mut ckpt_t) -> u64;
}
unsafe extern "C" {
    pub fn ckpt_takeover_term(ctx: *mut ckpt_t) -> u64;
}
unsafe extern "C" {
    pub fn ckpt_pending(ctx: *mut ckpt_t) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_pending_word(ctx: *mut ckpt_t) -> *const u32;
}
unsafe extern "C" {
    pub fn ckpt_generation(ctx: *mut ckpt_t, generation: *mut u8) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_hook(
        ctx: *mut ckpt_t,
        when: ::core::ffi::c_int,
        hook: ckpt_hook_fn,
        user: *mut ::core::ffi::c_void,
    ) -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_tracker(ctx: *mut ckpt_t) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn ckpt_error() -> ::core::ffi::c_int;
}
unsafe extern "C" {
    pub fn ckpt_errmsg(ctx: *mut ckpt_t) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn ckpt_strerror(error: ::core::ffi::c_int) -> *const ::core::ffi::c_char;
}
unsafe extern "C" {
    pub fn ckpt_version() -> *const ::core::ffi::c_char;
}
