// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who is the primary, by a real etcd (Debian's package etcd-server).
#![cfg(feature = "cli")]

#[path = "terms/etcd.rs"]
mod etcd;
#[path = "terms/gate.rs"]
mod gate;
#[path = "terms/node.rs"]
mod node;
#[allow(dead_code, unused_imports, reason = "not all of it is asked for here")]
#[path = "../src/cli/term/mod.rs"]
mod term;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ckptctl::sys::clock::since_boot_ns;
use ckptctl::sys::event::Event;
use ckptctl::sys::event::first_readable;
use ckptctl::sys::lease_page::LeasePage;
use ckptctl::sys::lease_page::LeaseWriter;
use nix::sys::signal::Signal;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;

use etcd::Certificates;
use etcd::Etcd;
use etcd::LONG;
use etcd::until;
use gate::Fate;
use node::Node;
use node::Word;
use term::Config;
use term::Held;
use term::Outcome;
use term::Store;
use term::TermError;
use term::campaign;

/// A lease that runs out while a test waits for that.
const SHORT_S: u64 = 3;

/// A lease that does not, within any test.
const HOUR_S: u64 = 3600;

#[test]
#[ignore = "the other tests start it in processes of their own"]
fn node_process() {
    node::run();
}

fn found(config: &Config) -> Held {
    Store::new(config).unwrap().found().unwrap()
}

/// Founds the service on a node, says which others are in sync, and resigns.
fn found_for(etcd: &Etcd, nodes: &[&str]) {
    let held = found(&etcd.config(nodes[0], HOUR_S));
    held.set_in_sync(nodes).unwrap();
    held.resign().unwrap();
}

fn campaigned(config: &Config) -> Outcome {
    let never = Event::new().unwrap();
    campaign(config, &never, |error| eprintln!("{error}")).unwrap()
}

fn won(config: &Config) -> Held {
    match campaigned(config) {
        Outcome::Won(held) => held,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_begins_with_term_1_and_its_first_primary_in_sync() {
    let etcd = Etcd::start();
    let config = etcd.config("left", HOUR_S);
    let held = found(&config);
    let state = Store::new(&config).unwrap().state().unwrap().unwrap();
    assert!(held.is_valid());
    assert_eq!((state.term, held.term()), (1, 1));
    assert_eq!(
        (state.primary.as_str(), state.in_sync),
        ("left", vec!["left".into()])
    );
}

#[test]
fn a_term_is_valid_from_before_its_lease_was_asked_for_and_a_fifth_less() {
    let etcd = Etcd::start();
    let (fate, come, go) = gate::held();
    let mut config = etcd.config("left", HOUR_S);
    config.endpoints = vec![gate::before(&config.endpoints[0], r#""TTL":"#, fate)];
    let (asked_ns, until_ns) = thread::scope(|scope| {
        let founding = scope.spawn(|| found(&config).valid_until_ns());
        come.recv_timeout(LONG).unwrap();
        let asked_ns = since_boot_ns().unwrap();
        go.send(()).unwrap();
        (asked_ns, founding.join().unwrap())
    });
    let lasts_ns = HOUR_S * 1_000_000_000 / 5 * 4;
    assert!(until_ns > lasts_ns && until_ns < asked_ns + lasts_ns);
}

#[test]
fn a_service_is_founded_once() {
    let etcd = Etcd::start();
    let _held = found(&etcd.config("left", HOUR_S));
    let second = Store::new(&etcd.config("right", HOUR_S)).unwrap().found();
    assert!(matches!(second, Err(TermError::Founded { state, .. }) if state.primary == "left"));
}

#[test]
fn without_a_service_nobody_campaigns() {
    let etcd = Etcd::start();
    let config = etcd.config("left", HOUR_S);
    let outcome = campaign(&config, Event::new().unwrap(), |_| {});
    assert!(matches!(outcome, Err(TermError::NoService(_))));
}

#[test]
fn one_of_two_that_campaign_wins_and_the_other_waits() {
    let etcd = Etcd::start();
    found_for(&etcd, &["left", "right"]);
    let stop = Event::new().unwrap();
    let (left, right) = (etcd.config("left", HOUR_S), etcd.config("right", HOUR_S));
    let outcomes = thread::scope(|scope| {
        let both = [&left, &right].map(|config| {
            let stop = &stop;
            scope.spawn(move || {
                let outcome = campaign(config, stop, |_| {}).unwrap();
                // The other has waited for long enough when there is a term.
                stop.set();
                outcome
            })
        });
        both.map(|one| one.join().unwrap())
    });
    let winners = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Won(_)));
    assert_eq!(winners.count(), 1);
    assert!(
        outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Stopped))
    );
}

