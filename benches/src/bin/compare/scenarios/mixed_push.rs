//! 1 KiB pushes alone, and while four large pushes run.

use super::Bench;
use crate::fleet::Per;
use crate::load;
use crate::load::job::{Until, Work};

const NAME: &str = "mixed-push";
const LARGE_STREAMS: usize = 4;
/// Few, so that the times show the wait for large pushes and not for the other small ones.
const CONCURRENCY: usize = 8;

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (large, rounds, length) = (bench.sizes.large, bench.sizes.rounds, 1024);
    let seconds = bench.sizes.small_seconds;
    bench.need_space(large * LARGE_STREAMS as u64)?;
    let (seed, done) = (bench.seeds(), bench.folder.join("large-pushes-done"));
    let mut per_round = Vec::new();
    for _ in 0..rounds {
        per_round.push(
            (0..LARGE_STREAMS)
                .map(|_| bench.blob(large))
                .collect::<Vec<_>>(),
        );
    }
    let members = bench.only_tonnage(&[]);
    bench.fresh_rounds(NAME, rounds, &members, |server, round| {
        let seed = seed + ((round as u64) << 24);
        let work = Work::PushSmall { seed, length };
        let alone = server.measure(CONCURRENCY, Until::Seconds(seconds), work, Per::Requests)?;
        drop(std::fs::remove_file(&done));
        let blobs = per_round[round].clone();
        let until = Until::Count(blobs.len() as u64);
        let work = Work::PushSmall {
            seed: seed + (1 << 23),
            length,
        };
        let small = server.job(CONCURRENCY, Until::Exists(done.clone()), work);
        let beside = server.beside(Per::Requests, || {
            let small = load::start(&small)?;
            let large = server.run(LARGE_STREAMS, until, Work::Push { blobs });
            std::fs::write(&done, "").map_err(|e| format!("write {}: {e}", done.display()))?;
            let small = small.finish()?;
            large.map(|_| small)
        })?;
        Ok(vec![
            ("alone", Per::Requests, alone),
            ("beside four large pushes", Per::Requests, beside),
        ])
    })
}
