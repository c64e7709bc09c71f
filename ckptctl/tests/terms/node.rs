// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A node in a process of its own, which can be stopped and killed: this program again, told by its
//! environment what to do.

use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use ckptctl::sys::event::Event;
use ckptctl::sys::event::first_readable;
use ckptctl::sys::lease_page;
use ckptctl::sys::lease_page::LeasePage;
use ckptctl::sys::lease_page::LeaseWriter;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::etcd::Etcd;
use super::etcd::LONG;
use super::etcd::end_with_the_test;
use crate::term::Config;
use crate::term::Outcome;
use crate::term::campaign;

const NODE: &str = "CKPT_TEST_NODE";
const ETCD: &str = "CKPT_TEST_ETCD";
const TTL: &str = "CKPT_TEST_TTL";
const DIR: &str = "CKPT_TEST_DIR";
const IN_SYNC: &str = "CKPT_TEST_IN_SYNC";

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It begins to campaign.
    Campaigns,
    /// A term is its.
    Won {
        /// Which.
        term: u64,
        /// As `Held::began_ns`.
        began_ns: u64,
    },
    /// It may not be the primary.
    NotInSync,
    /// Its term is over.
    Lost,
}

/// A process that campaigns for the service `shop`.
pub struct Node {
    child: Child,
    _stdin: ChildStdin,
    words: Receiver<Word>,
    page: PathBuf,
}

impl Node {
    /// Starts it. In a term of its own it makes these nodes be in sync.
    pub fn start(etcd: &Etcd, name: &str, ttl_s: u64, in_sync: &[&str]) -> Node {
        let dir = etcd.dir().join(name);
        fs::create_dir(&dir).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "node_process",
                "--nocapture",
                "--include-ignored",
            ])
            .env(NODE, name)
            .env(ETCD, etcd.config(name, ttl_s).endpoints.join(" "))
            .env(TTL, ttl_s.to_string())
            .env(DIR, &dir)
            .env(IN_SYNC, in_sync.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: The closure makes one system call and nothing else.
        unsafe { command.pre_exec(end_with_the_test) };
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (told, words) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(word) = read(&line) {
                    let _ = told.send(word);
                }
            }
        });
        Node {
            _stdin: child.stdin.take().unwrap(),
            child,
            words,
            page: dir.join(lease_page::FILE_NAME),
        }
    }

    /// The next that it says.
    pub fn word(&self) -> Word {
        self.words
            .recv_timeout(LONG)
            .expect("the node says nothing more")
    }

    /// What it has said since, without waiting.
    pub fn words_so_far(&self) -> Vec<Word> {
        self.words.try_iter().collect()
    }

    /// Its term's number and beginning.
    pub fn wins(&self) -> (u64, u64) {
        match self.word() {
            Word::Won { term, began_ns } => (term, began_ns),
            other => panic!("{other:?} instead of a term"),
        }
    }

    /// Its page, once it has won.
    pub fn page(&self) -> LeasePage {
        LeasePage::in_file(&self.page).unwrap().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(line: &str) -> Option<Word> {
    // The test harness puts words of its own before the first.
    let words: Vec<&str> = line.split_once('@')?.1.split(' ').collect();
    match words[..] {
        ["campaigns"] => Some(Word::Campaigns),
        ["won", term, began_ns] => Some(Word::Won {
            term: term.parse().unwrap(),
            began_ns: began_ns.parse().unwrap(),
        }),
        ["not-in-sync"] => Some(Word::NotInSync),
        ["lost"] => Some(Word::Lost),
        _ => panic!("{line}"),
    }
}

/// What the process does.
pub fn run() {
    let (Ok(node), Some(dir)) = (env::var(NODE), env::var_os(DIR)) else {
        return;
    };
    let config = Config {
        endpoints: env::var(ETCD)
            .unwrap()
            .split(' ')
            .map(String::from)
            .collect(),
        service: "shop".into(),
        node,
        ttl: Duration::from_secs(env::var(TTL).unwrap().parse().unwrap()),
        tls: None,
    };
    let never = Event::new().unwrap();
    println!("@campaigns");
    match campaign(&config, &never, |error| eprintln!("{error}")).unwrap() {
        Outcome::Won(held) => {
            let page = Path::new(&dir).join(lease_page::FILE_NAME);
            held.show_in(LeaseWriter::in_new_file(&page, held.term()).unwrap());
            let in_sync = env::var(IN_SYNC).unwrap();
            let in_sync: Vec<&str> = in_sync.split(' ').collect();
            held.set_in_sync(&in_sync).unwrap();
            println!("@won {} {}", held.term(), held.began_ns());
            first_readable(&[held.lost()], None).unwrap();
            assert!(!held.is_valid() && held.why_lost().is_some());
            println!("@lost");
        }
        Outcome::NotInSync(_) => println!("@not-in-sync"),
        Outcome::Stopped => unreachable!("nobody stops it"),
    }
}
