// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Arguments of its calls, that are valid, or nearly.

use super::super::fuzz::number;
use super::worker::ENTRIES;
use super::worker::PAGES_MOST;
use super::worker::ROOM_PAGES;
use super::worker::Worker;
use super::worker::lock;
use crate::abi;
use crate::arena::commit_request;
use crate::arena::delta_request;
use crate::device::create_request;
use crate::device::list_request;
use crate::ioctl::Bytes;
use crate::ioctl::Command;
use crate::snapshot::gather_request;
use crate::snapshot::snapshot_request;

impl Worker<'_> {
    // An argument that the header calls valid, or nearly.
    pub fn sensible(&mut self, command: &Command, size: usize) -> Bytes {
        let rng = &mut self.rng;
        let len = size.max(command.size);
        match command.number {
            abi::CKPT_IOC_CREATE => {
                let mut create = create_request("fuzzed", rng.between(1, PAGES_MOST) as u64);
                create.flags = rng.below(2) as u32;
                Bytes::extended(&create, len)
            }
            abi::CKPT_IOC_OPEN => {
                let known = lock(self.table).ids.clone();
                let mut ids = self.canaries.ids.clone();
                ids.extend(known);
                let open = abi::ckpt_open {
                    flags: rng.below(2) as u32,
                    id: *rng.pick(&ids),
                    ..abi::ckpt_open::ZERO
                };
                Bytes::extended(&open, len)
            }
            abi::CKPT_IOC_LIST => {
                let mut list = list_request(&mut []);
                list.capacity = rng.between(1, ENTRIES) as u32;
                list.start_id = rng.below(10) as u64;
                Bytes::extended(&list, len)
            }
            abi::CKPT_IOC_RESERVE => {
                let reserve = abi::ckpt_reserve {
                    pages: rng.below(PAGES_MOST) as u64,
                    ..abi::ckpt_reserve::ZERO
                };
                Bytes::extended(&reserve, len)
            }
            abi::CKPT_IOC_COMMIT => {
                let commit = match rng.chance(1, 2) {
                    true => snapshot_request(rng.below(4) as u64, rng.below(6) as u64),
                    false => commit_request(),
                };
                let quiet = abi::CKPT_COMMIT_QUIET * rng.below(2) as u32;
                let commit = abi::ckpt_commit {
                    flags: commit.flags | quiet,
                    ..commit
                };
                Bytes::extended(&commit, len)
            }
            abi::CKPT_IOC_DELTA => {
                let mut delta = delta_request(rng.below(4) as u64, &mut []);
                delta.capacity = rng.between(1, ENTRIES) as u32;
                delta.start_pgoff = rng.below(PAGES_MOST) as u64;
                Bytes::extended(&delta, len)
            }
            abi::CKPT_IOC_GATHER => {
                let mut gather = gather_request(&mut [], &mut []);
                gather.capacity = rng.between(1, ENTRIES) as u32;
                if rng.chance(3, 4) {
                    gather.buffer_pages = rng.between(1, ROOM_PAGES - 1) as u32;
                    gather.flags = rng.below(2) as u32;
                }
                if rng.chance(1, 4) {
                    gather.start_pgoff = rng.below(PAGES_MOST) as u64;
                }
                Bytes::extended(&gather, len)
            }
            abi::CKPT_IOC_ACKNOWLEDGE => {
                let said = abi::ckpt_acknowledge {
                    epoch: rng.below(6) as u64,
                    level: rng.below(3) as u32,
                    ..abi::ckpt_acknowledge::ZERO
                };
                Bytes::extended(&said, len)
            }
            abi::CKPT_IOC_WAIT => {
                let wait = abi::ckpt_wait {
                    epoch: rng.below(6) as u64,
                    timeout_ns: rng.below(1000) as u64,
                    level: rng.below(3) as u32,
                    ..abi::ckpt_wait::ZERO
                };
                Bytes::extended(&wait, len)
            }
            abi::CKPT_IOC_SUBSCRIBE => {
                let subscribe = abi::ckpt_subscribe {
                    since: rng.below(4) as u64,
                    reserve_pages: rng.below(6) as u64,
                    ..abi::ckpt_subscribe::ZERO
                };
                Bytes::extended(&subscribe, len)
            }
            abi::CKPT_IOC_THAW => {
                let thaw = abi::ckpt_thaw {
                    pgoff: rng.below(PAGES_MOST) as u64,
                    pages: number(rng).max(1),
                    ..abi::ckpt_thaw::ZERO
                };
                Bytes::extended(&thaw, len)
            }
            _ => Bytes::zeroed(len),
        }
    }

    // In an arena, where others write as well, so that no descriptor should come to lie there;
    // or nowhere.
    pub fn somewhere(&mut self, nowhere: bool) -> usize {
        if !nowhere && !self.maps.is_empty() && self.rng.chance(2, 3) {
            let map = self.rng.pick(&self.maps);
            return map.at(self.rng.below(map.len()) & !7);
        }
        *self
            .rng
            .pick(&[0, 8, 1 << 47, usize::MAX - 15, usize::MAX & !0xfff])
    }
}
