//! Sixty-four pulls and sixteen pushes of large blobs at once, with manifest GETs beside them.

use super::server_times::ServerTimes;
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
    };
    let pulls = server.job(PULLS, Until::Count(PULLS as u64), work);
    let work = Work::Push {
        blobs: pushed.to_vec(),
    };
    let pushes = server.job(PUSHES, Until::Count(PUSHES as u64), work);
    let times = ServerTimes::begin(server, "GET", "/v2/{name}/manifests/{reference}")?;
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
    values.extend(times.p99()?);
    Ok(vec![("manifest GETs", Per::Requests, values)])
}
