// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl pki`: what it makes can be used, and what it must not touch it does not.

mod authority;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use authority::Authority;
use authority::Wish;
use authority::set_mode;
use ckptctl::replication::Credentials;
use ckptctl::replication::Link;
use ckptctl::replication::Security;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

/// A directory to make authorities in.
struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        Place { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Runs `ckptctl pki` there, with nothing taken from what is made by the umask.
    fn pki(&self, arguments: &[&str]) -> Output {
        Command::new("sh")
            .args(["-c", "umask 0; exec \"$0\" pki \"$@\""])
            .arg(env!("CARGO_BIN_EXE_ckptctl"))
            .args(arguments)
            .current_dir(self.temp.path())
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.pki(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is said about something that fails.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.pki(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// With an authority and a node.
    fn with_east() -> Place {
        let place = Place::new();
        place.done(&["init", "pki"]);
        let address = ["--address", "127.0.0.1", "--address", "east.example.com"];
        place.done(&[&["issue", "pki", "east", "--service", "kv"], &address[..]].concat());
        place
    }

    /// All files below, hidden ones as well, with their contents.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.temp.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => drop(files.insert(path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        files
    }

    fn shown(&self, path: &str) -> Vec<Value> {
        let output = self.pki(&["show", path, "--json"]);
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        shown["certificates"].as_array().unwrap().clone()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_issued_lets_two_nodes_link() {
    let place = Place::with_east();
    place.done(&["issue", "pki", "west", "--service", "kv", "--service", "q"]);
    let security = |node| Security::Tls(Credentials::load(&place.path("pki").join(node)).unwrap());
    let (east, west) = (security("east"), security("west"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let long = Duration::from_secs(60);
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let link = Link::accept(listener.accept().unwrap().0, &east, long).unwrap();
            link.peer().cloned().unwrap()
        });
        let link = Link::connect(&address, &west, long).unwrap();
        assert_eq!(link.peer().unwrap().node, "east");
        let west = accepted.join().unwrap();
        assert_eq!(west.node, "west");
        assert!(west.may("kv") && west.may("q") && !west.may("other"));
    });
}

#[test]
fn keys_and_directories_are_for_their_owner_whatever_the_umask() {
    let place = Place::with_east();
    for (name, expected) in [
        ("pki", 0o700),
        ("pki/ca-key.pem", 0o600),
        ("pki/ca.pem", 0o644),
        ("pki/east", 0o700),
        ("pki/east/key.pem", 0o600),
        ("pki/east/cert.pem", 0o644),
    ] {
        assert_eq!(mode(&place.path(name)), expected, "{name}");
    }
}

#[test]
fn an_authority_takes_the_place_of_nothing() {
    let place = Place::with_east();
    let before = place.files();
    let said = place.refused(&["init", "pki"]);
    assert!(said.contains("pki is there already"), "{said}");
    assert!(place.files() == before, "nothing is changed or left");
}

#[test]
fn an_authority_fills_an_empty_directory() {
    let place = Place::new();
    fs::create_dir(place.path("pki")).unwrap();
    place.done(&["init", "pki"]);
    assert_eq!(mode(&place.path("pki")), 0o700);
}

#[test]
fn two_authorities_of_one_name_can_be_told_apart() {
    let place = Place::new();
    for dir in ["one", "two"] {
        place.done(&["init", dir, "--name", "production"]);
    }
    let names = ["one", "two"].map(|dir| place.shown(dir)[0]["name"].as_str().unwrap().to_owned());
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.starts_with("production ")));
}

#[test]
fn a_node_takes_the_place_of_nothing_unless_told_so() {
    let place = Place::with_east();
    let before = place.files();
    let said = place.refused(&["issue", "pki", "east", "--service", "kv"]);
    assert!(
        said.contains("renew what is in it with --replace"),
        "{said}"
    );
    assert!(place.files() == before, "nothing is changed or left");
}

