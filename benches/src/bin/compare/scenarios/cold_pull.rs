//! Pulls of blobs that are not in the page cache: one blob, and eight different ones at once.
//!
//! Before each, the files of the server are synced and dropped by `posix_fadvise`. "read from the drive" shows whether
//! they were cold. The hot pull after it is one limit. The other is the drive's: what holds the same blobs in the
//! server's own folder is read just before, and dropped again. So both read the same places of the drive. What the
//! drive or its host keeps of them is the same for all: the files of each have been read once before anything is timed.
//!
//! Before each case the registries are restarted: the kernel keeps what a process has mapped, and then a cold pull
//! would use memory that was free for long, which costs a virtual machine more than memory that was just freed.

use std::cell::Cell;

use super::{Bench, Measured};
use crate::fleet::{Per, Server};
use crate::limits::{Limit, drive};
use crate::load::job::{Blob, Until, Work};
use crate::machine::files_between;
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
    for round in 0..rounds {
        for (shape, blobs) in SHAPES.into_iter().zip(&stored) {
            fleet.restart_registries(&members)?;
            let drive = Cell::new(None);
            bench.rounds(NAME, round..round + 1, &fleet, |server| {
                read_files(server, blobs)?;
                let rate = read_files(server, blobs)?;
                if server.role == Role::Tonnage {
                    drive.set(Some(rate));
                }
                pull(server, shape, blobs)
            })?;
            let rate = drive.get().ok_or("the drive was not measured")?;
            let values = Values::from([("rate".into(), rate)]);
            let reader = (drive::reader(), Role::Limit);
            bench.report.add(NAME, shape.0, Per::Bytes, reader, values);
        }
    }
    Ok(())
}

/// Reads the files in which a server keeps the blobs, side by side. Returns MiB per second.
fn read_files(server: &Server, blobs: &[Blob]) -> Result<f64, String> {
    let length = blobs.first().map_or(0, |blob| blob.content.length);
    server.evict()?;
    let files = files_between(&server.folder, length..length + length / 64)?;
    if files.len() != blobs.len() {
        let (found, wanted) = (files.len(), blobs.len());
        return Err(format!(
            "{}: {found} files of {length} bytes in place of {wanted}",
            server.name
        ));
    }
    drive::read_cold(&files)
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
