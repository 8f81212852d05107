//! The time from the last byte of a push to its 201, for blobs of three sizes, generated and hashed while sent.

use super::{Bench, GIB};
use crate::fleet::Per;
use crate::load::job::{Blob, Until, Work};

const NAME: &str = "finish";
const CASES: [&str; 3] = ["smallest blob", "middle blob", "largest blob"];

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (sizes, rounds) = (bench.sizes.finish, bench.sizes.rounds);
    let members = bench.members(&[]);
    for (case, length) in CASES.into_iter().zip(sizes) {
        // Beside the blob, so that the drive is not nearly full while it is measured.
        if let Err(why) = bench.need_space(length + length / 2) {
            bench
                .report
                .skip(NAME, &format!("{case}, {} GiB: {why}", length / GIB));
            continue;
        }
        let contents: Vec<_> = (0..rounds).map(|_| bench.content(length)).collect();
        bench.fresh_rounds(NAME, rounds, &members, |server, round| {
            let blobs = vec![Blob {
                content: contents[round],
                digest: None,
            }];
            let values = server.measure(1, Until::Count(1), Work::Push { blobs }, Per::Bytes)?;
            Ok(vec![(case, Per::Bytes, values)])
        })?;
    }
    Ok(())
}
