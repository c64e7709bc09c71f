// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parsers, each with what must be true of whatever it makes of any bytes. What an input comes
//! to is told by a word or two, so that it can be seen what a corpus reaches.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use ckptctl::Compacting;
use ckptctl::arena::OutsideView;
use ckptctl::store;
use ckptctl::store::Chain;
use ckptctl::store::ChainSpec;
use ckptctl::store::CommitMeta;
use ckptctl::store::Compression;
use ckptctl::store::Identity;
use ckptctl::store::Kind;
use ckptctl::store::SpecError;
use ckptctl::store::StoreError;
use ckptctl::store::Writer;
use ckptctl::sys::control::ControlPage;
use ckptctl::sys::handover::Channel;
use ckptctl::sys::handover::Inherited;
use ckptctl::sys::handover::MESSAGE_MAX;
use ckptctl::sys::handover::Received;
use ckptctl::sys::maps;
use ckptctl::sys::process;
use ckptctl::warm::Going;
use ckptctl::warm::Message;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::sendmsg;

use super::kernel_config;
use super::times;

/// Where in an arena it is said which program it is: behind the regions.
const IDENTITY_AT: usize = 128 + 512 * 80;

/// A directory in memory where there is such a place.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("room for a test")
}

/// The page through which a program is asked, as a file: both who asks and who is asked.
pub fn control(bytes: &[u8]) -> &'static str {
    let dir = memory_dir();
    let path = dir.path().join("CONTROL");
    fs::write(&path, bytes).unwrap();
    let page = ControlPage::in_file(&path).unwrap();
    let pending = page
        .as_ref()
        .map(|page| page.pending().load(Ordering::Relaxed));
    let outcome = match &page {
        None if bytes.len() < 4096 => "too short",
        None => "something else",
        Some(page) => {
            let (seen, epoch) = (page.seen(), page.epoch());
            assert_eq!(page.request(), epoch);
            assert_ne!(page.seen(), seen, "who waits is told");
            page.wait_for_change(page.seen(), Duration::ZERO);
            match (page.pid(), pending) {
                (0, _) => "nobody is there",
                (_, Some(0)) => "asked",
                _ => "asked before",
            }
        }
    };
    // The next program, which keeps what was asked of the last one.
    let program = ControlPage::in_new_file(&path, 7).unwrap();
    let asked = program.pending().load(Ordering::Relaxed) != 0;
    assert!(asked || page.is_none(), "what was asked stays");
    assert_eq!(
        (program.epoch(), program.durable(), program.pid()),
        (0, 0, 7)
    );
    program.closed(u64::MAX);
    program.saved(u64::MAX);
    assert_eq!(program.pending().load(Ordering::Relaxed), 0);
    program.leave(8);
    program.leave(7);
    assert_eq!(program.pid(), 0);
    outcome
}

/// The same page and what stands in LOCK behind it, before `ckptctl commit`.
pub fn asking(tool: &Path, bytes: &[u8]) -> &'static str {
    let dir = memory_dir();
    let (page, lock) = bytes.split_at(bytes.len().min(4096));
    fs::write(dir.path().join("CONTROL"), page).unwrap();
    fs::write(dir.path().join("LOCK"), lock).unwrap();
    let mut command = Command::new(tool);
    command.args(["commit", "--wait=closed", "--timeout", "1ms"]);
    let output = command
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.len() < 2000, "{told}");
    match output.status.code() {
        Some(1) if told.contains("nobody who can be asked") => "nobody is there",
        Some(1) if told.contains("made no commit within") => "made no commit",
        Some(1) if told.contains("is no epoch") => "an epoch that cannot be",
        code => panic!("{code:?}: {told}"),
    }
}

