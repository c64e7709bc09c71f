// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A spare has what its primary has, whatever happens to the link between them.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ckptctl::replication::Finished;
use ckptctl::replication::Link;
use ckptctl::replication::Observer;
use ckptctl::replication::Progress;
use ckptctl::replication::RefusalCode;
use ckptctl::replication::Security;
use ckptctl::replication::Sender;
use ckptctl::replication::SenderError;
use ckptctl::replication::SenderOptions;
use ckptctl::replication::Spare;
use ckptctl::replication::SpareOptions;
use ckptctl::replication::Until;
use ckptctl::replication::Why;
use ckptctl::replication::known_term;
use ckptctl::saving::Compacting;
use ckptctl::store::Chain;
use ckptctl::store::CommitMeta;
use ckptctl::store::Keep;
use ckptctl::store::Options;
use ckptctl::store::StoreError;
use ckptctl::store::Writer;
use ckptctl::store::compact;
use ckptctl::sys::event::Event;
use support::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A spare that listens, in threads of this process.
struct Listening {
    spare: Arc<Spare>,
    address: SocketAddr,
    ends: Arc<Mutex<Vec<Why>>>,
    stop: Arc<Event>,
    thread: Option<JoinHandle<()>>,
}

fn spare_options(dir: &Path) -> SpareOptions {
    SpareOptions {
        dir: dir.to_owned(),
        service: "test".into(),
        node: "east".into(),
        store: Options::default(),
        compacting: Compacting::Never,
        arena: false,
    }
}

impl Listening {
    fn on(dir: &Path) -> Listening {
        let (spare, _) = Spare::open(spare_options(dir)).unwrap();
        let spare = Arc::new(spare);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(Event::new().unwrap());
        let (serving, ended, stopped) = (Arc::clone(&spare), Arc::clone(&ends), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                loop {
                    let fds = [listener.as_fd(), stopped.as_fd()];
                    let [ready, stop] = ckptctl::sys::consumers::wait_readable(fds, LONG).unwrap();
                    if stop {
                        return;
                    }
                    if ready {
                        let (stream, _) = listener.accept().unwrap();
                        let (serving, ended) = (&serving, &ended);
                        scope.spawn(move || {
                            if let Ok(link) = Link::accept(stream, &Security::PlainOnLoopback, LONG)
                            {
                                let end = serving.serve(link);
                                ended.lock().unwrap().push(end.why);
                            }
                        });
                    }
                }
            });
        });
        Listening {
            spare,
            address,
            ends,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a sender has told.
#[derive(Default)]
struct Notes {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Default, Clone, Debug)]
struct Told {
    progress: Progress,
    connected: Vec<u64>,
    lost: Vec<String>,
    sent_bytes: u64,
}

impl Notes {
    fn change(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&Told) -> bool) -> Told {
        let deadline = Instant::now() + LONG;
        let mut told = self.told.lock().unwrap();
        while !until(&told) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came of it: {told:?}");
            told = self.changed.wait_timeout(told, left).unwrap().0;
        }
        told.clone()
    }
}

impl Observer for Notes {
    fn connected(&self, _spare: &str, missing: u64, _bytes: u64) {
        self.change(|told| told.connected.push(missing));
    }

    fn progress(&self, progress: Progress) {
        self.change(|told| told.progress = progress);
    }

    fn sent(&self, bytes: u64) {
        self.change(|told| told.sent_bytes += bytes);
    }

    fn lost(&self, why: &str) {
        self.change(|told| told.lost.push(why.to_owned()));
    }
}

/// A sender in a thread.
struct Sending {
    notes: Arc<Notes>,
    stop: Arc<Event>,
    thread: Option<JoinHandle<Result<Finished, SenderError>>>,
}

fn sender_options(dir: &Path, to: SocketAddr) -> SenderOptions {
    SenderOptions {
        dir: dir.to_owned(),
        to: to.to_string(),
        security: Security::PlainOnLoopback,
        service: "test".into(),
        node: "west".into(),
        term: 1,
        limit: None,
    }
}

