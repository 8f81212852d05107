//! What was generated and reached, as tables.

use std::fmt::Display;

use tonnage_tests::model::census::Census;
use tonnage_tests::model::content::SIZES;

/// Prints what was done.
pub fn print(census: &Census) {
    table("calls", census.by_operation.iter());
    let sizes = SIZES
        .iter()
        .map(|size| (size, census.by_size.get(size).unwrap_or(&0)));
    table("bytes pushed at once, calls", sizes);
    table("openings", census.by_branch.iter());
    table("damage to stopped stores", census.by_damage.iter());
    table("places that change the disk", census.by_place.iter());
}

fn table<'a, K: Display + 'a>(title: &str, rows: impl Iterator<Item = (K, &'a u64)>) {
    println!("{title}");
    for (name, count) in rows {
        println!("  {count:>10}  {name}");
    }
}
