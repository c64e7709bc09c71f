// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which directories are accepted as a node's credentials, and what is said of the others.
#![cfg(feature = "replication")]

mod authority;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use authority::Authority;
use authority::Wish;
use authority::put;
use authority::set_mode;
use ckptctl::replication::Credentials;
use ckptctl::replication::CredentialsError;
use ckptctl::replication::credentials::Flaw;
use ckptctl::replication::credentials::PrivacyError;

/// A directory of credentials, after something was done to it.
fn loaded(
    wish: &Wish<'_>,
    damage: impl FnOnce(&Path),
) -> (tempfile::TempDir, Result<Credentials, CredentialsError>) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("east");
    Authority::new("ours").issue(&dir, wish);
    damage(&dir);
    let credentials = Credentials::load(&dir);
    (temp, credentials)
}

fn refused(damage: impl FnOnce(&Path)) -> CredentialsError {
    loaded(&Wish::default(), damage).1.unwrap_err()
}

#[test]
fn a_certificate_tells_node_services_and_end() {
    let wish = Wish {
        names: &["east", "east.example.com"],
        services: &["kv", "queue"],
        ..Wish::default()
    };
    let (_temp, credentials) = loaded(&wish, |_| {});
    let credentials = credentials.unwrap();
    assert_eq!(credentials.own().node, "east");
    assert_eq!(credentials.own().services, ["kv", "queue"]);
    let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 24 * 3600);
    assert!(credentials.expires() > in_days(29) && credentials.expires() < in_days(31));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let error = refused(|dir| set_mode(&dir.join("key.pem"), 0o640));
    let said = error.to_string();
    assert!(said.contains("has mode 0640, and others can read it: chmod 600"));
    assert!(said.ends_with("/east/key.pem"), "{said}");
}

#[test]
fn an_authority_that_others_can_write_is_refused() {
    let error = refused(|dir| set_mode(&dir.join("ca.pem"), 0o664));
    assert!(
        error
            .to_string()
            .contains("others can change it: chmod go-w")
    );
}

#[test]
fn an_authority_that_others_can_read_will_do() {
    let (_temp, credentials) = loaded(&Wish::default(), |dir| {
        set_mode(&dir.join("ca.pem"), 0o644);
        set_mode(dir, 0o755);
    });
    credentials.unwrap();
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let error = refused(|dir| set_mode(dir, 0o777));
    assert!(
        error
            .to_string()
            .contains("others can change it: chmod go-w")
    );
}

#[test]
fn a_key_that_belongs_to_somebody_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let error = refused(|dir| {
        let nobody = Some(nix::unistd::Uid::from_raw(65534));
        nix::unistd::chown(&dir.join("key.pem"), nobody, None).unwrap();
    });
    assert!(matches!(
        error,
        CredentialsError::Privacy(PrivacyError::Owner { .. })
    ));
}

#[test]
fn a_pipe_in_place_of_a_key_is_refused_without_waiting() {
    let error = refused(|dir| {
        let key = dir.join("key.pem");
        fs::remove_file(&key).unwrap();
        nix::unistd::mkfifo(&key, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    });
    assert!(matches!(
        error,
        CredentialsError::Privacy(PrivacyError::Kind { .. })
    ));
}

#[test]
fn a_link_to_a_key_is_judged_by_the_key() {
    let beside = |dir: &Path, mode| {
        let real = dir.join("real.pem");
        fs::rename(dir.join("key.pem"), &real).unwrap();
        set_mode(&real, mode);
        symlink("real.pem", dir.join("key.pem")).unwrap();
    };
    loaded(&Wish::default(), |dir| beside(dir, 0o400))
        .1
        .unwrap();
    let error = refused(|dir| beside(dir, 0o604));
    assert!(error.to_string().contains("others can read it"));
}

#[test]
fn a_file_that_is_missing_is_named_with_what_makes_it() {
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        let said = refused(|dir| fs::remove_file(dir.join(file)).unwrap()).to_string();
        assert!(said.starts_with(&format!("no {file} in ")), "{said}");
        assert!(said.contains("`ckptctl pki issue`"), "{said}");
    }
}

#[test]
fn a_directory_that_is_none_is_named() {
    let error = Credentials::load(Path::new("/proc/self/status")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/proc/self/status is no directory")
    );
}

#[test]
fn an_expired_certificate_is_refused_with_how_long_ago() {
    let wish = Wish {
        since_days: 20,
        until_days: -3,
        ..Wish::default()
    };
    let said = loaded(&wish, |_| {}).1.unwrap_err().to_string();
    assert!(
        said.contains("has expired 3 days ago: renew it by"),
        "{said}"
    );
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    let wish = Wish {
        since_days: -2,
        ..Wish::default()
    };
    let said = loaded(&wish, |_| {}).1.unwrap_err().to_string();
    assert!(said.contains("is not valid yet, but in 1 day"), "{said}");
}

#[test]
fn a_certificate_of_another_authority_is_refused_also_when_that_has_the_same_name() {
    for name in ["theirs", "ours"] {
        let error = refused(|dir| {
            fs::write(dir.join("ca.pem"), Authority::new(name).pem).unwrap();
        });
        assert!(matches!(
            error,
            CredentialsError::Certificate {
                flaw: Flaw::Authority,
                ..
            }
        ));
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let error = refused(|dir| {
        let other = Authority::new("ours").sign(&Wish::default());
        fs::write(dir.join("key.pem"), other.key_pem).unwrap();
    });
    assert!(matches!(error, CredentialsError::Pair { .. }), "{error}");
}

#[test]
fn a_certificate_without_a_nodes_name_is_refused() {
    for names in [&[][..], &["*.example.com"]] {
        let wish = Wish {
            names,
            ..Wish::default()
        };
        let error = loaded(&wish, |_| {}).1.unwrap_err();
        assert!(matches!(
            error,
            CredentialsError::Certificate {
                flaw: Flaw::Nameless,
                ..
            }
        ));
    }
}

#[test]
fn files_that_hold_something_else_are_named() {
    for (file, content) in [
        ("ca.pem", "nothing"),
        ("cert.pem", ""),
        (
            "key.pem",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA"),
    ] {
        let error = refused(|dir| fs::write(dir.join(file), content).unwrap());
        match error {
            CredentialsError::Content { path, .. } => assert!(path.ends_with(file)),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn two_authorities_are_trusted_while_one_takes_the_place_of_the_other() {
    let temp = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.pem, new.pem);
    for authority in [&old, &new] {
        put(temp.path(), &both, &authority.sign(&Wish::default()));
        Credentials::load(temp.path()).unwrap();
    }
}

#[test]
fn neither_key_nor_certificate_is_shown_by_accident() {
    let (_temp, credentials) = loaded(&Wish::default(), |_| {});
    let shown = format!("{:?}", credentials.unwrap());
    assert!(shown.contains("east") && !shown.to_lowercase().contains("key"));
}
