//! 1 KiB pushes alone, and while four large pushes run.

use super::Bench;
use super::server_times::ServerTimes;
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
    let members = bench.members(&[]);
    bench.fresh_rounds(NAME, rounds, &members, |server, round| {
        let seed = seed + ((round as u64) << 24);
        let work = Work::PushSmall { seed, length };
        // Of the request that ends a push. The four large ones are too few to count.
        let times = ServerTimes::begin(server, "PUT", "/v2/{name}/blobs/uploads/{id}")?;
        let until = Until::Seconds(seconds);
        let mut alone = server.measure(CONCURRENCY, until, work, Per::Requests)?;
        alone.extend(times.p99()?);
        drop(std::fs::remove_file(&done));
        let blobs = per_round[round].clone();
        let until = Until::Count(blobs.len() as u64);
        let work = Work::PushSmall {
            seed: seed + (1 << 23),
            length,
        };
        let small = server.job(CONCURRENCY, Until::Exists(done.clone()), work);
        let times = ServerTimes::begin(server, "PUT", "/v2/{name}/blobs/uploads/{id}")?;
        let mut beside = server.beside(Per::Requests, || {
            let small = load::start(&small)?;
            let large = server.run(LARGE_STREAMS, until, Work::Push { blobs });
            std::fs::write(&done, "").map_err(|e| format!("write {}: {e}", done.display()))?;
            let small = small.finish()?;
            large.map(|_| small)
        })?;
        beside.extend(times.p99()?);
        Ok(vec![
            ("alone", Per::Requests, alone),
            ("beside four large pushes", Per::Requests, beside),
        ])
    })
}