/// A message between a program and its supervisor.
pub fn message(bytes: &[u8]) -> &'static str {
    let Some(message) = Message::decode(bytes) else {
        return "no message";
    };
    let again = message.encode();
    assert!(again.len() <= MESSAGE_MAX);
    // A text that is too long is cut.
    if again.len() < MESSAGE_MAX {
        assert_eq!(Message::decode(&again), Some(message.clone()));
    }
    match message {
        Message::Watch(_) => "watch",
        Message::Take(_) => "take",
        Message::Keep(_) => "keep",
        Message::Drop(_) => "drop",
        Message::Dropped => "dropped",
        Message::Going(Going::Anew) => "anew",
        Message::Going(Going::Cold(_)) => "cold",
        Message::Going(Going::Warm { .. }) => "warm",
        Message::Alive => "alive",
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What arrives at a socket. Three bytes are a message: its length, and how many descriptors
/// come along.
pub fn handover(bytes: &[u8]) -> &'static str {
    let before = open_descriptors();
    let (ours, theirs) = Channel::pair().unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    let content = [b'x'; 4096];
    let mut outcome = "nothing";
    for sent in bytes.chunks_exact(3).take(200) {
        let len = usize::from(u16::from_le_bytes([sent[0], sent[1]])) % content.len();
        let fds = vec![file.as_raw_fd(); usize::from(sent[2]) % 254];
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [std::io::IoSlice::new(&content[..len])];
        let theirs = theirs.as_fd().as_raw_fd();
        sendmsg::<()>(theirs, &parts, rights, MsgFlags::MSG_DONTWAIT, None).unwrap();
        outcome = match ours.receive().unwrap() {
            Received::Nothing => panic!("it was sent"),
            Received::Closed => {
                assert_eq!(len, 0);
                "an empty message"
            }
            Received::Message(message, with) => {
                assert_eq!(message, content[..len.min(MESSAGE_MAX)]);
                assert_eq!(with.is_some(), !fds.is_empty());
                match fds.len() {
                    _ if len > MESSAGE_MAX => "a message that is too long",
                    0 => "a message",
                    1 => "a message with a descriptor",
                    _ => "a message with too many descriptors",
                }
            }
        };
    }
    drop(theirs);
    assert!(matches!(ours.receive().unwrap(), Received::Closed));
    drop((ours, file));
    assert_eq!(open_descriptors(), before, "all that came was closed");
    outcome
}

/// How a socket is named in the environment.
pub fn inherited(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<Inherited>() {
        Err(()) => "nothing",
        Ok(named) => {
            assert_eq!(named.to_string().parse(), Ok(named));
            "a socket"
        }
    }
}

/// The notes of an executable.
pub fn notes(bytes: &[u8]) -> &'static str {
    match process::build_id_in(bytes) {
        None => "none",
        Some([]) => "an empty one",
        Some(id) => {
            assert!(bytes.windows(id.len()).any(|part| part == id));
            "a build id"
        }
    }
}

/// What is mapped in a process.
pub fn maps(bytes: &[u8]) -> &'static str {
    let all = maps::parse(bytes, &(0..u64::MAX)).unwrap();
    for area in &all {
        assert!(area.addresses.start < area.addresses.end, "{area:x?}");
    }
    let some = maps::parse(bytes, &(0x1000_0000..0x7fff_f000_0000)).unwrap();
    for area in &some {
        let addresses = &area.addresses;
        assert!(addresses.end > 0x1000_0000 && addresses.start < 0x7fff_f000_0000);
    }
    match all.last() {
        None => "nothing",
        Some(area) if area.protection_key != 0 => "an area with a key",
        Some(area) if !area.flags.is_empty() => "an area with flags",
        Some(_) => "an area",
    }
}

/// The kernel's list of its symbols.
pub fn symbols(bytes: &[u8]) -> &'static str {
    match kernel_config::telling_symbols(bytes) {
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
            "not UTF-8"
        }
        Ok(None) => "nothing",
        Ok(Some(telling)) if telling.is_empty() => "symbols",
        Ok(Some(_)) => "symbols that tell",
    }
}

/// `DIR@EPOCH`.
pub fn spec(bytes: &[u8]) -> &'static str {
    match ChainSpec::parse(OsStr::from_bytes(bytes)) {
        Ok(spec) => {
            assert_ne!(spec.epoch, Some(0));
            if std::str::from_utf8(bytes).is_ok() {
                let shown = spec.to_string();
                assert_eq!(
                    ChainSpec::parse(OsStr::new(&shown)),
                    Ok(spec.clone()),
                    "{shown}"
                );
            }
            match spec.epoch {
                Some(_) => "an epoch",
                None => "the newest",
            }
        }
        Err(SpecError::NoDir) => "no directory",
        Err(SpecError::NoEpoch(_)) => "no epoch",
    }
}

/// Times on the command line: whoever waits for one must be able to tell when it is over.
pub fn time(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    let waits = |time: Duration| {
        assert!(Instant::now().checked_add(time).is_some(), "{time:?}");
        assert!(SystemTime::now().checked_add(time).is_some(), "{time:?}");
    };
    if let Ok(backoff) = times::Backoff::parse(&text) {
        assert!(backoff.min <= backoff.max);
        waits(backoff.min);
        waits(backoff.max);
    }
    match times::parse(&text) {
        Ok(time) => {
            waits(time);
            let shown = humantime::format_duration(time).to_string();
            assert_eq!(times::parse(&shown), Ok(time), "{shown}");
            match times::span(&text) {
                Ok(_) => "a time",
                Err(_) => "no time at all",
            }
        }
        Err(_) if times::Backoff::parse(&text).is_ok() => "two times",
        Err(why) if why.contains("longer than") => "too long",
        Err(_) => "no time",
    }
}