impl Sending {
    fn begin(options: SenderOptions, until: Until) -> Sending {
        let notes = Arc::new(Notes::default());
        let stop = Arc::new(Event::new().unwrap());
        let sender = Sender::new(options, Arc::clone(&notes) as Arc<dyn Observer>);
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || sender.run(until, stopped.as_fd()));
        Sending {
            notes,
            stop,
            thread: Some(thread),
        }
    }

    fn wait_durable(&self, epoch: u64) -> Told {
        self.notes.wait(|told| told.progress.durable == epoch)
    }

    fn end(mut self) -> Result<Finished, SenderError> {
        self.thread.take().unwrap().join().unwrap()
    }

    fn stop(self) -> Told {
        self.stop.set();
        let notes = Arc::clone(&self.notes);
        assert_eq!(self.end().unwrap(), Finished::Stopped);
        notes.told.lock().unwrap().clone()
    }
}

fn commit(writer: &mut Writer, images: &mut Images, epoch: u64, parent: impl Into<Option<u64>>) {
    let delta = [
        (epoch % 60, Fill::Noise(epoch)),
        (60, Fill::Even(epoch as u8)),
    ]
    .into();
    append(writer, images, &meta(epoch, parent), &delta).unwrap();
}

fn same(dir: &Path, epoch: u64, images: &Images) {
    let chain = Chain::open(dir).unwrap();
    assert!(chain.damage().is_empty());
    assert!(restore(&chain, epoch).unwrap() == images[&epoch]);
}

#[test]
fn a_spare_has_what_was_there_and_each_commit_that_follows() {
    let (here, there) = (memory_dir(), memory_dir());
    let mut images = full_chain(here.path());
    let (mut writer, _) = open(here.path(), 16_000).unwrap();
    let spare = Listening::on(there.path());
    let sending = Sending::begin(sender_options(here.path(), spare.address), Until::Stopped);
    sending.wait_durable(9);
    for epoch in 10..40 {
        commit(&mut writer, &mut images, epoch, epoch - 1);
        sending.wait_durable(epoch);
        same(there.path(), epoch, &images);
    }
    // Back to an earlier one.
    commit(&mut writer, &mut images, 40, 12);
    sending.wait_durable(40);
    same(there.path(), 40, &images);
    let told = sending.stop();
    assert_eq!(told.lost, Vec::<String>::new());
    drop(spare);
}

#[test]
fn a_spare_that_comes_back_gets_what_it_missed_and_no_more() {
    let (here, there) = (memory_dir(), memory_dir());
    let mut images = Images::new();
    let (mut writer, _) = open(here.path(), 16_000).unwrap();
    commit(&mut writer, &mut images, 1, None);
    let spare = Listening::on(there.path());
    let sending = Sending::begin(sender_options(here.path(), spare.address), Until::Stopped);
    sending.wait_durable(1);
    sending.stop();
    drop(spare);
    for epoch in 2..30 {
        commit(&mut writer, &mut images, epoch, epoch - 1);
    }
    let spare = Listening::on(there.path());
    let sending = Sending::begin(sender_options(here.path(), spare.address), Until::Complete);
    let notes = Arc::clone(&sending.notes);
    assert_eq!(sending.end().unwrap(), Finished::Complete);
    assert_eq!(notes.told.lock().unwrap().connected, [28]);
    same(there.path(), 29, &images);
}

#[test]
fn after_a_compaction_a_spare_gets_what_stands_for_what_it_missed() {
    let (here, there) = (memory_dir(), memory_dir());
    let mut images = Images::new();
    let (mut writer, _) = open(here.path(), 16_000).unwrap();
    commit(&mut writer, &mut images, 1, None);
    let spare = Listening::on(there.path());
    let sending = Sending::begin(sender_options(here.path(), spare.address), Until::Complete);
    sending.end().unwrap();
    for epoch in 2..60 {
        commit(&mut writer, &mut images, epoch, epoch - 1);
    }
    let keep = Keep {
        last: 5,
        ..Keep::default()
    };
    compact(here.path(), &keep, &Options::default(), |_| true).unwrap();
    writer.refresh().unwrap();
    let sending = Sending::begin(sender_options(here.path(), spare.address), Until::Stopped);
    sending.wait_durable(59);
    same(there.path(), 59, &images);
    // While it follows, too.
    for epoch in 60..90 {
        commit(&mut writer, &mut images, epoch, epoch - 1);
    }
    compact(here.path(), &keep, &Options::default(), |_| true).unwrap();
    writer.refresh().unwrap();
    commit(&mut writer, &mut images, 90, 89);
    sending.wait_durable(90);
    same(there.path(), 90, &images);
    sending.stop();
}

