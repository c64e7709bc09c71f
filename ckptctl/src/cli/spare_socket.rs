// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket in a spare's directory, at which this host's user asks it and tells it to take over.
//! A question is a line, and so is its answer, which is JSON.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use ckptctl::store::SPARE_NAME;
use serde_json::Value;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest question, in bytes.
const QUESTION_MAX: u64 = 1000;

/// The spare's end.
pub struct SpareSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// A question that waits for its answer.
pub struct Question {
    pub text: String,
    stream: UnixStream,
}

impl SpareSocket {
    /// Makes it. The directory is locked by this process, so what is there is a dead one's.
    pub fn bind(dir: &Path) -> anyhow::Result<SpareSocket> {
        let path = dir.join(SPARE_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| {
            format!(
                "cannot make the socket {} (its path may be too long for one: 107 bytes)",
                path.display()
            )
        })?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(SpareSocket { listener, path })
    }

    /// The next question, if somebody asks.
    pub fn question(&self) -> io::Result<Option<Question>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        let mut line = BufReader::new(&stream).take(QUESTION_MAX);
        // Who says nothing, or something else, is not answered.
        match line.read_line(&mut text) {
            Ok(_) if text.ends_with('\n') => {
                text.pop();
                Ok(Some(Question { text, stream }))
            }
            _ => Ok(None),
        }
    }
}

impl AsFd for SpareSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for SpareSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Question {
    /// Answers it. Who asked may be gone.
    pub fn answer(mut self, answer: &Value) {
        let _ = self.stream.write_all(format!("{answer}\n").as_bytes());
    }
}

/// Asks the spare of a directory.
pub fn ask(dir: &Path, question: &str) -> anyhow::Result<Value> {
    let shown = dir.display();
    let mut stream = match UnixStream::connect(dir.join(SPARE_NAME)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            bail!(
                "no spare runs on {shown}: `ckptctl spare --store {shown} …` starts one; to start a \
                 program on what is there, use `ckptctl restore {shown} -- CMD`"
            );
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot ask the spare on {shown}"));
        }
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    serde_json::from_str(&answer)
        .with_context(|| format!("the spare on {shown} has ended before it answered"))
}
