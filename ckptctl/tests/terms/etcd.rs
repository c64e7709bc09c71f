// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An etcd of the test's own, on ports and in a directory of its own.

use std::fs;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::term::Config;
use crate::term::Store;
use crate::term::Tls;

/// How long anything may take before a test says that it does not happen.
pub const LONG: Duration = Duration::from_secs(90);

/// Looks again and again until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A cluster.
pub struct Etcd {
    members: Vec<Member>,
    tls: Option<Certificates>,
    dir: TempDir,
}

struct Member {
    arguments: Vec<String>,
    client_port: u16,
    log: PathBuf,
    child: Option<Child>,
}

/// What a cluster and its clients show each other.
pub struct Certificates {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Etcd {
    /// One member.
    pub fn start() -> Etcd {
        Etcd::with(1, None)
    }

    /// A cluster of so many members.
    pub fn with_members(count: usize) -> Etcd {
        Etcd::with(count, None)
    }

    /// One member that wants to see certificates, made by `make` in a directory.
    pub fn with_certificates(make: fn(&Path) -> Certificates) -> Etcd {
        Etcd::with(1, Some(make))
    }

    fn with(count: usize, make: Option<fn(&Path) -> Certificates>) -> Etcd {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("room for a test");
        let mut etcd = Etcd {
            members: Vec::new(),
            tls: make.map(|make| make(dir.path())),
            dir,
        };
        for _ in 0..5 {
            etcd.members = members(count, etcd.dir.path(), etcd.tls.as_ref());
            for member in &mut etcd.members {
                member.spawn();
            }
            if etcd.answers() {
                return etcd;
            }
            for member in &mut etcd.members {
                member.kill();
                eprintln!("{}", fs::read_to_string(&member.log).unwrap_or_default());
            }
        }
        panic!("etcd does not start, see above");
    }

    /// Whether it comes to answer; not if a member ends, because somebody else has its port.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + LONG;
        let store = Store::new(&self.config("left", 10)).unwrap();
        while Instant::now() < deadline {
            if self.members.iter_mut().any(Member::has_ended) {
                return false;
            }
            if store.state().is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn endpoints(&self, scheme: &str) -> Vec<String> {
        let ports = self.members.iter().map(|member| member.client_port);
        ports
            .map(|port| format!("{scheme}://127.0.0.1:{port}"))
            .collect()
    }

    /// A configuration of a node of the service `shop`.
    pub fn config(&self, node: &str, ttl_s: u64) -> Config {
        let tls = self.tls.as_ref().map(|tls| Tls {
            ca: tls.ca.clone(),
            identity: Some((tls.certificate.clone(), tls.key.clone())),
        });
        Config {
            endpoints: self.endpoints(if tls.is_some() { "https" } else { "http" }),
            service: "shop".into(),
            node: node.into(),
            ttl: Duration::from_secs(ttl_s),
            tls,
        }
    }

    /// The directory of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Which member leads.
    pub fn leader(&self) -> usize {
        let mut leader = None;
        until("the cluster has a leader", || {
            leader = self
                .endpoints("http")
                .iter()
                .position(|endpoint| leads(endpoint).unwrap_or(false));
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Sends a signal to a member.
    pub fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].child.as_ref().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// Kills a member.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member that was killed.
    pub fn restart(&mut self, member: usize) {
        self.members[member].spawn();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
    }
}

/// Whether the member behind an address says that it leads.
fn leads(endpoint: &str) -> Option<bool> {
    let mut answer = ureq::post(format!("{endpoint}/v3/maintenance/status"))
        .config()
        .timeout_global(Some(Duration::from_millis(500)))
        .proxy(None)
        .build()
        .send("{}")
        .ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(status["leader"] == status["header"]["member_id"])
}

fn members(count: usize, dir: &Path, tls: Option<&Certificates>) -> Vec<Member> {
    let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
    let cluster: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}"))
        .collect();
    let cluster = cluster.join(",");
    let member = |(i, &(client_port, peer)): (usize, &(u16, u16))| {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer}");
        // A directory for each try: nothing of one that failed is found.
        let data = dir.join(format!("{client_port}"));
        let mut arguments: Vec<String> = [
            ("name", format!("m{i}")),
            ("data-dir", data.display().to_string()),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer),
            ("initial-cluster", cluster.clone()),
            ("heartbeat-interval", "50".into()),
            ("election-timeout", "500".into()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value])
        .collect();
        if let Some(tls) = tls {
            arguments.push("--client-cert-auth".into());
            for (name, path) in [
                ("trusted-ca-file", &tls.ca),
                ("cert-file", &tls.certificate),
                ("key-file", &tls.key),
            ] {
                arguments.extend([format!("--{name}"), path.display().to_string()]);
            }
        }
        Member {
            arguments,
            client_port,
            log: dir.join(format!("{client_port}.log")),
            child: None,
        }
    };
    ports.iter().enumerate().map(member).collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Member {
    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.unwrap();
        let mut command = Command::new("etcd");
        command
            .args(&self.arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // SAFETY: The closure makes one system call and nothing else.
        unsafe { command.pre_exec(end_with_the_test) };
        self.child = match command.spawn() {
            Ok(child) => Some(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
                "there is no etcd on this machine: apt-get install etcd-server, or scripts/host-setup.sh test"
            ),
            Err(error) => panic!("etcd: {error}"),
        };
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().unwrap();
        child.try_wait().unwrap().is_some()
    }
}

/// Lets a child be killed when the thread that started it ends, however it does.
pub fn end_with_the_test() -> io::Result<()> {
    // SAFETY: No pointer is handed over.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
