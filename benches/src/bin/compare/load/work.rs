//! The units of work of a load: one pull, one range, one request, one push.
//!
//! Owns: the requests that each unit consists of, and the check of every answer.

use std::ops::Range;
use std::time::Instant;

use sha2::{Digest, Sha256};

use tonnage_benches::wire::Answer;

use super::http::Connection;
use super::job::{Blob, Shape, Target, Work};
use crate::content::{Content, digest_text};

/// The repository that everything is in.
pub const REPOSITORY: &str = "bench";
const OCTETS: &str = "Content-Type: application/octet-stream\r\n";
/// The media type of the manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const RESUMED_ONE_IN: u64 = 8;
/// Images are spread over so many repositories, as they are in use.
const IMAGE_REPOSITORIES: u64 = 64;

/// One unit that was done.
#[derive(Debug, Default)]
pub struct Record {
    pub seconds: f64,
    pub bytes: u64,
    pub tail_seconds: Option<f64>,
    pub unread_bytes: Option<u64>,
}

/// A work with all that can be computed before.
pub struct Prepared<'a> {
    work: &'a Work,
    expected: Vec<Option<Vec<u8>>>,
}

impl<'a> Prepared<'a> {
    pub fn of(work: &'a Work) -> Self {
        let expected = match work {
            Work::Requests { targets } => targets.iter().map(expected_body).collect(),
            _ => Vec::new(),
        };
        // Generates the random block.
        Content { seed: 0, length: 1 }.bytes();
        Self { work, expected }
    }

    /// Does the unit with this number.
    pub fn one(&self, connection: &mut Connection, number: u64) -> Result<Record, String> {
        match self.work {
            Work::Pull { blobs } => pull(connection, in_turn(blobs, number)?),
            Work::Ranges { blob, parts, shape } => range(connection, blob, *parts, *shape, number),
            Work::Requests { targets } => {
                let at = number as usize % targets.len();
                request(connection, &targets[at], self.expected[at].as_deref())
            }
            Work::Push { blobs } => push(connection, in_turn(blobs, number)?),
            Work::PushSmall { seed, length } => {
                let content = Content {
                    seed: seed + number,
                    length: *length,
                };
                push_small(connection, REPOSITORY, &content.bytes()).map(|(record, _)| record)
            }
            Work::PushImages { seed, length } => push_image(connection, seed + number, *length),
        }
    }
}

fn expected_body(target: &Target) -> Option<Vec<u8>> {
    let text = target.body.clone().map(String::into_bytes);
    text.or_else(|| target.blob.map(|content| content.bytes()))
}

fn in_turn(blobs: &[Blob], number: u64) -> Result<&Blob, String> {
    blobs
        .get(number as usize % blobs.len().max(1))
        .ok_or_else(|| "no blobs".into())
}

/// Returns the path of a blob.
pub fn blob_path(digest: &str) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}

fn known(blob: &Blob) -> Result<&str, String> {
    blob.digest
        .as_deref()
        .ok_or_else(|| "a blob without digest".into())
}

fn pull(connection: &mut Connection, blob: &Blob) -> Result<Record, String> {
    let length = blob.content.length;
    let begin = Instant::now();
    let path = blob_path(known(blob)?);
    let answer = connection
        .request("GET", &path, "", &[])?
        .expect(200, "GET")?;
    if answer.length != length {
        return Err(format!(
            "{path}: {} bytes instead of {length}",
            answer.length
        ));
    }
    compare(connection, &path, blob.content, 0..length)?;
    Ok(Record {
        seconds: begin.elapsed().as_secs_f64(),
        bytes: length,
        ..Record::default()
    })
}

/// Reads these bytes of a body and compares them with the content.
fn compare(
    connection: &mut Connection,
    path: &str,
    content: Content,
    range: Range<u64>,
) -> Result<(), String> {
    let (mut at, mut same) = (range.start, true);
    connection.body(range.end - range.start, |piece| {
        same &= content.is_at(at, piece);
        at += piece.len() as u64;
    })?;
    if same {
        return Ok(());
    }
    Err(format!(
        "{path}: other content than was pushed in {range:?}"
    ))
}

fn range(
    connection: &mut Connection,
    blob: &Blob,
    parts: u64,
    shape: Shape,
    number: u64,
) -> Result<Record, String> {
    let (Shape::Bounded { bytes } | Shape::Resumed { bytes } | Shape::OpenEnded { bytes }) = shape;
    let length = blob.content.length;
    let start = (number % parts) * (length / parts) + (number / parts) * bytes;
    let end = start + bytes;
    let read = |connection: &mut _, from, to, asked| read_range(connection, blob, from..to, asked);
    let mut record = Record {
        bytes,
        ..Record::default()
    };
    let begin = Instant::now();
    match shape {
        Shape::Bounded { .. } => read(connection, start, end, Some(end))?,
        Shape::Resumed { .. } if number % RESUMED_ONE_IN == RESUMED_ONE_IN - 1 => {
            let middle = start + bytes / 2;
            read(connection, start, middle, Some(end))?;
            connection.reopen()?;
            read(connection, middle, end, Some(end))?;
        }
        Shape::Resumed { .. } => read(connection, start, end, Some(end))?,
        Shape::OpenEnded { .. } => {
            read(connection, start, end, None)?;
            record.unread_bytes = Some(connection.unread_bytes()?);
            connection.reopen()?;
        }
    }
    record.seconds = begin.elapsed().as_secs_f64();
    Ok(record)
}

