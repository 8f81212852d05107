//! Flips of single bits of a store, in one byte after the other.

use std::collections::BTreeMap;

use tonnage_tests::model::flips::{Outcome, Specimen};

/// The distance between the bytes of a plain run; `sim --flips` (tests/sim) covers every byte.
const STEP: usize = 211;

/// Guards: FORMAT.md, "Blast radius": in a closed store and in a killed one, a flipped bit is noticed wherever the
/// format covers it, is never served, and costs no more than the format says.
#[test]
fn a_turned_bit_is_noticed_and_reaches_no_farther_than_the_format_says() {
    for closed in [true, false] {
        let specimen = Specimen::new(closed);
        let mut tally: BTreeMap<Outcome, u64> = BTreeMap::new();
        for (path, size) in specimen.files() {
            // Headers and the bytes after them are sampled at another phase for each file.
            let first = path.as_os_str().len() as u64 % 7;
            for at in (first..size).step_by(STEP) {
                let outcome = specimen.flip(&path, at);
                let outcome = outcome.unwrap_or_else(|violation| panic!("{violation:?}"));
                *tally.entry(outcome).or_default() += 1;
            }
        }
        println!("closed: {closed}: {tally:?}");
        for outcome in [
            Outcome::Refused,
            Outcome::Unreadable,
            Outcome::Found,
            Outcome::Upload,
        ] {
            assert!(
                tally.contains_key(&outcome),
                "no byte led to {outcome:?}: {tally:?}"
            );
        }
        assert_eq!(
            closed,
            !tally.contains_key(&Outcome::Uncovered),
            "{tally:?}"
        );
    }
}
