// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whatever parses bytes that come from outside comes to an end, panics nowhere, and asks for no more
//! memory than the bytes justify. (Chains are the subject of `fuzzing.rs`.)
//!
//! Each parser has a corpus, `tests/corpus/PARSER/NAME`: inputs that have found something once,
//! and at least one for each of its outcomes. Every run examines these first, then changes of them
//! at random.
//!
//! CKPT_FUZZ_SEED replays a seed, CKPT_FUZZ_INPUTS is how many inputs are tried, and CKPT_FUZZ_WRITE=FILE
//! writes the input of the seed to a file. So this adds what a seed has found to the corpus of the parser
//! `time`, as long as that is what it was when the seed found it:
//!
//! ```sh
//! cd ckptctl
//! CKPT_FUZZ_SEED=1234 CKPT_FUZZ_WRITE=tests/corpus/time/what-it-is cargo test --test parsers time
//! ```
//!
//! Any other file there is examined as well: keep it short (16 KiB), and name it for what it is. Those
//! that are called `found-N` a fuzzer has found that is led by coverage (libFuzzer).

#[path = "parsers/examined.rs"]
mod examined;
mod fuzz;
#[path = "../src/cli/kernel_config.rs"]
#[allow(dead_code, reason = "only what parses is of interest here")]
mod kernel_config;
#[path = "../src/cli/times.rs"]
mod times;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fuzz::Random;

/// Inputs that are tried each time.
const ALWAYS: std::ops::Range<u64> = 1..300;
/// Who takes longer for an input hangs.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest input.
const INPUT_MAX: usize = 32 << 10;
/// The longest file of a corpus, and all of them together.
const FILE_MAX: u64 = 16 << 10;
const CORPUS_MAX: u64 = 512 << 10;

/// One at a time: what is allocated is counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Something that parses.
struct Parser {
    name: &'static str,
    /// Examines an input; says what came of it.
    examine: fn(&[u8]) -> &'static str,
    /// All that can come of one.
    outcomes: &'static [&'static str],
    /// What inputs are made of.
    tokens: &'static [&'static [u8]],
    /// Makes right what is looked at first.
    mend: fn(&mut Vec<u8>, &mut Random),
    /// Bytes that it may allocate, however short the input, and for each byte of it.
    memory: (usize, usize),
    /// How many inputs are tried.
    inputs: u64,
}

const TEXT: Parser = Parser {
    name: "",
    examine: |_| "",
    outcomes: &[],
    tokens: &[],
    mend: |_, _| {},
    memory: (16 << 10, 64),
    inputs: 3000,
};

impl Parser {
    fn corpus(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = corpus_dir().join(self.name);
        let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
        let files = files.map(|file| file.unwrap().path());
        let mut files: Vec<_> = files
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// The input of a seed: one of the corpus, or of another's as well, changed.
    fn input(&self, corpus: &[(PathBuf, Vec<u8>)], seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        let one = |random: &mut Random| corpus[random.below(corpus.len())].1.clone();
        let mut input = one(&mut random);
        for _ in 0..=random.below(5) {
            let other = one(&mut random);
            change(&mut input, &other, self.tokens, &mut random);
        }
        input.truncate(INPUT_MAX);
        if random.below(3) > 0 {
            (self.mend)(&mut input, &mut random);
        }
        input
    }

    fn try_input(&self, seed: u64, input: &[u8]) -> &'static str {
        let (outcome, most) = fuzz::measured(seed, || (self.examine)(input));
        let (fixed, per_byte) = self.memory;
        let allowed = fixed + per_byte * input.len();
        assert!(
            most <= allowed,
            "{most} bytes of memory for {}",
            input.len()
        );
        assert!(self.outcomes.contains(&outcome), "a new outcome: {outcome}");
        outcome
    }

    /// The corpus, then changes of it.
    fn run(&self) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = Watch::begin(self.name);
        let corpus = self.corpus();
        let mut reached = BTreeSet::new();
        for (path, input) in &corpus {
            watch.tell(path.display().to_string());
            let tried = catch_unwind(AssertUnwindSafe(|| self.try_input(0, input)));
            reached.insert(tried.unwrap_or_else(|_| panic!("to see it again: {}", path.display())));
        }
        let all: BTreeSet<_> = self.outcomes.iter().copied().collect();
        assert_eq!(reached, all, "{}: what the corpus reaches", self.name);
        for seed in fuzz::seeds(ALWAYS, self.inputs) {
            let input = self.input(&corpus, seed);
            if let Some(file) = env::var_os("CKPT_FUZZ_WRITE") {
                fs::write(file, &input).unwrap();
            }
            watch.tell(format!("CKPT_FUZZ_SEED={seed}"));
            let tried = catch_unwind(AssertUnwindSafe(|| self.try_input(seed, &input)));
            let name = self.name;
            assert!(
                tried.is_ok(),
                "{name}: to see it again: CKPT_FUZZ_SEED={seed}"
            );
        }
    }
}

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Ends the tests when an input comes to no end, and says which.
struct Watch(mpsc::Sender<String>);

