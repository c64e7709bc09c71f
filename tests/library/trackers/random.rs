// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random doings, after which everybody who follows has what there is.

use std::path::Path;

use ckptctl::track::Choice;
use nix::libc;

use super::Claim;
use super::Mirror;
use super::PAGE;
use super::Random;
use super::Subject;

pub const CLAIMS: &[Claim] = &[("followers_have_what_there_is_whatever_was_done", followers)];

const PAGES: usize = 700;

fn doing(subject: &Subject, random: &mut Random) {
    let page = random.below(PAGES);
    let value = random.below(1 << 40) as u64;
    match random.below(12) {
        0 => {
            let pages = random.below(PAGES - page) + 1;
            // SAFETY: Pages of the arena; nobody counts on what is in them.
            unsafe { libc::madvise(subject.page(page).cast(), pages * PAGE, libc::MADV_DONTNEED) };
        }
        1 => {
            for page in page..(page + 100).min(PAGES) {
                subject.put(page, value);
            }
        }
        2 => {
            // SAFETY: A page, and nobody else uses it now.
            unsafe { subject.page(page).write_bytes(0, PAGE) };
        }
        3 => {
            let content = [value as u8; 100];
            let part = |base: *mut u8| libc::iovec {
                iov_base: base.cast(),
                iov_len: 100,
            };
            let (local, remote) = (part(content.as_ptr().cast_mut()), part(subject.page(page)));
            // SAFETY: Both are as long as they say.
            unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        }
        4 => {
            // SAFETY: Within the page.
            unsafe { libc::syscall(libc::SYS_getrandom, subject.page(page), 16, 0) };
        }
        5 => {
            // Only looks.
            // SAFETY: Within the page.
            unsafe { subject.page(page).read_volatile() };
        }
        _ => subject.put(page, value),
    }
}

fn followers(choice: Choice, _: &Path) {
    for seed in 1..=4 {
        let mut random = Random(seed * 7919);
        let mut subject = Subject::new(choice, PAGES);
        // They come by more and more rarely.
        let mut mirrors: Vec<(usize, Mirror)> = [1, 2, 5, 11]
            .map(|every| (every, Mirror::new(&subject)))
            .into();
        for round in 0..40 {
            for _ in 0..random.below(40) {
                doing(&subject, &mut random);
            }
            // The first one has snapshots as often as not.
            let (_, first) = &mut mirrors[0];
            let image = subject.image();
            let epoch = match random.below(2) {
                0 => subject.commit(),
                _ => {
                    let (epoch, mut snapshot) = subject.freeze(first.cursor);
                    first.gather(&mut *snapshot, epoch, 1 + random.below(50));
                    epoch
                }
            };
            for (every, mirror) in &mut mirrors {
                if round % *every == 0 && mirror.cursor != epoch {
                    mirror.pull(&mut subject, epoch);
                }
                if mirror.cursor == epoch {
                    mirror.assert_is(&image, &format!("seed {seed}, round {round}"));
                }
            }
        }
    }
}
