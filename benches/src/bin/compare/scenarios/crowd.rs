//! Sixty-four pulls and sixteen pushes of large blobs at once, with manifest GETs beside them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{Bench, MIB, Measured};
use crate::content::Content;
use crate::fleet::{Per, Server};
use crate::load::job::{Blob, Outcome, Target, Until, Work};
use crate::load::{self, REPOSITORY, manifest};

const NAME: &str = "crowd";
const PULLS: usize = 64;
const PUSHES: usize = 16;
const GETS: usize = 2;

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (length, rounds) = (bench.sizes.crowd, bench.sizes.rounds);
    bench.need_space(length * (PUSHES as u64 + 1))?;
    let pulled = bench.blob(length);
    let small = bench.blob(4096);
    let mut pushed = Vec::new();
    for _ in 0..PUSHES {
        pushed.push(bench.blob(length));
    }
    let done = bench.folder.join("crowd-done");
    let members = bench.members(&[]);
    bench.fresh_rounds(NAME, rounds, &members, |server, _| {
        crowd(server, &pulled, &small, &pushed, &done)
    })
}

fn crowd(
    server: &Server,
    pulled: &Blob,
    small: &Blob,
    pushed: &[Blob],
    done: &std::path::Path,
) -> Result<Measured, String> {
    let stored = vec![pulled.clone(), small.clone()];
    server.run(
        1,
        Until::Count(2),
        Work::Push {
            blobs: stored.clone(),
        },
    )?;
    server.check(&stored)?;
    let digest = small.digest.as_deref().ok_or("a blob without digest")?;
    let Content { length, .. } = small.content;
    let (path, body) = (
        format!("/v2/{REPOSITORY}/manifests/latest"),
        manifest(digest, digest, length),
    );
    load::put_manifest(
        &mut load::http::Connection::open(&server.endpoint)?,
        &path,
        &body,
    )?;
    drop(std::fs::remove_file(done));

    let targets = vec![Target {
        method: "GET".into(),
        path,
        body: Some(body),
        blob: None,
    }];
    let gets = server.job(
        GETS,
        Until::Exists(done.to_owned()),
        Work::Requests { targets },
    );
    let work = Work::Pull {
        blobs: vec![pulled.clone()],
        verify: false,
    };
    let pulls = server.job(PULLS, Until::Count(PULLS as u64), work);
    let work = Work::Push {
        blobs: pushed.to_vec(),
    };
    let pushes = server.job(PUSHES, Until::Count(PUSHES as u64), work);
    let before = server.admin.map(histogram).transpose()?;
    let mut rates = None;
    let mut values = server.beside(Per::Requests, || {
        let (gets, pulls, pushes) = (
            load::start(&gets)?,
            load::start(&pulls)?,
            load::start(&pushes)?,
        );
        let (pulls, pushes) = (pulls.finish(), pushes.finish());
        std::fs::write(done, "").map_err(|e| format!("write {}: {e}", done.display()))?;
        let gets = gets.finish()?;
        let rate = |of: Outcome| of.bytes as f64 / MIB as f64 / of.seconds;
        rates = Some((rate(pulls?), rate(pushes?)));
        Ok(gets)
    })?;
    // The CPU time is that of all of them.
    values.remove("cpu");
    if let Some((pull, push)) = rates {
        values.extend([("pull_mib_s".into(), pull), ("push_mib_s".into(), push)]);
    }
    if let (Some(before), Some(admin)) = (before, server.admin) {
        let after = histogram(admin)?;
        values.extend(p99_between(&before, &after).map(|p99| ("server_p99_ms".into(), p99)));
    }
    Ok(vec![("manifest GETs", Per::Requests, values)])
}

/// The counts of requests by the upper bound of their time in nanoseconds.
type Histogram = BTreeMap<u64, f64>;

/// Reads the times from the head of a request to the first byte of its answer, of manifest GETs.
fn histogram(admin: SocketAddr) -> Result<Histogram, String> {
    let read = || {
        let mut stream = TcpStream::connect(admin)?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|e| format!("read the metrics of {admin}: {e}"))?;
    let lines = text.lines().filter(|line| {
        line.starts_with("registry_http_first_byte_seconds_bucket")
            && line.contains("/manifests/")
            && line.contains("method=\"GET\"")
    });
    let bucket = |line: &str| {
        let bound = line.split_once("le=\"")?.1.split_once('"')?.0;
        let bound = bound.parse::<f64>().ok().filter(|bound| bound.is_finite());
        let bound = bound.map_or(u64::MAX, |seconds| (seconds * 1e9) as u64);
        Some((bound, line.rsplit_once(' ')?.1.parse().ok()?))
    };
    Ok(lines.filter_map(bucket).collect())
}

/// Returns the p99 of the requests between two readings, in ms, linear inside a bucket, as Prometheus computes it.
fn p99_between(before: &Histogram, after: &Histogram) -> Option<f64> {
    let counted = |bound: &u64, count: &f64| count - before.get(bound).unwrap_or(&0.0);
    let total = after
        .last_key_value()
        .map(|(bound, count)| counted(bound, count))?;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in after {
        let (count, high) = (counted(bound, count), *bound as f64 / 1e6);
        if count >= total * 0.99 && count > below {
            return Some(low + (high - low) * (total * 0.99 - below) / (count - below));
        }
        (low, below) = (high, count);
    }
    None
}
