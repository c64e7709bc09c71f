// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Claims about spares that take over on a host with the module, between processes of one host:
//! `tests/guest.d/48-spare` tries them in the test VM.

use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Lines;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use ckptctl::options::TAKEOVER_GAP;
use ckptctl::store::SPARE_NAME;
use ckptctl::sys::abi::ckpt_info;
use ckptctl::sys::device;
use ckptctl::sys::device::Device;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

use super::claims::Claim;
use super::spared;

/// Those that need the module.
pub const MODULE: &[Claim] = &[
    (
        "a_spare_goes_on_in_its_own_arena_whatever_the_size",
        goes_on,
    ),
    ("who_took_over_commits_dies_and_is_replicated", is_a_program),
    ("the_arena_of_a_spare_follows_its_primary", follows),
    (
        "a_program_that_moves_goes_on_in_the_arena_that_waits",
        moves,
    ),
];

/// Those that want to be prepared by who runs them: the spare can have no arena.
pub const WITHOUT: &[Claim] = &[
    ("a_spare_without_room_takes_over_from_its_chain", no_room),
    (
        "a_spare_without_the_module_takes_over_from_its_chain",
        no_module,
    ),
];

/// Sizes of state in MiB, with blanks between them.
const SIZES: &str = "CKPT_TEST_SPARED_MIB";

/// The service: what the spare's arena is called.
const SERVICE: &str = "kept";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// `ckptctl` with a program under it.
struct Tool {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    /// What it says.
    words: PathBuf,
    store: PathBuf,
}

impl Tool {
    /// `arguments` stand before the program. What is in `store` is its chain.
    fn start(store: PathBuf, mib: u64, arguments: &[&str]) -> Tool {
        let words = store.with_extension("words");
        let mut child = Command::new("ckptctl")
            .args(arguments)
            .arg("--store")
            .arg(&store)
            .args(["--plain", "--service", SERVICE, "--"])
            .arg(env::current_exe().unwrap())
            .args(env::args_os().skip(1))
            .env(spared::LIFE, mib.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&words).unwrap())
            .spawn()
            .unwrap();
        Tool {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            words,
            store,
        }
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.words).unwrap()
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// The numbers of the next line.
    fn hear<const N: usize>(&mut self) -> [u64; N] {
        let Some(line) = self.stdout.next() else {
            panic!("{} ended: {}", self.store.display(), self.words())
        };
        let line = line.unwrap();
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Its epoch and its number.
    fn ask(&mut self, what: &str) -> [u64; 2] {
        self.tell(what);
        self.hear()
    }

    fn end(mut self) {
        self.tell("end");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}", self.words());
    }

    /// As when its host goes: the program and who looks after it.
    fn lose(mut self, pid: u64) {
        self.child.kill().unwrap();
        // It may be gone with the tool.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        self.child.wait().unwrap();
    }
}

/// Also when a claim fails.
impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A spare, before it takes over.
struct Spare {
    tool: Tool,
    address: String,
}

impl Spare {
    fn start(store: PathBuf, mib: u64, arguments: &[&str]) -> Spare {
        let spare = ["spare", "--listen", "127.0.0.1:0", "--node", "there"];
        let tool = Tool::start(store, mib, &[&spare, arguments].concat());
        let address = until(|| {
            let words = tool.words();
            let (_, behind) = words.split_once(" on 127.0.0.1:")?;
            let (port, _) = behind.split_once(',')?;
            Some(format!("127.0.0.1:{port}"))
        });
        Spare { tool, address }
    }

    fn status(&self) -> Value {
        let mut stream = UnixStream::connect(self.tool.store.join(SPARE_NAME)).unwrap();
        writeln!(stream, "status").unwrap();
        serde_json::from_reader(stream).unwrap()
    }

    /// Waits until something of its status is what it shall be.
    fn wait(&self, what: &str, shall_be: &Value) -> Value {
        until(|| {
            let status = self.status();
            assert!(
                what == "no_arena" || status["no_arena"].is_null(),
                "{status}"
            );
            let is = &status[what];
            let reached = match (is.as_u64(), shall_be.as_u64()) {
                (Some(is), Some(least)) => is >= least,
                _ => is == shall_be,
            };
            reached.then_some(status)
        })
    }

    /// Has it take over, when it has noticed that its primary is gone; the program.
    fn promote(self) -> Tool {
        self.wait_alone();
        let done = tool(&["promote"]).arg(&self.tool.store).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        self.tool
    }

    fn wait_alone(&self) {
        until(|| self.status()["primary"].is_null().then_some(()));
    }
}

fn until<T>(look: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(LOOK);
    }
}

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new("ckptctl");
    command.args(arguments);
    command
}

fn primary(dir: &Path, mib: u64, spare: &Spare, arguments: &[&str]) -> Tool {
    let sent = ["run", "--replicate-to", &spare.address, "--node", "here"];
    Tool::start(dir.join("here"), mib, &[&sent, arguments].concat())
}

fn sizes() -> Vec<u64> {
    let sizes = env::var(SIZES).unwrap_or("16".into());
    sizes.split(' ').map(|mib| mib.parse().unwrap()).collect()
}