#[test]
fn a_lease_is_renewed_for_as_long_as_the_term_is_held() {
    let etcd = Etcd::start();
    let held = found(&etcd.config("left", 6));
    let first_ns = held.valid_until_ns();
    until("the lease was renewed beyond its first end", || {
        assert!(held.is_valid(), "{:?}", held.trouble());
        held.valid_until_ns() > first_ns + 6_000_000_000
    });
}

/// `left` in a process of its own, the primary, with `right` in sync. Returns its term as well.
fn left_is_primary(etcd: &Etcd) -> (Node, u64) {
    found_for(etcd, &["left", "right"]);
    let left = Node::start(etcd, "left", SHORT_S, &["left", "right"]);
    assert_eq!(left.word(), Word::Campaigns);
    let (term, _) = left.wins();
    (left, term)
}

/// `right` in a process of its own, waiting until it is the primary.
fn right_campaigns(etcd: &Etcd) -> Node {
    let right = Node::start(etcd, "right", SHORT_S, &["left", "right"]);
    assert_eq!(right.word(), Word::Campaigns);
    right
}

/// Holds a page up as valid never again from an instant on.
fn assert_over_before(page: &LeasePage, began_ns: u64) {
    assert!(began_ns > 0);
    assert!(page.valid_until_ns() <= began_ns);
}

#[test]
fn who_waits_wins_when_the_primary_is_killed_but_not_before_that_is_invalid() {
    let etcd = Etcd::start();
    let (left, first) = left_is_primary(&etcd);
    let page = left.page();
    let right = right_campaigns(&etcd);
    left.signal(Signal::SIGKILL);
    let (second, began_ns) = right.wins();
    assert!(page.valid_until_ns() > 0);
    assert_over_before(&page, began_ns);
    assert_eq!(second, first + 1);
}

#[test]
fn a_primary_that_was_stopped_is_invalid_before_another_begins_and_stays_so() {
    let etcd = Etcd::start();
    let (left, _) = left_is_primary(&etcd);
    let page = left.page();
    let right = right_campaigns(&etcd);
    left.signal(Signal::SIGSTOP);
    let (_, began_ns) = right.wins();
    assert!(page.valid_until_ns() > 0);
    assert_over_before(&page, began_ns);
    left.signal(Signal::SIGCONT);
    assert_eq!(left.word(), Word::Lost);
    assert!(!page.is_valid());
}

#[test]
fn a_primary_that_was_stopped_goes_on_in_its_term_when_nobody_else_began_one() {
    let etcd = Etcd::start();
    let (left, term) = left_is_primary(&etcd);
    let page = left.page();
    left.signal(Signal::SIGSTOP);
    until("the page has run out", || !page.is_valid());
    until("etcd has removed the lease", || lease(&etcd).is_none());
    left.signal(Signal::SIGCONT);
    until("the page is valid again", || page.is_valid());
    assert_eq!((page.term(), left.words_so_far()), (term, vec![]));
}

#[test]
fn while_etcd_is_stopped_the_primary_becomes_invalid_and_nobody_takes_over() {
    let etcd = Etcd::start();
    let (left, _) = left_is_primary(&etcd);
    let page = left.page();
    let right = right_campaigns(&etcd);
    etcd.signal(0, Signal::SIGSTOP);
    until("the page has run out", || !page.is_valid());
    // As long again as a lease, so that somebody who does not ask etcd would have taken over.
    let until_ns = since_boot_ns().unwrap() + SHORT_S * 1_000_000_000;
    until("a lease's time is over", || {
        since_boot_ns().unwrap() > until_ns
    });
    assert_eq!(right.words_so_far(), []);
    etcd.signal(0, Signal::SIGCONT);
    // Who of the two comes first is not known. There is one.
    let mut began = None;
    until("there is a primary again", || {
        began = began.take().or_else(|| right.words_so_far().pop());
        began.is_some() || page.is_valid()
    });
    if let Some(Word::Won { began_ns, .. }) = began {
        assert_over_before(&page, began_ns);
    }
}

