//! Pulls of blobs that are not in the page cache: one blob, and eight different ones at once.
//!
//! Before each, the files of the server are synced and dropped by `posix_fadvise`. "read from the drive" shows whether
//! they were cold. The hot pull after it is the other limit, beside the drive's. Before each round the registries are
//! restarted, because the kernel keeps what a process has mapped.

use std::path::PathBuf;

use super::{Bench, Measured};
use crate::fleet::{Per, Server};
use crate::limits::{Limit, drive};
use crate::load::blob_path;
use crate::load::job::{Blob, Until, Work};
use crate::machine::evict;
use crate::report::{Role, Values};

const NAME: &str = "cold-pull";
const AT_ONCE: u64 = 8;
const SHAPES: [(&str, &str, usize); 2] = [
    ("one blob", "one blob, hot", 1),
    ("8 blobs at once", "8 blobs at once, hot", AT_ONCE as usize),
];

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (large, rounds) = (bench.sizes.large, bench.sizes.cold_rounds);
    let members = bench.members(&[Limit::Nginx]);
    bench.need_space(2 * large * members.len() as u64)?;
    let mut fleet = bench.fleet(NAME, &members, false)?;
    // The eight together are as large as the one.
    let one = [bench.content(large)];
    let several: Vec<_> = (0..AT_ONCE)
        .map(|_| bench.content(large / AT_ONCE))
        .collect();
    let stored = [fleet.store(&one, true)?, fleet.store(&several, true)?];
    for _ in 0..rounds {
        fleet.restart_registries(&members)?;
        bench.rounds(NAME, 1, &fleet, |server| pull(server, &stored))?;
        for ((case, _, _), blobs) in SHAPES.into_iter().zip(&stored) {
            evict(&fleet.www)?;
            let paths = blobs
                .iter()
                .filter_map(|blob| blob.digest.as_deref().map(blob_path));
            let files: Vec<PathBuf> = paths
                .map(|path| fleet.www.join(path.trim_start_matches('/')))
                .collect();
            let values = Values::from([("rate".into(), drive::read_cold(&files)?)]);
            bench.report.add(
                NAME,
                case,
                Per::Bytes,
                (drive::reader(), Role::Limit),
                values,
            );
        }
    }
    Ok(())
}

fn pull(server: &Server, stored: &[Vec<Blob>; 2]) -> Result<Measured, String> {
    let mut all = Vec::new();
    for ((cold, hot, connections), blobs) in SHAPES.into_iter().zip(stored) {
        server.evict()?;
        for case in [cold, hot] {
            let work = Work::Pull {
                blobs: blobs.clone(),
            };
            let until = Until::Count(blobs.len() as u64);
            all.push((
                case,
                Per::Bytes,
                server.measure(connections, until, work, Per::Bytes)?,
            ));
        }
    }
    Ok(all)
}