impl Watch {
    fn begin(parser: &'static str) -> Watch {
        let (sender, inputs) = mpsc::channel();
        thread::spawn(move || {
            let mut at = String::new();
            loop {
                match inputs.recv_timeout(LONGEST) {
                    Ok(input) => at = input,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // Not by way of what keeps the words of a test until its end.
                        let _ = writeln!(io::stderr(), "{parser}: it hangs; to see it again: {at}");
                        std::process::abort();
                    }
                }
            }
        });
        Watch(sender)
    }

    fn tell(&self, input: String) {
        let _ = self.0.send(input);
    }
}

/// Changes something.
fn change(input: &mut Vec<u8>, other: &[u8], tokens: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let len = random
        .below(input.len() - at + 1)
        .min(1 << random.below(12));
    match random.below(11) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.odd_number() as u8,
        2 => put(input, at & !3, &(random.odd_number() as u32).to_le_bytes()),
        3 => put(input, at & !7, &random.odd_number().to_le_bytes()),
        4 => input.truncate(at),
        5 => drop(input.drain(at..at + len)),
        6 => {
            let part = input[at..at + len].to_vec();
            input.splice(at..at, part);
        }
        7 => {
            let from = random.below(other.len() + 1);
            let end = from + random.below(other.len() - from + 1);
            input.splice(at..at + len, other[from..end].iter().copied());
        }
        8 => input.extend(std::iter::repeat_n(
            random.next() as u8 & 3,
            random.below(5000),
        )),
        _ if !tokens.is_empty() => {
            let token = tokens[random.below(tokens.len())];
            // In place of another one or between two.
            let gone = if random.below(2) == 0 {
                0
            } else {
                len.min(token.len())
            };
            input.splice(at..at + gone, token.iter().copied());
        }
        _ => {}
    }
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

/// A page through which a program can be asked, of this process, half of the time.
fn mend_control(bytes: &mut Vec<u8>, random: &mut Random) {
    bytes.resize(bytes.len().max(4096), 0);
    put(bytes, 32, b"CKPTCTL1");
    if random.below(2) == 0 {
        put(bytes, 40, &std::process::id().to_le_bytes());
    }
}

/// The headers of an archive, and the hashes at its end.
fn mend_archive(bytes: &mut [u8]) {
    let mut sums = String::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + 512).filter(|header| header[0] != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let (name, len) = (
            text(0..100),
            usize::from_str_radix(text(124..136).trim(), 8),
        );
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        let old: u32 = header[148..156].iter().map(|&byte| u32::from(byte)).sum();
        let content = at + 512;
        put(
            bytes,
            at + 148,
            format!("{:06o}\0 ", sum - old + 8 * 32).as_bytes(),
        );
        let Some(end) = len.ok().and_then(|len| content.checked_add(len)) else {
            return;
        };
        if name == "B3SUMS" {
            put(bytes, content, sums.as_bytes());
        }
        let Some(content) = bytes.get(content..end) else {
            return;
        };
        sums += &format!("{}  {name}\n", blake3::hash(content));
        at = end.next_multiple_of(512);
    }
}