/// Arenas by name.
fn arenas(name: &str) -> Vec<ckpt_info> {
    let mut all = Device::open().unwrap().list().unwrap();
    all.retain(|info| device::text(&info.name) == name);
    all
}

/// The one arena of the service.
fn kept() -> ckpt_info {
    let all = arenas(SERVICE);
    assert_eq!(all.len(), 1);
    all[0]
}

/// How many pages were put back, each time that the program of these words went on.
fn put_back(words: &str) -> Vec<u64> {
    assert!(!words.contains("restored from its chain"), "{words}");
    let lines = words.lines().filter(|line| line.contains("put back in"));
    lines
        .map(|line| {
            let (_, behind) = line.rsplit_once(", ").unwrap();
            let (count, _) = behind.split_once(' ').unwrap();
            count.parse().unwrap()
        })
        .collect()
}

/// For people: how long it took.
fn tell_figures(mib: u64, words: &str) {
    for line in words.lines().filter(|line| line.contains("going on")) {
        println!("# {mib} MiB: {line}");
    }
}

fn goes_on(dir: &Path) {
    if env::var_os(spared::LIFE).is_some() {
        return spared::obey();
    }
    for mib in sizes() {
        let dir = dir.join(mib.to_string());
        fs::create_dir(&dir).unwrap();
        let spare = Spare::start(dir.join("there"), mib, &[]);
        let mut primary = primary(&dir, mib, &spare, &[]);
        let [_, 1, 0, pid] = primary.hear() else {
            panic!("it does not begin")
        };
        let [epoch, number] = primary.ask("commit 6");
        spare.wait("applied", &epoch.into());
        primary.ask("scribble");
        primary.lose(pid);
        let mut program = spare.promote();
        let [from, at, takeovers, pid] = program.hear();
        assert_eq!((from, at, takeovers), (epoch, number, 1));
        let info = kept();
        assert_eq!(info.pid as u64, pid, "the arena names another");
        let words = program.words();
        tell_figures(mib, &words);
        let pages = put_back(&words);
        assert!(pages.len() == 1 && pages[0] < 10, "{words}");
        let waits = ["commit", SERVICE, "--wait", "--timeout", "300s"];
        let mut waits = tool(&waits).stdout(Stdio::null()).spawn().unwrap();
        let [epoch, _] = program.ask("when-asked");
        assert!(waits.wait().unwrap().success());
        assert!(epoch > TAKEOVER_GAP, "epoch {epoch}");
        program.end();
        fs::remove_dir_all(&dir).unwrap();
    }
}

fn is_a_program(dir: &Path) {
    if env::var_os(spared::LIFE).is_some() {
        return spared::obey();
    }
    let second = Spare::start(dir.join("second"), 4, &[]);
    let arguments = [
        "--restart",
        "on-failure",
        "--warm",
        "--backoff",
        "0s",
        "--wait-for",
        "replicated",
        "--replicate-to",
        &second.address,
    ];
    let first = Spare::start(dir.join("there"), 4, &arguments);
    let mut primary = primary(dir, 4, &first, &[]);
    let [_, _, _, pid] = primary.hear();
    let [epoch, number] = primary.ask("commit 3");
    first.wait("applied", &epoch.into());
    primary.lose(pid);
    let mut program = first.promote();
    let [_, at, 1, pid] = program.hear() else {
        panic!("its hook ran another number of times")
    };
    assert_eq!(at, number);

    let shown = tool(&["ps", "--json"]).output().unwrap().stdout;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    let arenas = shown["arenas"].as_array().unwrap();
    let its = arenas.iter().find(|arena| arena["pid"] == pid).unwrap();
    assert_eq!(
        (&its["name"], &its["kept"]),
        (&SERVICE.into(), &true.into())
    );
    let its = its["id"].to_string();

    // It is asked for a commit as any program is.
    for target in [its.clone(), program.store.to_str().unwrap().to_owned()] {
        let waits = ["commit", &target, "--wait=replicated", "--timeout", "300s"];
        let mut waits = tool(&waits).stdout(Stdio::null()).spawn().unwrap();
        program.ask("when-asked");
        assert!(waits.wait().unwrap().success());
    }

    // It says nothing that its own spare does not have.
    let [epoch, number] = program.ask("say");
    let has = second.status();
    assert!(has["epoch"].as_u64().unwrap() >= epoch, "{has} {epoch}");

    program.ask("scribble");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let [from, at, takeovers, pid] = program.hear();
    assert_eq!((from, at, takeovers), (epoch, number, 0));
    let info = Device::open().unwrap().list().unwrap();
    let info = info.iter().find(|info| info.id.to_string() == its).unwrap();
    assert_eq!(info.pid as u64, pid, "the arena names another");
    let words = program.words();
    let pages = put_back(&words);
    assert!(pages.len() == 2 && pages[1] < 100, "{words}");

    // And is taken over from.
    let [epoch, number] = program.ask("commit 6");
    second.wait("applied", &epoch.into());
    program.lose(pid);
    let mut last = second.promote();
    let [from, at, takeovers, _] = last.hear();
    assert_eq!((from, at, takeovers), (epoch, number, 1));
    put_back(&last.words());
    last.end();
}

