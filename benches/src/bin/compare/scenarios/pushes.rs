//! Durable pushes: a large blob in one stream and four in four, 1 KiB blobs, and whole small images.
//!
//! Each server is measured on a new folder and alone. What it stores is removed before the next one starts.

use super::Bench;
use crate::fleet::Per;
use crate::limits::Limit;
use crate::load::job::{Until, Work};

const LARGE: &str = "large-push";
const SMALL: &str = "small-push";
const STREAMS: usize = 4;
const CONCURRENCY: usize = 64;
const SMALL_LENGTH: u64 = 1024;

pub fn large(bench: &mut Bench) -> Result<(), String> {
    let (large, rounds) = (bench.sizes.large, bench.sizes.rounds);
    bench.need_space(large * STREAMS as u64)?;
    for (case, streams) in [("one stream", 1), ("four streams", STREAMS)] {
        let members = bench.members(&[Limit::Loop]);
        let mut per_round = Vec::new();
        for _ in 0..rounds {
            per_round.push((0..streams).map(|_| bench.blob(large)).collect::<Vec<_>>());
        }
        bench.fresh_rounds(LARGE, rounds, &members, |server, round| {
            let work = Work::Push {
                blobs: per_round[round].clone(),
            };
            let values = server.measure(streams, Until::Count(streams as u64), work, Per::Bytes)?;
            Ok(vec![(case, Per::Bytes, values)])
        })?;
    }
    Ok(())
}

pub fn small(bench: &mut Bench) -> Result<(), String> {
    let (seconds, rounds) = (bench.sizes.small_seconds, bench.sizes.rounds);
    let (seed, image_seed, length) = (bench.seeds(), bench.seeds(), SMALL_LENGTH);
    let members = bench.members(&[]);
    bench.fresh_rounds(SMALL, rounds, &members, |server, round| {
        let seed = seed + ((round as u64) << 24);
        let work = Work::PushSmall { seed, length };
        let small = server.measure(CONCURRENCY, Until::Seconds(seconds), work, Per::Requests)?;
        let work = Work::PushImages {
            seed: image_seed + ((round as u64) << 24),
            length,
        };
        let whole = server.measure(CONCURRENCY, Until::Seconds(seconds), work, Per::Requests)?;
        Ok(vec![
            ("1 KiB blobs", Per::Requests, small),
            ("images", Per::Requests, whole),
        ])
    })
}