/// A test for each parser.
macro_rules! parsers {
    ($($name:ident: $parser:expr,)*) => {
        $(
            #[test]
            fn $name() {
                Parser { name: stringify!($name), examine: examined::$name, ..$parser }.run();
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*, "asking"];
    };
}

parsers! {
    control: Parser {
        outcomes: &["too short", "something else", "nobody is there", "asked", "asked before"],
        mend: mend_control,
        ..TEXT
    },
    message: Parser {
        outcomes: &[
            "no message", "watch", "take", "keep", "drop", "dropped", "anew", "cold", "warm", "alive",
        ],
        mend: |bytes, random| {
            bytes.resize(bytes.len().max(80), 0);
            put(bytes, 0, b"CKPTWRM1");
            put(bytes, 8, &(1 + random.next() % 10).to_le_bytes());
        },
        ..TEXT
    },
    handover: Parser {
        outcomes: &[
            "nothing",
            "an empty message",
            "a message",
            "a message that is too long",
            "a message with a descriptor",
            "a message with too many descriptors",
        ],
        inputs: 500,
        ..TEXT
    },
    inherited: Parser {
        outcomes: &["nothing", "a socket"],
        tokens: &[b":", b"0", b"-1", b"+3", b"2147483648", b"18446744073709551616", b"4:"],
        ..TEXT
    },
    notes: Parser {
        outcomes: &["none", "an empty one", "a build id"],
        tokens: &[b"GNU\0", b"\x04\0\0\0", b"\x03\0\0\0", b"\x14\0\0\0", b"\xff\xff\xff\xff"],
        memory: (0, 0),
        ..TEXT
    },
    maps: Parser {
        outcomes: &["nothing", "an area", "an area with flags", "an area with a key"],
        tokens: &[
            b"\n", b"-", b" ", b"VmFlags:", b"ProtectionKey:", b"ffffffffffffffff", b"rw-p", b" 00:00 0",
            b"7ffff7d00000-7ffff7d10000 rw-p 0 0:0 0\n", b"0-0", b"\xff",
        ],
        memory: (16 << 10, 256),
        ..TEXT
    },
    symbols: Parser {
        outcomes: &["nothing", "symbols", "symbols that tell", "not UTF-8"],
        tokens: &[b"\n", b" ", b"\t[ckpt]", b"0 T rust_helper_", b"clean_record_shared_mapping_range", b"\xff"],
        ..TEXT
    },
    spec: Parser {
        outcomes: &["the newest", "an epoch", "no directory", "no epoch"],
        tokens: &[b"@", b"/", b"0", b"18446744073709551615", b"18446744073709551616", b"\xff", b"@1"],
        ..TEXT
    },
    time: Parser {
        outcomes: &["a time", "no time at all", "two times", "too long", "no time"],
        tokens: &[
            b"ns", b"us", b"ms", b"s", b"min", b"h", b"d", b"w", b"y", b"..", b" ", b"-", b".", b"1e9",
            b"18446744073709551615", b"584554051y", b"0s", b"\xc2\xb5s",
        ],
        ..TEXT
    },
    word: Parser {
        outcomes: &["a compression", "never", "beyond", "neither"],
        tokens: &[b"zstd", b"lz4", b"none", b"off", b":", b"19", b"-1", b"4294967296", b"+", b"0"],
        ..TEXT
    },
    identity: Parser {
        outcomes: &[
            "sound",
            "its program identity is cut short",
            "its program identity has another length than it says",
            "its program identity has unknown flags",
        ],
        ..TEXT
    },
    head: Parser {
        outcomes: &["no head", "an empty arena", "regions", "regions and a program"],
        tokens: &[b"state\0", b"heap\0"],
        mend: |bytes, random| {
            bytes.resize(bytes.len().max(128), 0);
            put(bytes, 0, b"CKPTHEAD\x01\0\0\0");
            put(bytes, 12, &(random.next() as u32 % 4).to_le_bytes());
            if random.below(2) == 0 {
                put(bytes, 32, &(1u64 << 18).to_le_bytes());
            }
        },
        memory: (24 << 20, 100),
        inputs: 1000,
        ..TEXT
    },
    archive: Parser {
        outcomes: &[
            "a chain",
            "cut off",
            "not what `ckptctl export` writes",
            "not what its B3SUMS says",
            "a foreign file",
            "did not make it: it has a file with an odd name",
            "which is no file",
            "B3SUMS of",
            "twice",
            "half a commit",
            "damaged chain",
            "there is no chain",
            "unsupported chain",
        ],
        tokens: &[b"ustar\0", b"B3SUMS\0", b"segment-0000000001.ckpt\0", b"base-0000000001.ckpt\0", b"../", b"\x80"],
        mend: |bytes, _| mend_archive(bytes),
        memory: (24 << 20, 100),
        inputs: 500,
        ..TEXT
    },
}

#[test]
fn asking() {
    let parser = Parser {
        name: "asking",
        examine: |bytes| examined::asking(Path::new(env!("CARGO_BIN_EXE_ckptctl")), bytes),
        outcomes: &[
            "nobody is there",
            "made no commit",
            "an epoch that cannot be",
        ],
        tokens: &[b"1\n", b"-1\n", b"4194304\n", b"99999999999999999999"],
        mend: mend_control,
        memory: (256 << 10, 64),
        inputs: 100,
    };
    parser.run();
}

#[test]
fn corpora_are_small_and_each_is_of_a_parser() {
    // Files that are opened here are counted elsewhere.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = 0;
    for dir in fs::read_dir(corpus_dir()).unwrap() {
        let dir = dir.unwrap();
        let name = dir.file_name().into_string().unwrap();
        assert!(NAMES.contains(&name.as_str()), "there is no parser {name}");
        for file in fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            let len = file.metadata().unwrap().len();
            assert!(len <= FILE_MAX, "{:?} has {len} bytes", file.path());
            all += len;
        }
    }
    assert!(all <= CORPUS_MAX, "{all} bytes");
}