#[test]
fn when_etcd_was_killed_and_is_back_the_primary_goes_on_in_its_term() {
    let mut etcd = Etcd::start();
    let (left, term) = left_is_primary(&etcd);
    let page = left.page();
    etcd.kill(0);
    until("the page has run out", || !page.is_valid());
    etcd.restart(0);
    until("the page is valid again", || page.is_valid());
    assert_eq!((page.term(), left.words_so_far()), (term, vec![]));
}

#[test]
fn when_the_leader_of_three_is_stopped_the_primary_goes_on_in_its_term() {
    let etcd = Etcd::with_members(3);
    let held = found(&etcd.config("left", 6));
    let leader = etcd.leader();
    etcd.signal(leader, Signal::SIGSTOP);
    let stopped_ns = since_boot_ns().unwrap();
    // Only a renewal behind the stop lets it be valid for so long.
    until("the lease was renewed by the others", || {
        held.valid_until_ns() > stopped_ns + 6_000_000_000
    });
    etcd.signal(leader, Signal::SIGCONT);
    assert!(held.is_valid() && held.why_lost().is_none());
}

#[test]
fn a_node_that_is_not_in_sync_is_refused() {
    let etcd = Etcd::start();
    found_for(&etcd, &["left"]);
    let outcome = campaigned(&etcd.config("right", HOUR_S));
    let Outcome::NotInSync(state) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(state.in_sync, ["left"]);
}

#[test]
fn a_spare_that_was_taken_out_while_it_waited_is_refused_when_the_primary_dies() {
    let etcd = Etcd::start();
    let held = found(&etcd.config("left", SHORT_S));
    held.set_in_sync(&["left", "right"]).unwrap();
    let right = right_campaigns(&etcd);
    held.set_in_sync(&["left"]).unwrap();
    drop(held);
    assert_eq!(right.word(), Word::NotInSync);
}

/// What only a request to take the next term, or to change who is in sync, has in it.
const OF_A_STATE: &str = r#""target":"MOD""#;

#[test]
fn a_spare_that_is_taken_out_while_it_takes_over_does_not() {
    let etcd = Etcd::start();
    let left = found(&etcd.config("left", HOUR_S));
    left.set_in_sync(&["left", "right"]).unwrap();
    remove_lease(&etcd);
    let (fate, come, go) = gate::held();
    let mut right = etcd.config("right", HOUR_S);
    right.endpoints = vec![gate::before(&right.endpoints[0], OF_A_STATE, fate)];
    thread::scope(|scope| {
        let taking = scope.spawn(|| campaigned(&right));
        come.recv_timeout(LONG).unwrap();
        left.set_in_sync(&["left"]).unwrap();
        go.send(()).unwrap();
        let outcome = taking.join().unwrap();
        assert!(matches!(outcome, Outcome::NotInSync(_)), "{outcome:?}");
    });
}

#[test]
fn a_primary_that_comes_back_while_a_spare_takes_over_keeps_its_term() {
    let etcd = Etcd::start();
    let (left, term) = left_is_primary(&etcd);
    let page = left.page();
    left.signal(Signal::SIGSTOP);
    until("etcd has removed the lease", || lease(&etcd).is_none());
    let (fate, come, go) = gate::held();
    let mut right = etcd.config("right", HOUR_S);
    right.endpoints = vec![gate::before(&right.endpoints[0], OF_A_STATE, fate)];
    let stop = Event::new().unwrap();
    thread::scope(|scope| {
        let taking = scope.spawn(|| campaign(&right, &stop, |_| {}).unwrap());
        come.recv_timeout(LONG).unwrap();
        left.signal(Signal::SIGCONT);
        until("the page is valid again", || page.is_valid());
        stop.set();
        go.send(()).unwrap();
        let outcome = taking.join().unwrap();
        assert!(matches!(outcome, Outcome::Stopped), "{outcome:?}");
    });
    assert_eq!((page.term(), left.words_so_far()), (term, vec![]));
    let state = Store::new(&etcd.config("left", HOUR_S)).unwrap().state();
    assert_eq!(state.unwrap().unwrap().term, term);
}

