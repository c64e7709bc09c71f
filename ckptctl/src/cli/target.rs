// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Naming a running program on the command line: by its arena or by its chain.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use ckptctl::control;
use ckptctl::sys::abi::ckpt_info;
use ckptctl::sys::control::ControlPage;
use ckptctl::sys::device;
use ckptctl::sys::device::ArenaFd;
use ckptctl::sys::device::Device;
use nix::libc;

use super::module;

/// A live arena.
pub struct Live {
    /// A descriptor of it.
    pub arena: ArenaFd,
    /// What it was when it was found.
    pub info: ckpt_info,
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = device::text(&self.info.name);
        write!(f, "{name} (arena {}", self.info.id)?;
        match self.info.pid {
            pid if pid > 0 => write!(f, ", pid {pid})"),
            _ => write!(f, ")"),
        }
    }
}

/// A running program.
pub enum Target {
    /// With an arena of the module.
    Arena(Live),
    /// Without the module, asked in its chain's directory.
    Chain(PathBuf, ControlPage),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Arena(live) => live.fmt(f),
            Target::Chain(dir, page) => write!(f, "{} (pid {})", dir.display(), page.pid()),
        }
    }
}

impl Target {
    /// The program's process.
    pub fn pid(&self) -> i32 {
        match self {
            Target::Arena(live) => live.info.pid,
            Target::Chain(_, page) => page.pid() as i32,
        }
    }

    /// Whether the program is the one that it was.
    pub fn is_there(&self) -> bool {
        match self {
            Target::Arena(live) => live.arena.info().is_ok_and(|info| info.pid > 0),
            Target::Chain(_, page) => is_there(page.pid()),
        }
    }

    /// The program that `ID`, `NAME` or the chain's directory names.
    pub fn find(text: &OsStr) -> anyhow::Result<Target> {
        match Path::new(text) {
            dir if dir.is_dir() => by_chain(dir),
            _ => Ok(Target::Arena(Live::find(text)?)),
        }
    }
}

impl Live {
    /// The arena that `ID` or `NAME` names.
    pub fn find(text: &OsStr) -> anyhow::Result<Live> {
        let device =
            module::open("; without the module a program is named by its chain's directory")?;
        let text = text.to_string_lossy();
        match text.parse() {
            Ok(id) => Live::open(&device, id),
            Err(_) => {
                let all = device.list()?;
                let named = all.iter().filter(|info| device::text(&info.name) == text);
                match named.collect::<Vec<_>>().as_slice() {
                    [one] => Live::open(&device, one.id),
                    [] => {
                        bail!("no live arena is called {text}: `ckptctl ps` lists those there are")
                    }
                    several => {
                        let ids: Vec<String> =
                            several.iter().map(|info| info.id.to_string()).collect();
                        bail!(
                            "{} arenas are called {text}: name one by its id, {}",
                            several.len(),
                            ids.join(" or ")
                        )
                    }
                }
            }
        }
    }

    fn open(device: &Device, id: u64) -> anyhow::Result<Live> {
        let arena = device.open_arena(id).map_err(|error| refused(id, &error))?;
        let info = arena.info()?;
        Ok(Live { arena, info })
    }
}

fn refused(id: u64, error: &io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::ENOENT) => {
            anyhow::anyhow!("there is no arena {id}: `ckptctl ps` lists those there are")
        }
        Some(libc::EACCES) => anyhow::anyhow!(
            "arena {id} is somebody else's: only its owner and root (CAP_CHECKPOINT_RESTORE) may open it"
        ),
        _ => anyhow::anyhow!("cannot open arena {id}: {error}"),
    }
}

/// Who writes the chain in a directory.
fn by_chain(dir: &Path) -> anyhow::Result<Target> {
    let shown = dir.display();
    let page = ControlPage::in_file(&dir.join(control::FILE_NAME))
        .with_context(|| format!("cannot ask at {shown}"))?;
    let found = match page {
        Some(page) => is_there(page.pid()).then(|| Target::Chain(dir.to_owned(), page)),
        None => by_writer(dir)?,
    };
    found.with_context(|| {
        format!(
            "nobody who can be asked runs on {shown}: `ckptctl run --store {shown} -- CMD` starts a program on it"
        )
    })
}

/// With the module there is an arena of the process that has the chain.
fn by_writer(dir: &Path) -> anyhow::Result<Option<Target>> {
    let writer = fs::read_to_string(dir.join("LOCK")).unwrap_or_default();
    let pid: i32 = writer.trim().parse().unwrap_or(0);
    let (true, Ok(device)) = (pid > 0 && is_there(pid as u32), Device::open()) else {
        return Ok(None);
    };
    let all = device.list()?;
    let Some(info) = all.iter().find(|info| info.pid == pid) else {
        return Ok(None);
    };
    Ok(Some(Target::Arena(Live::open(&device, info.id)?)))
}

/// Whether a process is there.
pub fn is_there(pid: u32) -> bool {
    pid != 0 && Path::new(&format!("/proc/{pid}")).exists()
}
