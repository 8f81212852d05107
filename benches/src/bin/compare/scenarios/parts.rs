//! Sixteen clients read one blob in ranges, in the three ways that clients have.
//!
//! The single stream of the same run is what their aggregate is compared with.

use super::{Bench, MIB};
use crate::fleet::Per;
use crate::limits::Limit;
use crate::load::job::{Shape, Until, Work};

const NAME: &str = "parts";
const PARTS: u64 = 16;
const SHAPES: [(&str, Shape, u64); 3] = [
    ("8 MiB ranges", Shape::Bounded { bytes: 8 * MIB }, 8 * MIB),
    (
        "32 MiB ranges, resumed",
        Shape::Resumed { bytes: 32 * MIB },
        32 * MIB,
    ),
    (
        "open ranges, dropped",
        Shape::OpenEnded { bytes: 8 * MIB },
        8 * MIB,
    ),
];

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (length, rounds) = (bench.sizes.parts, bench.sizes.rounds);
    bench.need_space(length * 2)?;
    // Without peers: copies of all of them would not fit into the page cache.
    let fleet = bench.fleet(NAME, &bench.only_tonnage(&[Limit::Loop]), false)?;
    let content = bench.content(length);
    let blobs = fleet.store(&[content], true)?;
    let blob = blobs.first().ok_or("no blob")?;
    bench.rounds(NAME, 0..rounds, &fleet, |server| {
        let work = Work::Pull {
            blobs: blobs.clone(),
        };
        let values = server.measure(1, Until::Count(1), work, Per::Bytes)?;
        let mut all = vec![("one stream", Per::Bytes, values)];
        for (case, shape, bytes) in SHAPES {
            let work = Work::Ranges {
                blob: blob.clone(),
                parts: PARTS,
                shape,
            };
            let values = server.measure(
                PARTS as usize,
                Until::Count(length / bytes),
                work,
                Per::Bytes,
            )?;
            all.push((case, Per::Bytes, values));
        }
        Ok(all)
    })
}