/// Requests the bytes from the start of `range` to `asked`, or to the end, and reads those of `range`.
fn read_range(
    connection: &mut Connection,
    blob: &Blob,
    range: Range<u64>,
    asked: Option<u64>,
) -> Result<(), String> {
    let (path, start) = (blob_path(known(blob)?), range.start);
    let last = asked.map_or(String::new(), |asked| (asked - 1).to_string());
    let headers = format!("Range: bytes={start}-{last}\r\n");
    let answer = connection
        .request("GET", &path, &headers, &[])?
        .expect(206, "GET of a range")?;
    if asked.is_some_and(|asked| answer.length != asked - start) {
        return Err(format!("{path}: a range of {} bytes", answer.length));
    }
    compare(connection, &path, blob.content, range)
}

fn request(
    connection: &mut Connection,
    target: &Target,
    expected: Option<&[u8]>,
) -> Result<Record, String> {
    let begin = Instant::now();
    let accept = format!("Accept: {MANIFEST}\r\n");
    let answer = connection.request(&target.method, &target.path, &accept, &[])?;
    let answer = answer.expect(200, &target.path)?;
    let mut record = Record::default();
    if let Some(expected) = expected {
        record.bytes = answer.length;
        let (mut at, mut same) = (0, answer.length == expected.len() as u64);
        connection.body(answer.length, |piece| {
            same &= expected.get(at..at + piece.len()) == Some(piece);
            at += piece.len();
        })?;
        if !same {
            return Err(format!("{}: other content than was pushed", target.path));
        }
    }
    record.seconds = begin.elapsed().as_secs_f64();
    Ok(record)
}

fn push(connection: &mut Connection, blob: &Blob) -> Result<Record, String> {
    let begin = Instant::now();
    let at = open_upload(connection, REPOSITORY)?;
    connection.send_head("PATCH", &at, OCTETS, blob.content.length, &[])?;
    let mut hasher = Sha256::new();
    blob.content.each_piece(|piece| {
        if blob.digest.is_none() {
            hasher.update(piece);
        }
        connection.send(piece)
    })?;
    let sent = Instant::now();
    let at = location(&connection.answer()?.expect(202, "PATCH")?)?;
    let digest = blob.digest.clone().unwrap_or_else(|| digest_text(hasher));
    connection
        .request("PUT", &with_digest(&at, &digest), OCTETS, &[])?
        .expect(201, "PUT")?;
    Ok(Record {
        seconds: begin.elapsed().as_secs_f64(),
        bytes: blob.content.length,
        tail_seconds: Some(sent.elapsed().as_secs_f64()),
        unread_bytes: None,
    })
}

/// Pushes by POST and PUT. Returns the digest as well.
fn push_small(
    connection: &mut Connection,
    repository: &str,
    bytes: &[u8],
) -> Result<(Record, String), String> {
    let digest = digest_text(Sha256::new().chain_update(bytes));
    let begin = Instant::now();
    let at = open_upload(connection, repository)?;
    let answer = connection.request("PUT", &with_digest(&at, &digest), OCTETS, bytes)?;
    let answer = answer.expect(201, "PUT")?;
    connection.body(answer.length, |_| {})?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok((
        Record {
            seconds,
            bytes: bytes.len() as u64,
            ..Record::default()
        },
        digest,
    ))
}

fn push_image(connection: &mut Connection, seed: u64, length: u64) -> Result<Record, String> {
    let repository = format!("{REPOSITORY}/i{}", seed % IMAGE_REPOSITORIES);
    let begin = Instant::now();
    let mut blob = |half: u64| {
        let bytes = Content {
            seed: seed * 2 + half,
            length,
        }
        .bytes();
        push_small(connection, &repository, &bytes).map(|(_, digest)| digest)
    };
    let (config, layer) = (blob(0)?, blob(1)?);
    let body = manifest(&config, &layer, length);
    let path = format!("/v2/{repository}/manifests/t{seed}");
    put_manifest(connection, &path, &body)?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Record {
        seconds,
        bytes: length * 2 + body.len() as u64,
        ..Record::default()
    })
}

/// Pushes a manifest.
pub fn put_manifest(connection: &mut Connection, path: &str, body: &str) -> Result<(), String> {
    let headers = format!("Content-Type: {MANIFEST}\r\n");
    let answer = connection.request("PUT", path, &headers, body.as_bytes())?;
    let answer = answer.expect(201, "PUT of a manifest")?;
    connection.body(answer.length, |_| {})
}

/// Returns the manifest of an image whose config and layer have `length` bytes each.
pub fn manifest(config: &str, layer: &str, length: u64) -> String {
    let descriptor = |media: &str, digest: &str| serde_json::json!({"mediaType": media, "digest": digest, "size": length});
    serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string()
}

fn open_upload(connection: &mut Connection, repository: &str) -> Result<String, String> {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = connection
        .request("POST", &path, "", &[])?
        .expect(202, "POST")?;
    location(&answer)
}

/// Returns path and query of a Location, which may be absolute.
fn location(answer: &Answer) -> Result<String, String> {
    let location = answer
        .header("location")
        .ok_or("an answer without Location")?;
    let absolute = location
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    Ok(absolute.unwrap_or(location).to_owned())
}

fn with_digest(at: &str, digest: &str) -> String {
    let joint = if at.contains('?') { '&' } else { '?' };
    format!("{at}{joint}digest={digest}")
}