/// Passes bytes on between a sender and a spare, and breaks off after so many from the sender.
fn breaking(to: SocketAddr, after: Vec<u64>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        for limit in after {
            let (from, _) = listener.accept().unwrap();
            let to = TcpStream::connect(to).unwrap();
            let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            let back = thread::spawn(move || io::copy(&mut back_from, &mut back_to));
            let _ = io::copy(&mut (&from).take(limit), &mut &to);
            let _ = (&to).flush();
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            let _ = back.join().unwrap();
        }
    });
    (address, thread)
}

#[test]
fn a_link_may_break_anywhere_and_nothing_is_lost_or_sent_twice() {
    let (here, there) = (memory_dir(), memory_dir());
    let mut images = Images::new();
    let (mut writer, _) = open(here.path(), 1 << 20).unwrap();
    for epoch in 1..20 {
        commit(
            &mut writer,
            &mut images,
            epoch,
            (epoch > 1).then_some(epoch - 1),
        );
    }
    let spare = Listening::on(there.path());
    // Within the greeting, a record's header, its bytes, its footer; the last one to the end.
    let cuts = vec![3, 20, 40, 100, 300, 5000, 9000, 11_000, 20_000, u64::MAX];
    let (address, proxy) = breaking(spare.address, cuts.clone());
    let sending = Sending::begin(sender_options(here.path(), address), Until::Stopped);
    sending.wait_durable(19);
    let told = sending.stop();
    proxy.join().unwrap();
    assert!(told.lost.len() >= cuts.len() - 1, "{:?}", told.lost);
    same(there.path(), 19, &images);
    assert_eq!(Chain::open(there.path()).unwrap().commits().count(), 19);
}

#[test]
fn who_has_an_earlier_term_is_refused_and_a_later_one_is_remembered() {
    let (here, there) = (memory_dir(), memory_dir());
    full_chain(here.path());
    let spare = Listening::on(there.path());
    let with_term = |term| {
        let options = SenderOptions {
            term,
            ..sender_options(here.path(), spare.address)
        };
        Sending::begin(options, Until::Complete).end()
    };
    with_term(7).unwrap();
    assert_eq!(known_term(there.path()).unwrap(), 7);
    let error = with_term(6).unwrap_err();
    assert!(error.is_fenced(), "{error}");
    with_term(7).unwrap();
    drop(spare);
    let again = Listening::on(there.path());
    assert_eq!(again.spare.status().term, 7);
}

#[test]
fn a_primary_of_a_later_term_ends_the_link_of_the_one_before() {
    let (here, there) = (memory_dir(), memory_dir());
    full_chain(here.path());
    let spare = Listening::on(there.path());
    let old = Sending::begin(sender_options(here.path(), spare.address), Until::Stopped);
    old.wait_durable(9);
    let options = SenderOptions {
        term: 2,
        ..sender_options(here.path(), spare.address)
    };
    let new = Sending::begin(options, Until::Stopped);
    new.notes.wait(|told| told.connected.len() == 1);
    // It comes again and learns why it was ended.
    assert!(old.end().unwrap_err().is_fenced());
    new.stop();
}

#[test]
fn a_spare_of_another_service_refuses() {
    let (here, there) = (memory_dir(), memory_dir());
    full_chain(here.path());
    let spare = Listening::on(there.path());
    let options = SenderOptions {
        service: "other".into(),
        ..sender_options(here.path(), spare.address)
    };
    let error = Sending::begin(options, Until::Complete).end().unwrap_err();
    assert!(matches!(
        error,
        SenderError::Refused {
            code: RefusalCode::Service,
            ..
        }
    ));
    assert!(Chain::open(there.path()).unwrap().commits().len() == 0);
}

#[test]
fn a_spare_with_commits_of_another_history_refuses_and_keeps_them() {
    let (here, there) = (memory_dir(), memory_dir());
    full_chain(here.path());
    let mut images = Images::new();
    let (mut writer, _) = open(there.path(), 1 << 20).unwrap();
    let stranger = CommitMeta {
        generation: [9; 16],
        ..meta(50, None)
    };
    append(
        &mut writer,
        &mut images,
        &stranger,
        &BTreeMap::from([(7, Fill::Noise(5))]),
    )
    .unwrap();
    drop(writer);
    let spare = Listening::on(there.path());
    let error = Sending::begin(sender_options(here.path(), spare.address), Until::Complete).end();
    assert!(matches!(
        error.unwrap_err(),
        SenderError::Refused {
            code: RefusalCode::Diverged,
            ..
        }
    ));
    same(there.path(), 50, &images);
}