#[test]
fn a_renewed_node_has_another_key_and_is_the_same_node() {
    let place = Place::with_east();
    let before = place.files();
    let old = &place.shown("pki/east/cert.pem")[0];
    place.done(&["issue", "pki", "east", "--replace", "--days", "20"]);
    let new = &place.shown("pki/east/cert.pem")[0];
    for same in ["name", "services", "reached_by", "issuer"] {
        assert_eq!(old[same], new[same]);
    }
    assert_ne!(old["sha256"], new["sha256"]);
    assert!(new["not_after_ns"].as_u64() < old["not_after_ns"].as_u64());
    let after = place.files();
    assert!(before.keys().eq(after.keys()), "nothing is left");
    let key = place.path("pki/east/key.pem");
    assert_ne!(before[&key], after[&key]);
    assert_eq!(mode(&key), 0o600);
    Credentials::load(&place.path("pki/east")).unwrap();
}

#[test]
fn a_renewed_node_has_the_services_and_addresses_that_are_given() {
    let place = Place::with_east();
    let given = ["--service", "queue", "--address", "10.0.0.9"];
    place.done(&[&["issue", "pki", "east", "--replace"], &given[..]].concat());
    let new = &place.shown("pki/east/cert.pem")[0];
    assert_eq!(new["services"], serde_json::json!(["queue"]));
    assert_eq!(new["reached_by"], serde_json::json!(["10.0.0.9"]));
}

#[test]
fn another_nodes_certificate_is_not_renewed_by_mistake() {
    let place = Place::with_east();
    let before = place.files();
    let said = place.refused(&["issue", "pki", "west", "--replace", "--out", "pki/east"]);
    assert!(said.contains("is that of east, not of west"), "{said}");
    assert!(place.files() == before);
}

#[test]
fn a_first_certificate_needs_services_also_with_replace() {
    let place = Place::with_east();
    let said = place.refused(&["issue", "pki", "west", "--replace"]);
    assert!(said.contains("name them with --service"), "{said}");
    place.done(&["issue", "pki", "west", "--replace", "--service", "kv"]);
}

