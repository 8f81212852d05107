//! Tables of what was generated and reached.

use std::fmt::Display;

use tonnage_tests::model::census::Census;
use tonnage_tests::model::content::SIZES;

/// Prints the tables.
pub fn print(census: &Census) {
    table("calls", census.by_operation.iter());
    let sizes = SIZES
        .iter()
        .map(|size| (size, census.by_size.get(size).unwrap_or(&0)));
    table("bytes pushed at once, calls", sizes);
    table("openings", census.by_branch.iter());
    table("damage to stopped stores", census.by_damage.iter());
    let reached = |name| {
        census
            .by_place
            .keys()
            .any(|(place, class)| *place == name && !class.is_empty())
    };
    let places = census
        .by_place
        .iter()
        .filter(|((place, class), _)| !class.is_empty() || !reached(*place))
        .map(|((place, class), count)| (format!("{place} {class}"), count));
    table("call sites that change the disk, and their classes", places);
}

fn table<'a, K: Display>(title: &str, rows: impl Iterator<Item = (K, &'a u64)>) {
    println!("{title}");
    for (name, count) in rows {
        println!("  {count:>10}  {name}");
    }
}
