//! One client pulls one blob that is in the page cache.

use super::Bench;
use crate::fleet::Per;
use crate::limits::Limit;
use crate::load::job::{Until, Work};

const NAME: &str = "hot-pull";

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (large, repeat, rounds) = (bench.sizes.large, bench.sizes.repeat, bench.sizes.rounds);
    let members = bench.members(&[Limit::Loop, Limit::Nginx]);
    bench.need_space(large * (members.len() as u64 - 1))?;
    let fleet = bench.fleet(NAME, &members, false)?;
    let content = bench.content(large);
    let blobs = fleet.store(&[content], true)?;
    bench.rounds(NAME, 0..rounds, &fleet, |server| {
        let work = Work::Pull {
            blobs: blobs.clone(),
        };
        let values = server.measure(1, Until::Count(repeat), work, Per::Bytes)?;
        Ok(vec![("one stream", Per::Bytes, values)])
    })
}