/// How pages are compressed, and when a chain is compacted: of variables.
pub fn word(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    match (text.parse::<Compression>(), text.parse::<Compacting>()) {
        (Ok(compression), _) => {
            assert!(compression.is_valid());
            assert_eq!(compression.to_string().parse(), Ok(compression));
            "a compression"
        }
        (_, Ok(Compacting::Never)) => "never",
        (_, Ok(Compacting::Beyond(times))) => {
            assert!((2..=1000).contains(&times));
            "beyond"
        }
        (Err(_), Err(_)) => "neither",
    }
}

/// Which program made a commit.
pub fn identity(bytes: &[u8]) -> &'static str {
    match Identity::decode(bytes) {
        Ok(identity) => {
            assert_eq!(identity.encode(), bytes);
            "sound"
        }
        Err(what) => what,
    }
}

/// What `ckptctl import` reads.
pub fn archive(bytes: &[u8]) -> &'static str {
    let dir = memory_dir();
    let to = dir.path().join("chain");
    let what = match store::import(bytes, &to, |_| {}) {
        Ok(imported) => {
            let report = Chain::open(&to).unwrap().verify(|_, _| {}).unwrap();
            assert!(report.damage.is_empty() && imported.report.damage.is_empty());
            return "a chain";
        }
        Err(StoreError::Archive { what }) => what,
        Err(error @ StoreError::Damaged { .. }) => {
            let told = error.to_string();
            assert!(!told.contains(".importing"), "{told}: that is gone");
            "damaged chain".into()
        }
        Err(StoreError::Unsupported { .. }) => "unsupported chain".into(),
        Err(StoreError::Io { .. }) => "cannot be written".into(),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "{what}: nothing is left"
    );
    const KNOWN: [&str; 10] = [
        "cut off",
        "not what `ckptctl export` writes",
        "not what its B3SUMS says",
        "did not make it: it has a file with an odd name",
        "which is no file",
        "B3SUMS of",
        "twice",
        "half a commit",
        "damaged chain",
        "there is no chain",
    ];
    let known = KNOWN.into_iter().find(|known| what.contains(known));
    match known {
        Some(known) => known,
        None if what.contains("did not make it") => "a foreign file",
        None if what == "unsupported chain" => "unsupported chain",
        None if what == "cannot be written" => "cannot be written",
        None => panic!("{what}"),
    }
}

/// The first pages of somebody else's arena. The first 8 KiB of an input are the beginning of a head, the
/// rest is which program it is.
pub fn head(bytes: &[u8]) -> &'static str {
    const LEN_PAGES: u64 = 1 << 18;
    let (start, identity) = bytes.split_at(bytes.len().min(8192));
    let mut pages = vec![0; 16 * 4096];
    pages[..start.len()].copy_from_slice(start);
    let identity = &identity[..identity.len().min(8192)];
    pages[IDENTITY_AT..IDENTITY_AT + identity.len()].copy_from_slice(identity);
    let Some(view) = OutsideView::of(&pages, LEN_PAGES) else {
        return "no head";
    };
    let mut free = 16;
    for region in &view.regions {
        assert!(region.offset_pages >= free, "{region:?}");
        free = region.offset_pages + region.reserve_pages;
    }
    let (has_regions, has_identity) = (!view.regions.is_empty(), view.identity.is_some());
    // What is believed can be saved.
    let meta = CommitMeta {
        epoch: 1,
        parent: None,
        kind: Kind::Commit,
        generation: [1; 16],
        time_ns: 0,
        pause_ns: 0,
        arena_base: view.base,
        arena_len_pages: LEN_PAGES,
        page_shift: 12,
        regions: view.regions,
        identity: view.identity.unwrap_or_default(),
    };
    let dir = memory_dir();
    let (mut writer, _) = Writer::open_or_create(dir.path(), store::Options::default()).unwrap();
    writer.append(&meta, [(0, &pages[..4096])]).unwrap();
    drop(writer);
    assert_eq!(Chain::open(dir.path()).unwrap().get(1).unwrap(), meta);
    match (has_regions, has_identity) {
        (false, false) => "an empty arena",
        (true, false) => "regions",
        (_, true) => "regions and a program",
    }
}
