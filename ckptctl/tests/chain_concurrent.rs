// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Readers and a writer at the same time.

mod support;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ckptctl::store::Chain;
use ckptctl::store::StoreError;
use support::*;

const EPOCHS: u64 = 400;

#[test]
fn a_reader_never_takes_an_append_that_is_going_on_for_damage() {
    let temp = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(temp.path(), 100_000).unwrap();
    let reported = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let mut looks = 0;
    let mut torn = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Also when an append fails, or the test would never end.
            struct Done<'a>(&'a AtomicBool);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Release);
                }
            }
            let _done = Done(&done);
            let page = Fill::Noise(1).page();
            for epoch in 1..=EPOCHS {
                let parent = (epoch > 1).then(|| epoch - 1);
                let at = epoch % ARENA_PAGES;
                writer
                    .append(&meta(epoch, parent), [(at, page.as_slice())])
                    .unwrap();
                reported.store(epoch, Ordering::Release);
                if epoch % 7 == 0 {
                    // Pages must ascend: this one is taken back.
                    let pages = [(9, page.as_slice()), (3, page.as_slice())];
                    let failed = writer.append(&meta(epoch + 1, epoch), pages).unwrap_err();
                    assert!(matches!(failed, StoreError::Invalid { .. }), "{failed}");
                }
            }
        });
        while !done.load(Ordering::Acquire) {
            let before = reported.load(Ordering::Acquire);
            let chain = Chain::open(temp.path()).unwrap();
            assert_eq!(chain.damage(), [], "after epoch {before}");
            let newest = chain.newest().unwrap().map_or(0, |commit| commit.epoch);
            assert!(
                newest >= before,
                "epoch {before} was durable, {newest} is the newest"
            );
            if newest > 0 {
                restore(&chain, newest).unwrap();
            }
            looks += 1;
            torn += usize::from(chain.torn().is_some());
        }
    });
    assert!(
        looks > 10,
        "{looks} looks in {EPOCHS} appends, {torn} at one going on"
    );
    let report = Chain::open(temp.path()).unwrap().verify(|_, _| {}).unwrap();
    assert_eq!((report.damage, report.torn), (vec![], None));
    assert_eq!(report.restorable.len() as u64, EPOCHS);
}
