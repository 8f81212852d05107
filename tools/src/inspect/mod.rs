//! Decodes the files of a store, one file at a time.
//!
//! Owns: detecting the kind of a file by its magic, and [`Findings`], the form of every result.
//! Refuses: writing, taking a lock, and checking the store as a whole. A file may be read while a server writes it.
//! Secrets (the index's hash key, journal nonces) are never shown.

mod cache;
mod directory;
mod journal;
mod segment;
mod superblock;
mod upload;

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The decoded content of one file or directory.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    /// The kind of file, in the terms of FORMAT.md.
    pub(crate) kind: &'static str,
    /// Facts about the whole.
    pub(crate) facts: Map<String, Value>,
    /// Its parts, in the order of the file.
    pub(crate) parts: Vec<Value>,
    /// Problems that were found.
    pub(crate) problems: Vec<String>,
}

impl Findings {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            facts: Map::new(),
            parts: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    fn part(&mut self, part: Value) {
        self.parts.push(part);
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }
}

/// Decodes a file of a store, or lists the store's directory.
pub(crate) fn look(path: &Path) -> io::Result<Findings> {
    // Without waiting for the other end of a FIFO.
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return directory::look(path);
    }
    if !metadata.is_file() {
        let what = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let file = Inspected {
        file,
        path,
        length: metadata.len(),
    };
    let magic = file.read(0, 8)?;
    match magic.as_slice() {
        b"TONNAGE1" => superblock::look(&file),
        b"TNSEGMNT" => segment::look(&file),
        b"TNJOURNL" => journal::look(&file),
        b"TNUPLOAD" => upload::look(&file),
        b"TNRUNFIL" => cache::run(&file),
        b"TNCHKPNT" => cache::checkpoint(&file),
        _ => {
            let mut findings = Findings::new("unknown");
            findings.fact("bytes", file.length);
            findings.problem("it does not begin with the magic of a Tonnage file");
            Ok(findings)
        }
    }
}

/// A file that is being decoded.
struct Inspected<'a> {
    file: File,
    path: &'a Path,
    length: u64,
}

impl Inspected<'_> {
    /// Reads up to `count` bytes at `offset`, fewer at the end of the file.
    fn read(&self, offset: u64, count: u64) -> io::Result<Vec<u8>> {
        let there = self.length.saturating_sub(offset).min(count);
        let too_much =
            |_| io::Error::new(io::ErrorKind::InvalidData, "larger than the address space");
        let mut bytes = vec![0; usize::try_from(there).map_err(too_much)?];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Returns the number in a name such as `000000000000002a.segment`.
    fn number_in_name(&self) -> Option<u64> {
        u64::from_str_radix(self.path.file_stem()?.to_str()?, 16).ok()
    }
}

/// Formats bytes as lowercase hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Formats a wall-clock time as RFC 3339 UTC.
fn time(unix_ms: u64) -> Value {
    let timestamp = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(
        || json!(format!("{unix_ms} ms after 1970")),
        |at| json!(at.to_string()),
    )
}

/// Returns the 16 bytes at offset 16, where most headers have the store id.
fn store_id_in(header: &[u8]) -> [u8; 16] {
    header
        .get(16..32)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_default()
}

/// Returns the little-endian number at `at`, or 0.
fn number_in(header: &[u8], at: usize) -> u64 {
    let bytes = header
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}
