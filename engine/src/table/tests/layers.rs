//! Tests of the layers in memory: which one counts, and what a scan returns.

use bytes::Bytes;

use crate::table::{Layers, Runs, Scan, prefix_end};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn with(rows: &[&str]) -> Layers {
    let mut layers = Layers::new(Runs::empty());
    for row in rows {
        layers.put(bytes(row), Some(bytes(row)));
    }
    layers
}

fn keys(scan: Scan) -> Vec<String> {
    scan.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap())
        .collect()
}

/// Guards: the newest layer counts, in lookups and scans; a deletion hides older rows.
#[test]
fn newer_layers_hide_older_ones() {
    let mut layers = with(&["a", "b", "c"]).freeze();
    layers.put(bytes("b"), None);
    layers.put(bytes("c"), Some(bytes("new")));
    layers.put(bytes("d"), Some(bytes("d")));
    assert_eq!(layers.get(b"a").unwrap(), Some(bytes("a")));
    assert_eq!(layers.get(b"b").unwrap(), None);
    assert_eq!(layers.get(b"c").unwrap(), Some(bytes("new")));
    assert_eq!(keys(layers.scan_prefix(b"", None)), ["a", "c", "d"]);
}

/// Guards: a clone is a snapshot, and so is a scan that has begun.
#[test]
fn clones_and_scans_do_not_see_later_changes() {
    let mut layers = with(&["a", "b"]);
    let old = layers.clone();
    let mut scan = layers.scan_prefix(b"", None);
    assert!(scan.next().is_some());
    layers.put(bytes("b"), None);
    layers.put(bytes("c"), Some(bytes("c")));
    assert_eq!(keys(scan), ["b"]);
    assert_eq!(old.get(b"b").unwrap(), Some(bytes("b")));
    assert_eq!(layers.get(b"b").unwrap(), None);
}

/// Guards: a prefix ends where its last byte is incremented, also at 0xff; `after` is exclusive.
#[test]
fn prefix_scans_stay_inside_their_prefix() {
    assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
    assert_eq!(prefix_end(b"\xff\xff"), None);
    let layers = with(&["a", "ba", "bb", "bc", "c"]);
    assert_eq!(keys(layers.scan_prefix(b"b", None)), ["ba", "bb", "bc"]);
    assert_eq!(keys(layers.scan_prefix(b"b", Some(b"bb"))), ["bc"]);
    assert_eq!(
        keys(layers.scan_prefix(b"b", Some(b"a"))),
        ["ba", "bb", "bc"]
    );
    assert!(keys(layers.scan_prefix(b"b", Some(b"c"))).is_empty());
    assert_eq!(keys(layers.scan_prefix(b"", None)).len(), 5);
}

/// Guards: the estimate that starts checkpoints returns to where it was when rows are replaced.
#[test]
fn delta_bytes_follow_replacements() {
    let mut layers = with(&["abc"]);
    let one = layers.delta_bytes();
    layers.put(bytes("abc"), Some(bytes("longer value")));
    layers.put(bytes("abc"), Some(bytes("abc")));
    assert_eq!(layers.delta_bytes(), one);
    layers.put(bytes("abc"), None);
    assert_eq!(layers.delta_bytes(), one - 3);
    assert_eq!(layers.delta.len(), 1);
}
