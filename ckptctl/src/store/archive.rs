// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A chain as one stream of bytes: a tar archive of its files, and of their hashes at its end.

use std::fmt::Write as _;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use super::chain::Chain;
use super::error::StoreError;
use super::format::Kind;
use super::loader;
use super::meta::CommitMeta;
use super::opening;
use super::run_cache::RunCache;
use super::run_cache::Stored;
use super::segment::Name;
use super::segment_file::SegmentFile;
use super::verify::Report;
use super::writer::Options;
use super::writer::Writer;
use crate::sys::file;
use crate::sys::file::File;

/// The last file of an archive: the BLAKE3 hashes of all others, as `b3sum` writes them.
const SUMS: &str = "B3SUMS";
/// A chain has fewer files than this has room for.
const SUMS_MAX_BYTES: u64 = 64 << 20;
/// What is copied at once.
const STEP: usize = 1 << 20;

/// What an archive is called in messages.
fn stream() -> PathBuf {
    "the export".into()
}

/// Reads a file of a chain from its start, as far as it is part of the chain.
struct SegmentReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    hash: blake3::Hasher,
}

impl Read for SegmentReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = (self.end - self.at).min(to.len() as u64) as usize;
        self.file.read_exact_at(&mut to[..len], self.at)?;
        self.hash.update(&to[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

fn header(name: &str, len: u64, time_ns: u64) -> Result<tar::Header, StoreError> {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(name)
        .map_err(StoreError::io("write", &stream()))?;
    header.set_size(len);
    header.set_mode(0o600);
    header.set_mtime(time_ns / 1_000_000_000);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

impl Chain {
    /// Writes the chain, as it was when it was opened, as a tar archive. Of the same chain it is
    /// the same, byte by byte. Verify the chain first: what is damaged in its pages is copied.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] when the chain's structure is; [`StoreError::Io`].
    pub fn export(
        &self,
        to: &mut dyn Write,
        mut on_bytes: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        if let Some(damage) = self.damage().first() {
            return Err(self.damaged(damage.clone()));
        }
        let failed = |error| StoreError::io("write", &stream())(error);
        let mut sums = String::new();
        let mut archive = tar::Builder::new(to);
        let times = self.commits().map(|commit| commit.time_ns);
        let time_ns = times.max().unwrap_or(0);
        for segment in &self.scan.segments {
            let name = name_of(segment);
            let file = segment.open()?;
            let len = self.sound_len(segment);
            let mut reader = SegmentReader {
                file: &file,
                at: 0,
                end: len,
                hash: blake3::Hasher::new(),
            };
            archive
                .append(&header(&name, len, time_ns)?, &mut reader)
                .map_err(failed)?;
            // Nothing fails when text is written to memory.
            let _ = writeln!(sums, "{}  {name}", reader.hash.finalize());
            on_bytes(len);
        }
        archive
            .append(&header(SUMS, sums.len() as u64, time_ns)?, sums.as_bytes())
            .map_err(failed)?;
        archive
            .into_inner()
            .and_then(|to| to.flush())
            .map_err(failed)
    }

    /// How much of a segment is records that are whole.
    fn sound_len(&self, segment: &SegmentFile) -> u64 {
        let last = self.scan.segments.last().map(|last| last.number);
        match self.scan.end {
            Some(end) if last == Some(segment.number) => end,
            _ => segment.len,
        }
    }

    /// Makes a new chain in a directory that has an epoch of this one and nothing else, and stands
    /// alone. Every page is checked.
    ///
    /// # Errors
    ///
    /// As [`Chain::load`] and [`Writer::open_or_create`].
    pub fn copy_epoch(
        &self,
        epoch: u64,
        dir: &Path,
        mut on_bytes: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let mut pieces = loader::plan(self, epoch)?;
        pieces.sort_unstable_by_key(|piece| piece.live.start);
        let meta = CommitMeta {
            parent: None,
            kind: Kind::Commit,
            ..self.get(epoch)?
        };
        let mut runs = RunCache::new(self);
        let (mut writer, _) = Writer::open_or_create(dir, Options::as_in(self))?;
        writer.append_with(&meta, |sink| {
            for piece in &pieces {
                let stored = Stored {
                    epoch: piece.epoch,
                    segment: piece.segment,
                    offset: piece.offset,
                    run: piece.run,
                };
                let len = ((piece.live.end - piece.live.start) << meta.page_shift) as usize;
                let run = runs.read(&stored, meta.page_shift, len, epoch)?;
                sink.push(piece.live.start, piece.bytes(run, meta.page_shift))?;
                on_bytes(len as u64);
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }
}

fn name_of(segment: &SegmentFile) -> String {
    let name = segment.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// What an archive held.
#[derive(Debug)]
pub struct Imported {
    /// What its verification found; it has no damage.
    pub report: Report,
    /// Files of the chain.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
}

/// Makes a chain of an archive in a directory that is empty or not there (its parent must be).
/// Everything is verified and on the disk before the directory has its name; when something is
/// wrong, nothing is left; only when the last sync fails is the directory there already.
///
/// # Errors
///
/// [`StoreError::Archive`] when it is no whole archive, or the directory is not empty; [`StoreError::Damaged`] when the chain in it
/// is damaged; [`StoreError::Io`].
pub fn import(
    from: impl Read,
    dir: &Path,
    on_bytes: impl FnMut(u64),
) -> Result<Imported, StoreError> {
    refuse_content(dir)?;
    let mut begun = Begun::new(dir)?;
    let (files, bytes) = begun.unpack(from, on_bytes)?;
    let chain = Chain::open(&begun.unfinished).map_err(of_export)?;
    let report = chain.verify(|_, _| {}).map_err(of_export)?;
    if let Some(damage) = report.damage.first() {
        return Err(of_export(chain.damaged(damage.clone())));
    }
    if let Some(torn) = chain.torn() {
        return Err(StoreError::Archive {
            what: format!("it has half a commit at its end: {torn}"),
        });
    }
    begun.place(dir)?;
    Ok(Imported {
        report,
        files,
        bytes,
    })
}

fn refuse_content(dir: &Path) -> Result<(), StoreError> {
    let names = match file::list_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(StoreError::io("read", dir))?,
    };
    match names.into_iter().next() {
        None => Ok(()),
        Some(name) => Err(StoreError::Archive {
            what: format!(
                "{} is not empty ({}), give a new directory",
                dir.display(),
                name.to_string_lossy()
            ),
        }),
    }
}

/// A directory beside the one that is wanted, with what was unpacked so far.
struct Begun {
    unfinished: PathBuf,
    files: Vec<PathBuf>,
    placed: bool,
}

impl Begun {
    fn new(dir: &Path) -> Result<Begun, StoreError> {
        let wrong = |what: &str| StoreError::Archive { what: what.into() };
        let name = dir
            .file_name()
            .ok_or_else(|| wrong("it needs a directory with a name of its own to be put into"))?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".importing");
        let unfinished = dir.with_file_name(beside);
        match file::make_dir(&unfinished).map_err(StoreError::io("create", &unfinished))? {
            true => Ok(Begun {
                unfinished,
                files: Vec::new(),
                placed: false,
            }),
            false => Err(StoreError::Archive {
                what: format!(
                    "{} is there: another import is at work, or was killed. If none is, remove it",
                    unfinished.display()
                ),
            }),
        }
    }

    /// Unpacks everything, and holds it against the hashes at the end.
    fn unpack(
        &mut self,
        from: impl Read,
        mut on_bytes: impl FnMut(u64),
    ) -> Result<(u64, u64), StoreError> {
        let failed = |error: io::Error| match error.kind() {
            // What the archive's reader makes of bytes that make no sense.
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                StoreError::Archive {
                    what: "it is not what `ckptctl export` writes, or damaged".into(),
                }
            }
            io::ErrorKind::UnexpectedEof => cut_off(),
            _ => StoreError::io("read", &stream())(error),
        };
        let (mut sums, mut bytes) = (String::new(), 0);
        let mut archive = tar::Archive::new(from);
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            let name = match std::str::from_utf8(&entry.path_bytes()) {
                Ok(name) => name.to_owned(),
                Err(_) => return Err(foreign("a file with an odd name")),
            };
            if entry.header().entry_type() != tar::EntryType::Regular {
                return Err(foreign(&format!("{name}, which is no file")));
            }
            let len = entry.size();
            if name == SUMS {
                if len > SUMS_MAX_BYTES {
                    return Err(foreign(&format!("{SUMS} of {len} bytes")));
                }
                let mut said = Vec::new();
                entry.read_to_end(&mut said).map_err(failed)?;
                if said.len() as u64 != len {
                    return Err(cut_off());
                }
                if said != sums.as_bytes() {
                    return Err(StoreError::Archive {
                        what: format!("it is damaged: its files are not what its {SUMS} says"),
                    });
                }
                file::sync_dir(&self.unfinished)
                    .map_err(StoreError::io("sync", &self.unfinished))?;
                return Ok((self.files.len() as u64, bytes));
            }
            if !matches!(Name::parse(name.as_ref()), Name::Segment(_) | Name::Base(_)) {
                return Err(foreign(&name));
            }
            let path = self.unfinished.join(&name);
            if self.files.contains(&path) {
                return Err(foreign(&format!("{name} twice")));
            }
            self.files.push(path.clone());
            let hash = unpack_file(&mut entry, &path, len, failed)?;
            let _ = writeln!(sums, "{hash}  {name}");
            bytes += len;
            on_bytes(len);
        }
        Err(cut_off())
    }

    fn place(&mut self, dir: &Path) -> Result<(), StoreError> {
        file::rename(&self.unfinished, dir).map_err(StoreError::io("rename", &self.unfinished))?;
        self.placed = true;
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        file::sync_dir(parent).map_err(StoreError::io("sync", parent))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed is named by the next import.
            for path in &self.files {
                let _ = opening::remove(path);
            }
            let _ = file::remove_dir(&self.unfinished);
        }
    }
}

fn unpack_file(
    from: &mut impl Read,
    path: &Path,
    len: u64,
    failed: impl Fn(io::Error) -> StoreError,
) -> Result<blake3::Hash, StoreError> {
    let file = File::create(path).map_err(StoreError::io("create", path))?;
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; STEP.min(len as usize)];
    let mut at = 0;
    while at < len {
        let most = buffer.len().min((len - at) as usize);
        let got = match from.read(&mut buffer[..most]) {
            Ok(0) => return Err(cut_off()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            got => got.map_err(&failed)?,
        };
        hash.update(&buffer[..got]);
        file.write_all_at(&buffer[..got], at)
            .map_err(StoreError::io("write", path))?;
        at += got as u64;
    }
    file.sync_data().map_err(StoreError::io("sync", path))?;
    Ok(hash.finalize())
}

/// What is wrong with a chain that came out of an archive: its directory is gone when this is read.
fn of_export(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { mut damage, .. } => {
            damage.file = damage
                .file
                .file_name()
                .map_or_else(PathBuf::new, PathBuf::from);
            StoreError::Damaged {
                damage,
                advice:
                    "It was so when it was exported, and nothing is left of it here: export it \
                         again from a chain that `ckptctl verify` finds sound"
                        .into(),
            }
        }
        StoreError::NoChain { .. } => StoreError::Archive {
            what: "there is no chain in it".into(),
        },
        error => error,
    }
}

fn cut_off() -> StoreError {
    StoreError::Archive {
        what: format!("it is cut off: {SUMS}, its end, is missing"),
    }
}

fn foreign(what: &str) -> StoreError {
    StoreError::Archive {
        what: format!("`ckptctl export` did not make it: it has {what}"),
    }
}