#[test]
fn a_term_that_was_taken_is_held_though_the_answer_was_lost() {
    let etcd = Etcd::start();
    found_for(&etcd, &["left"]);
    let mut config = etcd.config("left", HOUR_S);
    config.endpoints = vec![gate::before(
        &config.endpoints[0],
        OF_A_STATE,
        Fate::AnswerLost,
    )];
    let held = won(&config);
    assert_eq!((held.term(), held.began_ns()), (2, 0));
    until("it is valid", || held.is_valid());
}

#[test]
fn a_change_of_who_is_in_sync_that_was_made_is_seen_though_the_answer_was_lost() {
    let etcd = Etcd::start();
    let mut config = etcd.config("left", HOUR_S);
    config.endpoints = vec![gate::before(
        &config.endpoints[0],
        OF_A_STATE,
        Fate::AnswerLost,
    )];
    let held = found(&config);
    held.set_in_sync(&["left", "right"]).unwrap_err();
    // It is not known whether it was made.
    assert_eq!(held.in_sync(), ["left"]);
    held.set_in_sync(&["left", "right"]).unwrap();
    held.set_in_sync(&["left"]).unwrap();
    let state = Store::new(&config).unwrap().state().unwrap().unwrap();
    assert_eq!((state.term, state.in_sync), (1, vec!["left".into()]));
}

#[test]
fn a_new_primary_knows_only_itself_to_be_in_sync() {
    let etcd = Etcd::start();
    found_for(&etcd, &["left", "right", "third"]);
    let held = won(&etcd.config("right", HOUR_S));
    assert_eq!(held.in_sync(), ["right"]);
    let store = Store::new(&etcd.config("right", HOUR_S)).unwrap();
    assert_eq!(store.state().unwrap().unwrap().in_sync, ["right"]);
}

#[test]
fn who_is_in_sync_cannot_be_changed_in_a_term_that_is_over() {
    let etcd = Etcd::start();
    let left = found(&etcd.config("left", HOUR_S));
    left.set_in_sync(&["left", "right"]).unwrap();
    remove_lease(&etcd);
    let _right = won(&etcd.config("right", HOUR_S));
    let refused = left.set_in_sync(&["left"]).unwrap_err();
    assert!(
        matches!(refused, TermError::Fenced { term: 1, .. }),
        "{refused}"
    );
    assert!(!left.is_valid());
    assert!(
        first_readable(&[left.lost()], Some(Duration::ZERO))
            .unwrap()
            .is_some()
    );
}

#[test]
fn somebody_must_be_in_sync() {
    let etcd = Etcd::start();
    let held = found(&etcd.config("left", HOUR_S));
    assert!(matches!(held.set_in_sync(&[]), Err(TermError::Invalid(_))));
}

#[test]
fn who_resigns_lets_the_next_begin_before_the_lease_has_run_out() {
    let etcd = Etcd::start();
    let held = found(&etcd.config("left", HOUR_S));
    held.set_in_sync(&["left", "right"]).unwrap();
    let right = etcd.config("right", HOUR_S);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| won(&right));
        held.resign().unwrap();
        assert_eq!(waiting.join().unwrap().term(), 2);
    });
}

#[test]
fn terms_only_grow() {
    let etcd = Etcd::start();
    let mut held = found(&etcd.config("left", HOUR_S));
    let mut terms = vec![held.term()];
    for node in ["right", "left", "left", "right", "left"] {
        held.set_in_sync(&["left", "right"]).unwrap();
        held.resign().unwrap();
        held = won(&etcd.config(node, HOUR_S));
        terms.push(held.term());
    }
    assert_eq!(terms, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_campaign_that_waits_can_be_stopped() {
    let etcd = Etcd::start();
    let _held = found(&etcd.config("left", HOUR_S));
    let stop = Event::new().unwrap();
    let right = etcd.config("right", HOUR_S);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| campaign(&right, &stop, |_| {}).unwrap());
        stop.set();
        assert!(matches!(waiting.join().unwrap(), Outcome::Stopped));
    });
}

#[test]
fn who_waits_for_long_looks_again_and_has_no_trouble() {
    let etcd = Etcd::start();
    let _held = found(&etcd.config("left", HOUR_S));
    // A watch of its is kept for four seconds.
    let right = etcd.config("right", 2);
    let stop = Event::new().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| campaign(&right, &stop, |error| panic!("{error}")));
        let began_ns = since_boot_ns().unwrap();
        until("two watches are over", || {
            since_boot_ns().unwrap() > began_ns + 9_000_000_000
        });
        stop.set();
        assert!(matches!(waiting.join().unwrap(), Ok(Outcome::Stopped)));
    });
}

