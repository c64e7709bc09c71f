// SPDX-License-Identifier: GPL-2.0-only
//! The kernel ABI, made from `include/uapi/ckpt.h` by `make bindings`. Do not edit.
//!
//! That header is where every structure, field, command and error is documented.
//! C strings in structures are bytes here.
#![allow(
    missing_docs,
    non_camel_case_types,
    dead_code,
    reason = "names and documentation are the header's"
)]

pub const CKPT_DEVICE_PATH: &::core::ffi::CStr = c"/dev/ckpt";
pub const CKPT_IOC_MAGIC: u32 = 197;
pub const CKPT_ABI_VERSION: u32 = 4;
pub const CKPT_NAME_MAX: u32 = 64;
pub const CKPT_ARENA_MAX_BYTES: u64 = 17592186044416;
pub const CKPT_TRACKER_ARMED: u32 = 1;
pub const CKPT_TRACKER_ADAPTIVE: u32 = 2;
pub const CKPT_CREATE_PRIVATE: u32 = 1;
pub const CKPT_OPEN_RDONLY: u32 = 1;
pub const CKPT_INFO_PRIVATE: u32 = 1;
pub const CKPT_INFO_KEPT: u32 = 2;
pub const CKPT_COMMIT_SNAPSHOT: u32 = 1;
pub const CKPT_COMMIT_QUIET: u32 = 2;
pub const CKPT_SNAPSHOTS_MAX: u32 = 64;
pub const CKPT_CONTROL_OFFSET: u64 = 1152921504606846976;
pub const CKPT_LEVEL_COMMITTED: u32 = 0;
pub const CKPT_LEVEL_DURABLE: u32 = 1;
pub const CKPT_LEVEL_REPLICATED: u32 = 2;
pub const CKPT_WAIT_FOREVER: u64 = 9223372036854775807;
pub const CKPT_GATHER_THAW: u32 = 1;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_version {
    pub size: u32,
    pub abi_version: u32,
    pub trackers: u32,
    pub page_shift: u32,
    pub arena_max_bytes: u64,
    pub release: [u8; 32],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_version"][::core::mem::size_of::<ckpt_version>() - 56];
    ["Alignment of ckpt_version"][::core::mem::align_of::<ckpt_version>() - 8];
    ["Offset of field: ckpt_version::size"][::core::mem::offset_of!(ckpt_version, size) - 0];
    ["Offset of field: ckpt_version::abi_version"]
        [::core::mem::offset_of!(ckpt_version, abi_version) - 4];
    ["Offset of field: ckpt_version::trackers"]
        [::core::mem::offset_of!(ckpt_version, trackers) - 8];
    ["Offset of field: ckpt_version::page_shift"]
        [::core::mem::offset_of!(ckpt_version, page_shift) - 12];
    ["Offset of field: ckpt_version::arena_max_bytes"]
        [::core::mem::offset_of!(ckpt_version, arena_max_bytes) - 16];
    ["Offset of field: ckpt_version::release"][::core::mem::offset_of!(ckpt_version, release) - 24];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_create {
    pub size: u32,
    pub flags: u32,
    pub len_bytes: u64,
    pub epoch: u64,
    pub name: [u8; 64],
    pub id: u64,
    pub fd: i32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_create"][::core::mem::size_of::<ckpt_create>() - 104];
    ["Alignment of ckpt_create"][::core::mem::align_of::<ckpt_create>() - 8];
    ["Offset of field: ckpt_create::size"][::core::mem::offset_of!(ckpt_create, size) - 0];
    ["Offset of field: ckpt_create::flags"][::core::mem::offset_of!(ckpt_create, flags) - 4];
    ["Offset of field: ckpt_create::len_bytes"]
        [::core::mem::offset_of!(ckpt_create, len_bytes) - 8];
    ["Offset of field: ckpt_create::epoch"][::core::mem::offset_of!(ckpt_create, epoch) - 16];
    ["Offset of field: ckpt_create::name"][::core::mem::offset_of!(ckpt_create, name) - 24];
    ["Offset of field: ckpt_create::id"][::core::mem::offset_of!(ckpt_create, id) - 88];
    ["Offset of field: ckpt_create::fd"][::core::mem::offset_of!(ckpt_create, fd) - 96];
    ["Offset of field: ckpt_create::reserved"]
        [::core::mem::offset_of!(ckpt_create, reserved) - 100];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_open {
    pub size: u32,
    pub flags: u32,
    pub id: u64,
    pub fd: i32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_open"][::core::mem::size_of::<ckpt_open>() - 24];
    ["Alignment of ckpt_open"][::core::mem::align_of::<ckpt_open>() - 8];
    ["Offset of field: ckpt_open::size"][::core::mem::offset_of!(ckpt_open, size) - 0];
    ["Offset of field: ckpt_open::flags"][::core::mem::offset_of!(ckpt_open, flags) - 4];
    ["Offset of field: ckpt_open::id"][::core::mem::offset_of!(ckpt_open, id) - 8];
    ["Offset of field: ckpt_open::fd"][::core::mem::offset_of!(ckpt_open, fd) - 16];
    ["Offset of field: ckpt_open::reserved"][::core::mem::offset_of!(ckpt_open, reserved) - 20];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_list {
    pub size: u32,
    pub flags: u32,
    pub start_id: u64,
    pub entries: u64,
    pub entry_size: u32,
    pub capacity: u32,
    pub count: u32,
    pub more: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_list"][::core::mem::size_of::<ckpt_list>() - 40];
    ["Alignment of ckpt_list"][::core::mem::align_of::<ckpt_list>() - 8];
    ["Offset of field: ckpt_list::size"][::core::mem::offset_of!(ckpt_list, size) - 0];
    ["Offset of field: ckpt_list::flags"][::core::mem::offset_of!(ckpt_list, flags) - 4];
    ["Offset of field: ckpt_list::start_id"][::core::mem::offset_of!(ckpt_list, start_id) - 8];
    ["Offset of field: ckpt_list::entries"][::core::mem::offset_of!(ckpt_list, entries) - 16];
    ["Offset of field: ckpt_list::entry_size"][::core::mem::offset_of!(ckpt_list, entry_size) - 24];
    ["Offset of field: ckpt_list::capacity"][::core::mem::offset_of!(ckpt_list, capacity) - 28];
    ["Offset of field: ckpt_list::count"][::core::mem::offset_of!(ckpt_list, count) - 32];
    ["Offset of field: ckpt_list::more"][::core::mem::offset_of!(ckpt_list, more) - 36];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_info {
    pub size: u32,
    pub flags: u32,
    pub id: u64,
    pub len_bytes: u64,
    pub epoch: u64,
    pub resident_pages: u64,
    pub changed_pages: u64,
    pub created_ns: u64,
    pub committed_ns: u64,
    pub uid: u32,
    pub pid: i32,
    pub tracker: u32,
    pub page_shift: u32,
    pub name: [u8; 64],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_info"][::core::mem::size_of::<ckpt_info>() - 144];
    ["Alignment of ckpt_info"][::core::mem::align_of::<ckpt_info>() - 8];
    ["Offset of field: ckpt_info::size"][::core::mem::offset_of!(ckpt_info, size) - 0];
    ["Offset of field: ckpt_info::flags"][::core::mem::offset_of!(ckpt_info, flags) - 4];
    ["Offset of field: ckpt_info::id"][::core::mem::offset_of!(ckpt_info, id) - 8];
    ["Offset of field: ckpt_info::len_bytes"][::core::mem::offset_of!(ckpt_info, len_bytes) - 16];
    ["Offset of field: ckpt_info::epoch"][::core::mem::offset_of!(ckpt_info, epoch) - 24];
    ["Offset of field: ckpt_info::resident_pages"]
        [::core::mem::offset_of!(ckpt_info, resident_pages) - 32];
    ["Offset of field: ckpt_info::changed_pages"]
        [::core::mem::offset_of!(ckpt_info, changed_pages) - 40];
    ["Offset of field: ckpt_info::created_ns"][::core::mem::offset_of!(ckpt_info, created_ns) - 48];
    ["Offset of field: ckpt_info::committed_ns"]
        [::core::mem::offset_of!(ckpt_info, committed_ns) - 56];
    ["Offset of field: ckpt_info::uid"][::core::mem::offset_of!(ckpt_info, uid) - 64];
    ["Offset of field: ckpt_info::pid"][::core::mem::offset_of!(ckpt_info, pid) - 68];
    ["Offset of field: ckpt_info::tracker"][::core::mem::offset_of!(ckpt_info, tracker) - 72];
    ["Offset of field: ckpt_info::page_shift"][::core::mem::offset_of!(ckpt_info, page_shift) - 76];
    ["Offset of field: ckpt_info::name"][::core::mem::offset_of!(ckpt_info, name) - 80];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_reserve {
    pub size: u32,
    pub flags: u32,
    pub pages: u64,
    pub charged: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_reserve"][::core::mem::size_of::<ckpt_reserve>() - 24];
    ["Alignment of ckpt_reserve"][::core::mem::align_of::<ckpt_reserve>() - 8];
    ["Offset of field: ckpt_reserve::size"][::core::mem::offset_of!(ckpt_reserve, size) - 0];
    ["Offset of field: ckpt_reserve::flags"][::core::mem::offset_of!(ckpt_reserve, flags) - 4];
    ["Offset of field: ckpt_reserve::pages"][::core::mem::offset_of!(ckpt_reserve, pages) - 8];
    ["Offset of field: ckpt_reserve::charged"][::core::mem::offset_of!(ckpt_reserve, charged) - 16];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_commit {
    pub size: u32,
    pub flags: u32,
    pub epoch: u64,
    pub changed_pages: u64,
    pub duration_ns: u64,
    pub since: u64,
    pub reserve_pages: u64,
    pub snapshot_pages: u64,
    pub snapshot_fd: i32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_commit"][::core::mem::size_of::<ckpt_commit>() - 64];
    ["Alignment of ckpt_commit"][::core::mem::align_of::<ckpt_commit>() - 8];
    ["Offset of field: ckpt_commit::size"][::core::mem::offset_of!(ckpt_commit, size) - 0];
    ["Offset of field: ckpt_commit::flags"][::core::mem::offset_of!(ckpt_commit, flags) - 4];
    ["Offset of field: ckpt_commit::epoch"][::core::mem::offset_of!(ckpt_commit, epoch) - 8];
    ["Offset of field: ckpt_commit::changed_pages"]
        [::core::mem::offset_of!(ckpt_commit, changed_pages) - 16];
    ["Offset of field: ckpt_commit::duration_ns"]
        [::core::mem::offset_of!(ckpt_commit, duration_ns) - 24];
    ["Offset of field: ckpt_commit::since"][::core::mem::offset_of!(ckpt_commit, since) - 32];
    ["Offset of field: ckpt_commit::reserve_pages"]
        [::core::mem::offset_of!(ckpt_commit, reserve_pages) - 40];
    ["Offset of field: ckpt_commit::snapshot_pages"]
        [::core::mem::offset_of!(ckpt_commit, snapshot_pages) - 48];
    ["Offset of field: ckpt_commit::snapshot_fd"]
        [::core::mem::offset_of!(ckpt_commit, snapshot_fd) - 56];
    ["Offset of field: ckpt_commit::reserved"][::core::mem::offset_of!(ckpt_commit, reserved) - 60];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_range {
    pub pgoff: u64,
    pub pages: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_range"][::core::mem::size_of::<ckpt_range>() - 16];
    ["Alignment of ckpt_range"][::core::mem::align_of::<ckpt_range>() - 8];
    ["Offset of field: ckpt_range::pgoff"][::core::mem::offset_of!(ckpt_range, pgoff) - 0];
    ["Offset of field: ckpt_range::pages"][::core::mem::offset_of!(ckpt_range, pages) - 8];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_delta {
    pub size: u32,
    pub flags: u32,
    pub since: u64,
    pub epoch: u64,
    pub start_pgoff: u64,
    pub ranges: u64,
    pub capacity: u32,
    pub count: u32,
    pub pages: u64,
    pub more: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_delta"][::core::mem::size_of::<ckpt_delta>() - 64];
    ["Alignment of ckpt_delta"][::core::mem::align_of::<ckpt_delta>() - 8];
    ["Offset of field: ckpt_delta::size"][::core::mem::offset_of!(ckpt_delta, size) - 0];
    ["Offset of field: ckpt_delta::flags"][::core::mem::offset_of!(ckpt_delta, flags) - 4];
    ["Offset of field: ckpt_delta::since"][::core::mem::offset_of!(ckpt_delta, since) - 8];
    ["Offset of field: ckpt_delta::epoch"][::core::mem::offset_of!(ckpt_delta, epoch) - 16];
    ["Offset of field: ckpt_delta::start_pgoff"]
        [::core::mem::offset_of!(ckpt_delta, start_pgoff) - 24];
    ["Offset of field: ckpt_delta::ranges"][::core::mem::offset_of!(ckpt_delta, ranges) - 32];
    ["Offset of field: ckpt_delta::capacity"][::core::mem::offset_of!(ckpt_delta, capacity) - 40];
    ["Offset of field: ckpt_delta::count"][::core::mem::offset_of!(ckpt_delta, count) - 44];
    ["Offset of field: ckpt_delta::pages"][::core::mem::offset_of!(ckpt_delta, pages) - 48];
    ["Offset of field: ckpt_delta::more"][::core::mem::offset_of!(ckpt_delta, more) - 56];
    ["Offset of field: ckpt_delta::reserved"][::core::mem::offset_of!(ckpt_delta, reserved) - 60];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_stats {
    pub size: u32,
    pub flags: u32,
    pub resident_pages: u64,
    pub charged_pages: u64,
    pub bytes_held: u64,
    pub read_faults: u64,
    pub write_faults: u64,
    pub late_notes: u64,
    pub commits: u64,
    pub committed_pages: u64,
    pub rearmed_spans: u64,
    pub rearmed_pages: u64,
    pub commit_ns: u64,
    pub commit_ns_max: u64,
    pub commit_ns_last: u64,
    pub deltas: u64,
    pub open_pages: u64,
    pub open_chunks: u64,
    pub chunks: u64,
    pub chunk_openings: u64,
    pub kept_pages: u64,
    pub closed_pages: u64,
    pub direct_harvests: u64,
    pub harvested_ptes: u64,
    pub flushes: u64,
    pub snapshots: u64,
    pub snapshots_made: u64,
    pub frozen_pages: u64,
    pub copied_pages: u64,
    pub copy_waits: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_stats"][::core::mem::size_of::<ckpt_stats>() - 232];
    ["Alignment of ckpt_stats"][::core::mem::align_of::<ckpt_stats>() - 8];
    ["Offset of field: ckpt_stats::size"][::core::mem::offset_of!(ckpt_stats, size) - 0];
    ["Offset of field: ckpt_stats::flags"][::core::mem::offset_of!(ckpt_stats, flags) - 4];
    ["Offset of field: ckpt_stats::resident_pages"]
        [::core::mem::offset_of!(ckpt_stats, resident_pages) - 8];
    ["Offset of field: ckpt_stats::charged_pages"]
        [::core::mem::offset_of!(ckpt_stats, charged_pages) - 16];
    ["Offset of field: ckpt_stats::bytes_held"]
        [::core::mem::offset_of!(ckpt_stats, bytes_held) - 24];
    ["Offset of field: ckpt_stats::read_faults"]
        [::core::mem::offset_of!(ckpt_stats, read_faults) - 32];
    ["Offset of field: ckpt_stats::write_faults"]
        [::core::mem::offset_of!(ckpt_stats, write_faults) - 40];
    ["Offset of field: ckpt_stats::late_notes"]
        [::core::mem::offset_of!(ckpt_stats, late_notes) - 48];
    ["Offset of field: ckpt_stats::commits"][::core::mem::offset_of!(ckpt_stats, commits) - 56];
    ["Offset of field: ckpt_stats::committed_pages"]
        [::core::mem::offset_of!(ckpt_stats, committed_pages) - 64];
    ["Offset of field: ckpt_stats::rearmed_spans"]
        [::core::mem::offset_of!(ckpt_stats, rearmed_spans) - 72];
    ["Offset of field: ckpt_stats::rearmed_pages"]
        [::core::mem::offset_of!(ckpt_stats, rearmed_pages) - 80];
    ["Offset of field: ckpt_stats::commit_ns"][::core::mem::offset_of!(ckpt_stats, commit_ns) - 88];
    ["Offset of field: ckpt_stats::commit_ns_max"]
        [::core::mem::offset_of!(ckpt_stats, commit_ns_max) - 96];
    ["Offset of field: ckpt_stats::commit_ns_last"]
        [::core::mem::offset_of!(ckpt_stats, commit_ns_last) - 104];
    ["Offset of field: ckpt_stats::deltas"][::core::mem::offset_of!(ckpt_stats, deltas) - 112];
    ["Offset of field: ckpt_stats::open_pages"]
        [::core::mem::offset_of!(ckpt_stats, open_pages) - 120];
    ["Offset of field: ckpt_stats::open_chunks"]
        [::core::mem::offset_of!(ckpt_stats, open_chunks) - 128];
    ["Offset of field: ckpt_stats::chunks"][::core::mem::offset_of!(ckpt_stats, chunks) - 136];
    ["Offset of field: ckpt_stats::chunk_openings"]
        [::core::mem::offset_of!(ckpt_stats, chunk_openings) - 144];
    ["Offset of field: ckpt_stats::kept_pages"]
        [::core::mem::offset_of!(ckpt_stats, kept_pages) - 152];
    ["Offset of field: ckpt_stats::closed_pages"]
        [::core::mem::offset_of!(ckpt_stats, closed_pages) - 160];
    ["Offset of field: ckpt_stats::direct_harvests"]
        [::core::mem::offset_of!(ckpt_stats, direct_harvests) - 168];
    ["Offset of field: ckpt_stats::harvested_ptes"]
        [::core::mem::offset_of!(ckpt_stats, harvested_ptes) - 176];
    ["Offset of field: ckpt_stats::flushes"][::core::mem::offset_of!(ckpt_stats, flushes) - 184];
    ["Offset of field: ckpt_stats::snapshots"]
        [::core::mem::offset_of!(ckpt_stats, snapshots) - 192];
    ["Offset of field: ckpt_stats::snapshots_made"]
        [::core::mem::offset_of!(ckpt_stats, snapshots_made) - 200];
    ["Offset of field: ckpt_stats::frozen_pages"]
        [::core::mem::offset_of!(ckpt_stats, frozen_pages) - 208];
    ["Offset of field: ckpt_stats::copied_pages"]
        [::core::mem::offset_of!(ckpt_stats, copied_pages) - 216];
    ["Offset of field: ckpt_stats::copy_waits"]
        [::core::mem::offset_of!(ckpt_stats, copy_waits) - 224];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_control {
    pub pending: u32,
    pub reserved: u32,
    pub epoch: u64,
    pub durable: u64,
    pub replicated: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_control"][::core::mem::size_of::<ckpt_control>() - 32];
    ["Alignment of ckpt_control"][::core::mem::align_of::<ckpt_control>() - 8];
    ["Offset of field: ckpt_control::pending"][::core::mem::offset_of!(ckpt_control, pending) - 0];
    ["Offset of field: ckpt_control::reserved"]
        [::core::mem::offset_of!(ckpt_control, reserved) - 4];
    ["Offset of field: ckpt_control::epoch"][::core::mem::offset_of!(ckpt_control, epoch) - 8];
    ["Offset of field: ckpt_control::durable"][::core::mem::offset_of!(ckpt_control, durable) - 16];
    ["Offset of field: ckpt_control::replicated"]
        [::core::mem::offset_of!(ckpt_control, replicated) - 24];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_request {
    pub size: u32,
    pub flags: u32,
    pub after: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_request"][::core::mem::size_of::<ckpt_request>() - 16];
    ["Alignment of ckpt_request"][::core::mem::align_of::<ckpt_request>() - 8];
    ["Offset of field: ckpt_request::size"][::core::mem::offset_of!(ckpt_request, size) - 0];
    ["Offset of field: ckpt_request::flags"][::core::mem::offset_of!(ckpt_request, flags) - 4];
    ["Offset of field: ckpt_request::after"][::core::mem::offset_of!(ckpt_request, after) - 8];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_acknowledge {
    pub size: u32,
    pub flags: u32,
    pub epoch: u64,
    pub level: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_acknowledge"][::core::mem::size_of::<ckpt_acknowledge>() - 24];
    ["Alignment of ckpt_acknowledge"][::core::mem::align_of::<ckpt_acknowledge>() - 8];
    ["Offset of field: ckpt_acknowledge::size"]
        [::core::mem::offset_of!(ckpt_acknowledge, size) - 0];
    ["Offset of field: ckpt_acknowledge::flags"]
        [::core::mem::offset_of!(ckpt_acknowledge, flags) - 4];
    ["Offset of field: ckpt_acknowledge::epoch"]
        [::core::mem::offset_of!(ckpt_acknowledge, epoch) - 8];
    ["Offset of field: ckpt_acknowledge::level"]
        [::core::mem::offset_of!(ckpt_acknowledge, level) - 16];
    ["Offset of field: ckpt_acknowledge::reserved"]
        [::core::mem::offset_of!(ckpt_acknowledge, reserved) - 20];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_wait {
    pub size: u32,
    pub flags: u32,
    pub epoch: u64,
    pub timeout_ns: u64,
    pub level: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_wait"][::core::mem::size_of::<ckpt_wait>() - 32];
    ["Alignment of ckpt_wait"][::core::mem::align_of::<ckpt_wait>() - 8];
    ["Offset of field: ckpt_wait::size"][::core::mem::offset_of!(ckpt_wait, size) - 0];
    ["Offset of field: ckpt_wait::flags"][::core::mem::offset_of!(ckpt_wait, flags) - 4];
    ["Offset of field: ckpt_wait::epoch"][::core::mem::offset_of!(ckpt_wait, epoch) - 8];
    ["Offset of field: ckpt_wait::timeout_ns"][::core::mem::offset_of!(ckpt_wait, timeout_ns) - 16];
    ["Offset of field: ckpt_wait::level"][::core::mem::offset_of!(ckpt_wait, level) - 24];
    ["Offset of field: ckpt_wait::reserved"][::core::mem::offset_of!(ckpt_wait, reserved) - 28];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_subscribe {
    pub size: u32,
    pub flags: u32,
    pub since: u64,
    pub reserve_pages: u64,
    pub snapshot_fd: i32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_subscribe"][::core::mem::size_of::<ckpt_subscribe>() - 32];
    ["Alignment of ckpt_subscribe"][::core::mem::align_of::<ckpt_subscribe>() - 8];
    ["Offset of field: ckpt_subscribe::size"][::core::mem::offset_of!(ckpt_subscribe, size) - 0];
    ["Offset of field: ckpt_subscribe::flags"][::core::mem::offset_of!(ckpt_subscribe, flags) - 4];
    ["Offset of field: ckpt_subscribe::since"][::core::mem::offset_of!(ckpt_subscribe, since) - 8];
    ["Offset of field: ckpt_subscribe::reserve_pages"]
        [::core::mem::offset_of!(ckpt_subscribe, reserve_pages) - 16];
    ["Offset of field: ckpt_subscribe::snapshot_fd"]
        [::core::mem::offset_of!(ckpt_subscribe, snapshot_fd) - 24];
    ["Offset of field: ckpt_subscribe::reserved"]
        [::core::mem::offset_of!(ckpt_subscribe, reserved) - 28];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_keep {
    pub size: u32,
    pub flags: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_keep"][::core::mem::size_of::<ckpt_keep>() - 8];
    ["Alignment of ckpt_keep"][::core::mem::align_of::<ckpt_keep>() - 4];
    ["Offset of field: ckpt_keep::size"][::core::mem::offset_of!(ckpt_keep, size) - 0];
    ["Offset of field: ckpt_keep::flags"][::core::mem::offset_of!(ckpt_keep, flags) - 4];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_takeover {
    pub size: u32,
    pub flags: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_takeover"][::core::mem::size_of::<ckpt_takeover>() - 8];
    ["Alignment of ckpt_takeover"][::core::mem::align_of::<ckpt_takeover>() - 4];
    ["Offset of field: ckpt_takeover::size"][::core::mem::offset_of!(ckpt_takeover, size) - 0];
    ["Offset of field: ckpt_takeover::flags"][::core::mem::offset_of!(ckpt_takeover, flags) - 4];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_snapshot {
    pub size: u32,
    pub flags: u32,
    pub arena_id: u64,
    pub epoch: u64,
    pub since: u64,
    pub pages: u64,
    pub held_pages: u64,
    pub copied_pages: u64,
    pub reserve_pages: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_snapshot"][::core::mem::size_of::<ckpt_snapshot>() - 64];
    ["Alignment of ckpt_snapshot"][::core::mem::align_of::<ckpt_snapshot>() - 8];
    ["Offset of field: ckpt_snapshot::size"][::core::mem::offset_of!(ckpt_snapshot, size) - 0];
    ["Offset of field: ckpt_snapshot::flags"][::core::mem::offset_of!(ckpt_snapshot, flags) - 4];
    ["Offset of field: ckpt_snapshot::arena_id"]
        [::core::mem::offset_of!(ckpt_snapshot, arena_id) - 8];
    ["Offset of field: ckpt_snapshot::epoch"][::core::mem::offset_of!(ckpt_snapshot, epoch) - 16];
    ["Offset of field: ckpt_snapshot::since"][::core::mem::offset_of!(ckpt_snapshot, since) - 24];
    ["Offset of field: ckpt_snapshot::pages"][::core::mem::offset_of!(ckpt_snapshot, pages) - 32];
    ["Offset of field: ckpt_snapshot::held_pages"]
        [::core::mem::offset_of!(ckpt_snapshot, held_pages) - 40];
    ["Offset of field: ckpt_snapshot::copied_pages"]
        [::core::mem::offset_of!(ckpt_snapshot, copied_pages) - 48];
    ["Offset of field: ckpt_snapshot::reserve_pages"]
        [::core::mem::offset_of!(ckpt_snapshot, reserve_pages) - 56];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_gather {
    pub size: u32,
    pub flags: u32,
    pub start_pgoff: u64,
    pub ranges: u64,
    pub buffer: u64,
    pub capacity: u32,
    pub buffer_pages: u32,
    pub count: u32,
    pub more: u32,
    pub pages: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_gather"][::core::mem::size_of::<ckpt_gather>() - 56];
    ["Alignment of ckpt_gather"][::core::mem::align_of::<ckpt_gather>() - 8];
    ["Offset of field: ckpt_gather::size"][::core::mem::offset_of!(ckpt_gather, size) - 0];
    ["Offset of field: ckpt_gather::flags"][::core::mem::offset_of!(ckpt_gather, flags) - 4];
    ["Offset of field: ckpt_gather::start_pgoff"]
        [::core::mem::offset_of!(ckpt_gather, start_pgoff) - 8];
    ["Offset of field: ckpt_gather::ranges"][::core::mem::offset_of!(ckpt_gather, ranges) - 16];
    ["Offset of field: ckpt_gather::buffer"][::core::mem::offset_of!(ckpt_gather, buffer) - 24];
    ["Offset of field: ckpt_gather::capacity"][::core::mem::offset_of!(ckpt_gather, capacity) - 32];
    ["Offset of field: ckpt_gather::buffer_pages"]
        [::core::mem::offset_of!(ckpt_gather, buffer_pages) - 36];
    ["Offset of field: ckpt_gather::count"][::core::mem::offset_of!(ckpt_gather, count) - 40];
    ["Offset of field: ckpt_gather::more"][::core::mem::offset_of!(ckpt_gather, more) - 44];
    ["Offset of field: ckpt_gather::pages"][::core::mem::offset_of!(ckpt_gather, pages) - 48];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ckpt_thaw {
    pub size: u32,
    pub flags: u32,
    pub pgoff: u64,
    pub pages: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ckpt_thaw"][::core::mem::size_of::<ckpt_thaw>() - 24];
    ["Alignment of ckpt_thaw"][::core::mem::align_of::<ckpt_thaw>() - 8];
    ["Offset of field: ckpt_thaw::size"][::core::mem::offset_of!(ckpt_thaw, size) - 0];
    ["Offset of field: ckpt_thaw::flags"][::core::mem::offset_of!(ckpt_thaw, flags) - 4];
    ["Offset of field: ckpt_thaw::pgoff"][::core::mem::offset_of!(ckpt_thaw, pgoff) - 8];
    ["Offset of field: ckpt_thaw::pages"][::core::mem::offset_of!(ckpt_thaw, pages) - 16];
};
pub const CKPT_IOC_VERSION: u32 = 3224945920;
pub const CKPT_IOC_CREATE: u32 = 3228091649;
pub const CKPT_IOC_OPEN: u32 = 3222848770;
pub const CKPT_IOC_LIST: u32 = 3223897347;
pub const CKPT_IOC_INFO: u32 = 3230713120;
pub const CKPT_IOC_RESERVE: u32 = 3222848801;
pub const CKPT_IOC_COMMIT: u32 = 3225470242;
pub const CKPT_IOC_DELTA: u32 = 3225470243;
pub const CKPT_IOC_STATS: u32 = 3236480292;
pub const CKPT_IOC_REQUEST: u32 = 3222324517;
pub const CKPT_IOC_ACKNOWLEDGE: u32 = 3222848806;
pub const CKPT_IOC_WAIT: u32 = 3223373095;
pub const CKPT_IOC_SUBSCRIBE: u32 = 3223373096;
pub const CKPT_IOC_KEEP: u32 = 3221800233;
pub const CKPT_IOC_TAKEOVER: u32 = 3221800234;
pub const CKPT_IOC_SNAPSHOT: u32 = 3225470272;
pub const CKPT_IOC_GATHER: u32 = 3224945985;
pub const CKPT_IOC_THAW: u32 = 3222848834;
impl ckpt_version {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        abi_version: 0,
        trackers: 0,
        page_shift: 0,
        arena_max_bytes: 0,
        release: [0; 32],
    };
}
impl ckpt_create {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        len_bytes: 0,
        epoch: 0,
        name: [0; 64],
        id: 0,
        fd: 0,
        reserved: 0,
    };
}
impl ckpt_open {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        id: 0,
        fd: 0,
        reserved: 0,
    };
}
impl ckpt_list {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        start_id: 0,
        entries: 0,
        entry_size: 0,
        capacity: 0,
        count: 0,
        more: 0,
    };
}
impl ckpt_info {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        id: 0,
        len_bytes: 0,
        epoch: 0,
        resident_pages: 0,
        changed_pages: 0,
        created_ns: 0,
        committed_ns: 0,
        uid: 0,
        pid: 0,
        tracker: 0,
        page_shift: 0,
        name: [0; 64],
    };
}
impl ckpt_reserve {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        pages: 0,
        charged: 0,
    };
}
impl ckpt_commit {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        epoch: 0,
        changed_pages: 0,
        duration_ns: 0,
        since: 0,
        reserve_pages: 0,
        snapshot_pages: 0,
        snapshot_fd: 0,
        reserved: 0,
    };
}
impl ckpt_range {
    /// All bytes zero.
    pub const ZERO: Self = Self { pgoff: 0, pages: 0 };
}
impl ckpt_delta {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        since: 0,
        epoch: 0,
        start_pgoff: 0,
        ranges: 0,
        capacity: 0,
        count: 0,
        pages: 0,
        more: 0,
        reserved: 0,
    };
}
impl ckpt_stats {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        resident_pages: 0,
        charged_pages: 0,
        bytes_held: 0,
        read_faults: 0,
        write_faults: 0,
        late_notes: 0,
        commits: 0,
        committed_pages: 0,
        rearmed_spans: 0,
        rearmed_pages: 0,
        commit_ns: 0,
        commit_ns_max: 0,
        commit_ns_last: 0,
        deltas: 0,
        open_pages: 0,
        open_chunks: 0,
        chunks: 0,
        chunk_openings: 0,
        kept_pages: 0,
        closed_pages: 0,
        direct_harvests: 0,
        harvested_ptes: 0,
        flushes: 0,
        snapshots: 0,
        snapshots_made: 0,
        frozen_pages: 0,
        copied_pages: 0,
        copy_waits: 0,
    };
}
impl ckpt_control {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        pending: 0,
        reserved: 0,
        epoch: 0,
        durable: 0,
        replicated: 0,
    };
}
impl ckpt_request {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        after: 0,
    };
}
impl ckpt_acknowledge {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        epoch: 0,
        level: 0,
        reserved: 0,
    };
}
impl ckpt_wait {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        epoch: 0,
        timeout_ns: 0,
        level: 0,
        reserved: 0,
    };
}
impl ckpt_subscribe {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        since: 0,
        reserve_pages: 0,
        snapshot_fd: 0,
        reserved: 0,
    };
}
impl ckpt_keep {
    /// All bytes zero.
    pub const ZERO: Self = Self { size: 0, flags: 0 };
}
impl ckpt_takeover {
    /// All bytes zero.
    pub const ZERO: Self = Self { size: 0, flags: 0 };
}
impl ckpt_snapshot {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        arena_id: 0,
        epoch: 0,
        since: 0,
        pages: 0,
        held_pages: 0,
        copied_pages: 0,
        reserve_pages: 0,
    };
}
impl ckpt_gather {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        start_pgoff: 0,
        ranges: 0,
        buffer: 0,
        capacity: 0,
        buffer_pages: 0,
        count: 0,
        more: 0,
        pages: 0,
    };
}
impl ckpt_thaw {
    /// All bytes zero.
    pub const ZERO: Self = Self {
        size: 0,
        flags: 0,
        pgoff: 0,
        pages: 0,
    };
}
