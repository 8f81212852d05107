//! Pulls of blobs that are not in the page cache: one blob, and eight different ones at once.
//!
//! Before each, the files of the server are synced and dropped by `posix_fadvise`. "read from the drive" shows whether
//! they were cold. The hot pull after it is the other limit, beside the drive's. Before each case the registries are
//! restarted: the kernel keeps what a process has mapped, and then a cold pull would use memory that was free for long,
//! which costs a virtual machine more than memory that was just freed.

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
/// The names of the cold and of the hot case, and the connections.
type Shape = (&'static str, &'static str, usize);
const SHAPES: [Shape; 2] = [
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
        for (shape, blobs) in SHAPES.into_iter().zip(&stored) {
            fleet.restart_registries(&members)?;
            bench.rounds(NAME, 1, &fleet, |server| pull(server, shape, blobs))?;
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
                shape.0,
                Per::Bytes,
                (drive::reader(), Role::Limit),
                values,
            );
        }
    }
    Ok(())
}

/// Pulls cold, then hot.
fn pull(
    server: &Server,
    (cold, hot, connections): Shape,
    blobs: &[Blob],
) -> Result<Measured, String> {
    server.evict()?;
    let pull = |case| {
        let work = Work::Pull {
            blobs: blobs.to_vec(),
        };
        let until = Until::Count(blobs.len() as u64);
        let values = server.measure(connections, until, work, Per::Bytes)?;
        Ok((case, Per::Bytes, values))
    };
    [cold, hot].into_iter().map(pull).collect()
}