#[test]
fn the_old_primary_becomes_the_spare_of_the_one_that_took_over() {
    let (west, east) = (memory_dir(), memory_dir());
    let mut images = Images::new();
    let (mut writer, _) = open(west.path(), 16_000).unwrap();
    for epoch in 1..5 {
        commit(
            &mut writer,
            &mut images,
            epoch,
            (epoch > 1).then_some(epoch - 1),
        );
    }
    let spare = Listening::on(east.path());
    Sending::begin(sender_options(west.path(), spare.address), Until::Complete)
        .end()
        .unwrap();
    // Nobody has got this one.
    commit(&mut writer, &mut images, 5, 4);
    drop(writer);
    let lost = images.remove(&5).unwrap();
    drop(spare);
    let (taken, _) = Spare::open(spare_options(east.path())).unwrap();
    let over = taken.take_over(0).unwrap();
    assert_eq!((over.term, over.commit.unwrap().epoch), (2, 4));
    drop(taken);
    // The new primary goes on, far above all that the old one can have.
    let (mut writer, _) = open(east.path(), 16_000).unwrap();
    let restored = CommitMeta {
        generation: [0x77; 16],
        ..meta(1_000_000_005, 4)
    };
    let delta = [(4, Fill::Noise(77))].into();
    append(&mut writer, &mut images, &restored, &delta).unwrap();
    let spare = Listening::on(west.path());
    let options = SenderOptions {
        term: over.term,
        ..sender_options(east.path(), spare.address)
    };
    Sending::begin(options, Until::Complete).end().unwrap();
    same(west.path(), 1_000_000_005, &images);
    // And what it had alone can still be looked at.
    assert!(restore(&Chain::open(west.path()).unwrap(), 5).unwrap() == lost);
}

#[test]
fn taking_over_ends_the_link_and_gives_the_chain_to_the_next_writer() {
    let (here, there) = (memory_dir(), memory_dir());
    full_chain(here.path());
    let (spare, _) = Spare::open(spare_options(there.path())).unwrap();
    assert!(matches!(
        Writer::open_or_create(there.path(), Options::default()),
        Err(StoreError::Locked { .. })
    ));
    let over = spare.take_over(5).unwrap();
    assert_eq!((over.term, over.commit), (5, None));
    assert_eq!(known_term(there.path()).unwrap(), 5);
    Writer::open_or_create(there.path(), Options::default()).unwrap();
    assert_eq!(spare.take_over(0).unwrap().term, 6);
}

#[test]
fn a_limit_is_kept() {
    let (here, there) = (memory_dir(), memory_dir());
    let mut images = Images::new();
    let (mut writer, _) = open(here.path(), 1 << 20).unwrap();
    let delta = (0..60).map(|page| (page, Fill::Noise(page + 1))).collect();
    append(&mut writer, &mut images, &meta(1, None), &delta).unwrap();
    let spare = Listening::on(there.path());
    let options = SenderOptions {
        limit: Some(200_000),
        ..sender_options(here.path(), spare.address)
    };
    let begun = Instant::now();
    Sending::begin(options, Until::Complete).end().unwrap();
    // 240 kB, of which a burst of 20 kB is free: it cannot have been faster, however slow all is.
    assert!(
        begun.elapsed() > Duration::from_millis(1000),
        "{:?}",
        begun.elapsed()
    );
    same(there.path(), 1, &images);
}

#[test]
fn what_is_no_message_ends_the_link_and_the_next_one_works() {
    let (here, there) = (memory_dir(), memory_dir());
    let images = full_chain(here.path());
    let spare = Listening::on(there.path());
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(spare.address).unwrap();
        stream.write_all(b"ckpt/1\n").unwrap();
        stream.write_all(garbage).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    Sending::begin(sender_options(here.path(), spare.address), Until::Complete)
        .end()
        .unwrap();
    same(there.path(), 9, &images);
    let ends = spare.ends.lock().unwrap().clone();
    assert!(
        ends.iter()
            .filter(|why| matches!(why, Why::Broken(_)))
            .count()
            >= 3,
        "{ends:?}"
    );
}