#[test]
fn a_certificate_ends_with_its_authority() {
    let place = Place::new();
    place.done(&["init", "pki", "--days", "10"]);
    let output = place.pki(&["issue", "pki", "east", "--service", "kv", "--days", "99"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("ends with its authority"), "{said}");
    let shown = place.shown("pki");
    assert_eq!(shown[0]["not_after_ns"], shown[1]["not_after_ns"]);
    assert!(place.done(&["show", "pki"]).contains("ends in 9 days"));
}

#[test]
fn an_authority_that_others_could_use_signs_nothing() {
    let place = Place::with_east();
    let issue = ["issue", "pki", "west", "--service", "kv"];
    set_mode(&place.path("pki/ca-key.pem"), 0o644);
    assert!(place.refused(&issue).contains("chmod 600 pki/ca-key.pem"));
    set_mode(&place.path("pki/ca-key.pem"), 0o600);
    set_mode(&place.path("pki"), 0o777);
    assert!(place.refused(&issue).contains("chmod go-w pki"));
    assert!(!place.path("pki/west").exists());
}

#[test]
fn an_authority_with_the_key_of_another_signs_nothing() {
    let place = Place::new();
    place.done(&["init", "one"]);
    place.done(&["init", "two"]);
    fs::copy(place.path("two/ca-key.pem"), place.path("one/ca-key.pem")).unwrap();
    let said = place.refused(&["issue", "one", "east", "--service", "kv"]);
    assert!(
        said.contains("one/ca-key.pem is not the key of one/ca.pem"),
        "{said}"
    );
    assert!(
        place
            .refused(&["show", "one"])
            .contains("is not the key of")
    );
}

#[test]
fn what_is_no_authority_is_named() {
    let place = Place::with_east();
    for (dir, words) in [
        ("nowhere", "no ca.pem in nowhere"),
        ("pki/east", "ca-key.pem"),
    ] {
        let said = place.refused(&["issue", dir, "west", "--service", "kv"]);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn an_authoritys_directory_is_shown_with_its_nodes() {
    let place = Place::with_east();
    place.done(&["issue", "pki", "west", "--service", "kv"]);
    let table = place.done(&["show", "pki"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(
        rows[2][..4],
        [
            "pki/east/cert.pem",
            "east",
            "kv",
            "east.example.com,127.0.0.1"
        ]
    );
    assert_eq!(rows[3][..4], ["pki/west/cert.pem", "west", "kv", "-"]);
}

#[test]
fn a_fingerprint_is_the_hash_of_the_certificate() {
    let place = Place::with_east();
    let der = CertificateDer::from_pem_file(place.path("pki/east/cert.pem")).unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, &der);
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap();
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    let hash: String = hash.as_ref().iter().flat_map(digits).collect();
    assert_eq!(place.shown("pki/east/cert.pem")[0]["sha256"], *hash);
    assert!(place.done(&["show", "pki"]).contains(&hash));
}

#[test]
fn what_the_node_would_refuse_is_wrong_and_said_with_the_remedy() {
    let place = Place::with_east();
    set_mode(&place.path("pki/east/key.pem"), 0o640);
    let said = place.refused(&["show", "pki"]);
    assert!(said.contains("chmod 600 pki/east/key.pem"), "{said}");
    assert!(
        place.shown("pki/east")[1]["wrong"][0]
            .as_str()
            .unwrap()
            .contains("chmod 600")
    );
}

#[test]
fn a_certificate_of_another_authority_is_wrong_in_a_directory() {
    let place = Place::with_east();
    place.done(&["init", "other"]);
    fs::copy(place.path("other/ca.pem"), place.path("pki/east/ca.pem")).unwrap();
    let said = place.refused(&["show", "pki/east"]);
    assert!(
        said.contains("is of another installation's authority"),
        "{said}"
    );
}

#[test]
fn what_has_expired_is_wrong_as_a_file_and_in_a_directory() {
    let place = Place::new();
    let expired = Wish {
        since_days: 20,
        until_days: -3,
        ..Wish::default()
    };
    Authority::new("ours").issue(&place.path("east"), &expired);
    for path in ["east", "east/cert.pem"] {
        let said = place.refused(&["show", path]);
        assert!(said.contains("has expired 3 days ago: renew it"), "{said}");
        assert_eq!(said.lines().count(), 1, "once");
    }
}

#[test]
fn a_certificate_from_elsewhere_is_shown_by_what_it_says() {
    let place = Place::new();
    let wish = Wish {
        names: &["db-1.example.com", "db-1"],
        services: &["kv", "not a service"],
        ..Wish::default()
    };
    Authority::new("theirs").issue(&place.path("east"), &wish);
    let shown = &place.shown("east/cert.pem")[0];
    assert_eq!(shown["name"], "db-1.example.com");
    assert_eq!(shown["services"], serde_json::json!(["kv"]));
    assert_eq!(
        shown["reached_by"],
        serde_json::json!(["db-1", "127.0.0.1"])
    );
    let in_29_days = SystemTime::now() + Duration::from_secs(29 * 24 * 3600);
    let in_29_days = in_29_days.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(shown["not_after_ns"].as_u64().unwrap() > in_29_days.as_nanos() as u64);
}

#[test]
fn what_is_no_certificate_is_said_to_be_none() {
    let place = Place::with_east();
    for path in ["pki/ca-key.pem", "pki/east/key.pem"] {
        let said = place.refused(&["show", path]);
        assert!(said.contains("holds no certificate in PEM"), "{said}");
    }
    fs::create_dir(place.path("empty")).unwrap();
    assert!(
        place
            .refused(&["show", "empty"])
            .contains("no certificates in empty")
    );
}
