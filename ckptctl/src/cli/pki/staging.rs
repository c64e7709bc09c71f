// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writing keys and certificates beside where they belong, and then giving them their names.

use std::fs;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::anyhow;
use anyhow::bail;
use ckptctl::sys::file::sync_dir;
use tempfile::TempDir;

/// For keys.
pub const SECRET: u32 = 0o600;
/// For certificates.
pub const PUBLIC: u32 = 0o644;

/// A directory that has no name of its own yet, and is gone again unless it gets one.
pub struct Staging {
    temp: TempDir,
    target: PathBuf,
    files: Vec<&'static str>,
}

impl Staging {
    /// Begins what is to be at `target`, in the same file system.
    pub fn beside(target: &Path) -> anyhow::Result<Staging> {
        let parent = parent(target);
        if !parent.is_dir() {
            bail!(
                "cannot make {}: there is no directory {}; make that first",
                target.display(),
                parent.display()
            );
        }
        // For its owner only, from the start.
        let temp = tempfile::Builder::new()
            .prefix(".ckpt-pki-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(cannot("write beside", target))?;
        Ok(Staging {
            temp,
            target: target.to_owned(),
            files: Vec::new(),
        })
    }

    /// Where the files are meanwhile.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Adds a file that others can read or not from its first moment on.
    pub fn write(&mut self, name: &'static str, content: &str, mode: u32) -> anyhow::Result<()> {
        let path = self.temp.path().join(name);
        let write = || {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        write().map_err(cannot("write", &path))?;
        self.files.push(name);
        Ok(())
    }

    /// Gives the directory its name, if nothing is there, or nothing but an empty directory.
    pub fn publish(self, instead: &str) -> anyhow::Result<()> {
        sync_dir(self.path()).map_err(cannot("write", self.path()))?;
        match fs::rename(self.path(), &self.target) {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {
                bail!("{} is there already: {instead}", self.target.display())
            }
            Err(error) => return Err(cannot("make", &self.target)(error)),
        }
        // There is nothing to remove any more.
        let _ = self.temp.keep();
        sync_dir(parent(&self.target)).map_err(cannot("write", &self.target))
    }

    /// Puts each file into the directory that is there, in place of what has its name, in the order
    /// in which they were written.
    pub fn replace(self) -> anyhow::Result<()> {
        for name in &self.files {
            let to = self.target.join(name);
            fs::rename(self.path().join(name), &to).map_err(cannot("replace", &to))?;
        }
        sync_dir(&self.target).map_err(cannot("write", &self.target))
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
    )
}

fn cannot(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> anyhow::Error {
    let path = path.display().to_string();
    move |error| anyhow!("cannot {doing} {path}: {error}")
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