fn follows(dir: &Path) {
    if env::var_os(spared::LIFE).is_some() {
        return spared::obey();
    }
    let spare = Spare::start(dir.join("there"), 4, &[]);
    let again = ["--restart", "on-failure", "--backoff", "0s"];
    let mut primary = primary(dir, 4, &spare, &again);
    let [_, _, _, pid] = primary.hear();
    let [early, 3] = primary.ask("commit 2") else {
        panic!("another number")
    };
    spare.wait("applied", &early.into());
    let arena = kept().id;
    let reaches = |spare: &Spare, epoch: u64| {
        spare.wait("applied", &epoch.into());
        assert_eq!(kept().id, arena, "it has made another arena");
    };
    // It grows, and goes back to before that.
    let [epoch, _] = primary.ask("commit 3");
    reaches(&spare, epoch);
    let [epoch, 3] = primary.ask(&format!("back-to {early}")) else {
        panic!("another number")
    };
    reaches(&spare, epoch);
    let [epoch, _] = primary.ask("commit 4");
    reaches(&spare, epoch);
    // It begins again.
    primary.ask("scribble");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let [from, 7, 0, pid] = primary.hear() else {
        panic!("another number")
    };
    assert_eq!(from, epoch);
    let [epoch, _] = primary.ask("commit 1");
    reaches(&spare, epoch);
    // Both chains are made smaller.
    for chain in [&primary.store, &spare.tool.store] {
        let done = tool(&["compact", "--keep-last", "2"]).arg(chain).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let [epoch, number] = primary.ask("commit 3");
    reaches(&spare, epoch);
    primary.lose(pid);
    let mut program = spare.promote();
    let [from, at, takeovers, _] = program.hear();
    assert_eq!((from, at, takeovers), (epoch, number, 1));
    assert_eq!(kept().id, arena);
    let words = program.words();
    assert!(put_back(&words)[0] < 10, "{words}");
    program.end();
}

fn moves(dir: &Path) {
    if env::var_os(spared::LIFE).is_some() {
        return spared::obey();
    }
    for mib in sizes() {
        let dir = dir.join(mib.to_string());
        fs::create_dir(&dir).unwrap();
        let spare = Spare::start(dir.join("there"), mib, &[]);
        let again = ["run", "--restart", "on-failure"];
        let mut program = Tool::start(dir.join("here"), mib, &again);
        program.hear::<4>();
        let [_, number] = program.ask("commit 6");
        let to = ["migrate", "--to", &spare.address, "--plain", "--json"];
        let moving = tool(&to)
            .args(["--service", SERVICE, "--node", "here", "--timeout", "300s"])
            .arg(&program.store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It may stand still before it can say that it has.
        program.tell("when-asked");
        let moved = moving.wait_with_output().unwrap();
        assert!(moved.status.success(), "{moved:?}");
        let told: Value = serde_json::from_slice(&moved.stdout).unwrap();
        let epoch = told["epoch"].as_u64().unwrap();
        let mut there = spare.tool;
        let [from, at, takeovers, pid] = there.hear();
        assert_eq!((from, at, takeovers), (epoch, number + 1, 1));
        assert_eq!(kept().pid as u64, pid, "the arena names another");
        assert!(arenas(spared::NAME).is_empty(), "it is still here");
        let stood_still = told["stood_still_ns"].as_u64().unwrap() / 1000;
        println!("# {mib} MiB: the program stood still for {stood_still} us, {told}");
        let words = there.words();
        tell_figures(mib, &words);
        assert!(put_back(&words)[0] < 10, "{words}");
        there.ask("commit 2");
        there.end();
        // It is not started again.
        assert!(!program.child.wait().unwrap().success());
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// A spare that cannot have its arena, for a reason with these words.
fn from_chain(dir: &Path, why: &str) {
    if env::var_os(spared::LIFE).is_some() {
        return spared::obey();
    }
    let compare = ["--tracker", "compare"];
    let spare = Spare::start(dir.join("there"), 16, &compare);
    let mut primary = primary(dir, 16, &spare, &compare);
    let [_, _, _, pid] = primary.hear();
    let [epoch, number] = primary.ask("commit 6");
    until(|| (spare.status()["epoch"] == epoch).then_some(()));
    primary.lose(pid);
    let mut program = spare.promote();
    let [from, at, takeovers, _] = program.hear();
    assert_eq!((from, at, takeovers), (epoch, number, 1));
    let words = program.words();
    let line = words.lines().find(|line| line.contains("going on"));
    let line = line.unwrap();
    assert!(line.contains("restored from its chain"), "{words}");
    assert!(line.contains(why), "{words}");
    tell_figures(16, &words);
    let [epoch, _] = program.ask("commit 2");
    assert!(epoch > TAKEOVER_GAP, "epoch {epoch}");
    program.end();
}

fn no_room(dir: &Path) {
    from_chain(dir, "RLIMIT_MEMLOCK");
}

fn no_module(dir: &Path) {
    from_chain(dir, "there is no module here");
}
