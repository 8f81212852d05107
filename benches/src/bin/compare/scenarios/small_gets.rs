//! Sixty-four clients get small things: manifests by tag, the head of a blob, blobs of 4 KiB. Every byte is compared.

use super::Bench;
use crate::content::Content;
use crate::fleet::Per;
use crate::limits::Limit;
use crate::load::job::{Target, Until, Work};
use crate::load::{REPOSITORY, blob_path, manifest};

const NAME: &str = "small-gets";
const CONCURRENCY: usize = 64;
const BLOBS: usize = 64;
const LENGTH: u64 = 4096;

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (seconds, rounds) = (bench.sizes.small_seconds, bench.sizes.rounds);
    let members = bench.members(&[Limit::Nginx, Limit::Hyper]);
    let fleet = bench.fleet(NAME, &members, false)?;
    let contents: Vec<Content> = (0..BLOBS).map(|_| bench.content(LENGTH)).collect();
    let blobs = fleet.store(&contents, true)?;
    let (mut manifests, mut heads, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    for (number, blob) in blobs.iter().enumerate() {
        let digest = blob.digest.as_deref().ok_or("a blob without digest")?;
        let (path, body) = (
            format!("/v2/{REPOSITORY}/manifests/t{number}"),
            manifest(digest, digest, LENGTH),
        );
        fleet.store_manifest(&path, &body)?;
        let target = |method: &str, path: String| Target {
            method: method.into(),
            path,
            body: None,
            blob: None,
        };
        manifests.push(Target {
            body: Some(body),
            ..target("GET", path)
        });
        heads.push(target("HEAD", blob_path(digest)));
        bodies.push(Target {
            blob: Some(blob.content),
            ..target("GET", blob_path(digest))
        });
    }
    let cases = [
        ("manifest GET by tag", manifests),
        ("HEAD blob", heads),
        ("4 KiB blob GET", bodies),
    ];
    for (case, targets) in cases {
        let work = Work::Requests { targets };
        bench.rounds(NAME, 0..rounds, &fleet, |server| {
            // A tenth of the time first, to warm up connections and caches.
            server.run(CONCURRENCY, Until::Seconds(seconds / 10.0), work.clone())?;
            let values = server.measure(
                CONCURRENCY,
                Until::Seconds(seconds),
                work.clone(),
                Per::Requests,
            )?;
            Ok(vec![(case, Per::Requests, values)])
        })?;
    }
    Ok(())
}
