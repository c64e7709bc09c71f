// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tally FILE [CRASH]`: counts the letters of a file, a line at a time.
//!
//! The count and the place in the file are its state. It commits every 100 lines, and goes on
//! from there when it is started again. With CRASH it dies when so many commits are durable, to
//! show that this does no harm:
//!
//! ```sh
//! ckptctl run --store tally.chain --restart on-failure -- tally FILE 3
//! ```

use std::error::Error;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Seek;
use std::io::SeekFrom;

use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::When;

/// The state: plain data, for which zeros are a value. It has no pointers to code, so a later
/// build of this program can go on from the chain of an earlier one.
#[repr(C)]
struct Tally {
    /// Bytes of the file that are counted.
    offset: u64,
    lines: u64,
    letters: [u64; 26],
}

impl Tally {
    fn count(&mut self, line: &[u8]) {
        self.offset += line.len() as u64;
        self.lines += 1;
        for letter in line.to_ascii_lowercase() {
            if letter.is_ascii_lowercase() {
                self.letters[usize::from(letter - b'a')] += 1;
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: tally FILE [CRASH]")?;
    let crash: u64 = arguments.next().map_or(Ok(u64::MAX), |n| n.parse())?;

    let options = Options::new().name("tally").no_code_pointers().hook(
        When::AfterRestore,
        |_context, epoch| {
            eprintln!("tally: going on from epoch {epoch}");
            0
        },
    );
    let context = Context::open(options)?;
    let region = context.region(&RegionSpec {
        name: "tally",
        kind: 1,
        len_bytes: size_of::<Tally>() as u64,
        reserve_bytes: 0,
    })?;
    // SAFETY: The region is this program's, large enough and page-aligned. It is zeroed when it
    // is new, and was a tally before when it was restored. The reference ends before the context
    // does, and nobody else makes one.
    let tally: &mut Tally = unsafe { region.cast().as_mut() };

    // Files do not survive, places in them do.
    let mut file = std::fs::File::open(&path)?;
    file.seek(SeekFrom::Start(tally.offset))?;
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    let mut commits = 0;
    while file.read_until(b'\n', &mut line)? > 0 {
        tally.count(&line);
        line.clear();
        if tally.lines % 100 == 0 {
            context.commit()?;
            commits += 1;
            if commits == crash {
                // What is on its way would be lost.
                context.wait(0, None)?;
                std::process::abort();
            }
        }
    }

    println!("{} lines", tally.lines);
    for (letter, count) in ('a'..='z').zip(tally.letters) {
        println!("{letter} {count}");
    }
    context.close()?;
    Ok(())
}