#[test]
fn a_campaign_without_etcd_says_why_it_waits() {
    let etcd = Etcd::start();
    let mut config = etcd.config("left", HOUR_S);
    config.endpoints = vec!["http://127.0.0.1:1".into()];
    let stop = Event::new().unwrap();
    let mut said = Vec::new();
    let outcome = campaign(&config, &stop, |error| {
        said.push(error.to_string());
        stop.set();
    });
    assert!(matches!(outcome, Ok(Outcome::Stopped)));
    assert!(
        matches!(&said[..], [why] if why.contains("http://127.0.0.1:1")),
        "{said:?}"
    );
}

#[test]
fn the_next_member_is_asked_when_one_does_not_answer() {
    let etcd = Etcd::start();
    let mut config = etcd.config("left", HOUR_S);
    config.endpoints.insert(0, "http://127.0.0.1:1".into());
    assert_eq!(found(&config).term(), 1);
}

#[test]
fn a_page_says_what_its_supervisor_knows_until_the_term_ends() {
    let etcd = Etcd::start();
    let held = found(&etcd.config("left", HOUR_S));
    let path = etcd.dir().join("LEASE");
    held.show_in(LeaseWriter::in_new_file(&path, held.term()).unwrap());
    let page = LeasePage::in_file(&path).unwrap().unwrap();
    assert_eq!(
        (page.term(), page.valid_until_ns()),
        (1, held.valid_until_ns())
    );
    assert!(page.is_valid());
    held.resign().unwrap();
    assert!(!page.is_valid());
}

#[test]
fn what_somebody_else_wrote_is_not_taken_for_a_state() {
    let etcd = Etcd::start();
    let config = etcd.config("left", HOUR_S);
    put(&etcd, "/ckpt/shop/state", "something");
    let state = Store::new(&config).unwrap().state();
    assert!(matches!(state, Err(TermError::Foreign { .. })));
}

#[test]
fn over_tls_both_sides_want_to_see_a_certificate() {
    let etcd = Etcd::with_certificates(certificates);
    let config = etcd.config("left", HOUR_S);
    assert_eq!(found(&config).term(), 1);
    let mut anonymous = config.clone();
    anonymous.tls.as_mut().unwrap().identity = None;
    let refused = Store::new(&anonymous).unwrap().state();
    assert!(matches!(refused, Err(TermError::NoAnswer(_))));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut mistaken = config;
    mistaken.tls.as_mut().unwrap().ca = certificates(elsewhere.path()).ca;
    let refused = Store::new(&mistaken).unwrap().state();
    assert!(matches!(refused, Err(TermError::NoAnswer(_))));
}

/// An authority and a certificate of its for this machine, for both sides.
fn certificates(dir: &Path) -> Certificates {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let mut subject = CertificateParams::new(["127.0.0.1".into()]).unwrap();
    // The gateway shows its certificate to etcd itself, as a client.
    subject.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = subject.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, pem: String| {
        let path = dir.join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    Certificates {
        ca: write("ca.pem", authority_certificate.pem()),
        certificate: write("certificate.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
    }
}

/// Asks etcd for something as somebody else would.
fn ask(etcd: &Etcd, what: &str, body: serde_json::Value) -> serde_json::Value {
    let url = format!("{}/v3/kv/{what}", etcd.config("left", HOUR_S).endpoints[0]);
    let mut answer = ureq::post(url).send(body.to_string()).unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

fn encoded(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

fn put(etcd: &Etcd, key: &str, value: &str) {
    let body = serde_json::json!({ "key": encoded(key), "value": encoded(value) });
    ask(etcd, "put", body);
}

/// Removes the lease key, as etcd does when it has run out: here without waiting for that.
fn remove_lease(etcd: &Etcd) {
    ask(
        etcd,
        "deleterange",
        serde_json::json!({ "key": encoded("/ckpt/shop/lease") }),
    );
}

/// The lease key, if it is there.
fn lease(etcd: &Etcd) -> Option<serde_json::Value> {
    let body = serde_json::json!({ "key": encoded("/ckpt/shop/lease") });
    ask(etcd, "range", body)["kvs"].get(0).cloned()
}
