//! Stores written by each version of the format, opened by the present one.
//!
//! `tests/fixtures/NAME/store` is the store, and `expected` beside it lists its content.
//! `TONNAGE_TEST_WRITE_FIXTURE=NAME` writes `NAME-closed` and `NAME-stopped` with the present version, once for each
//! change of FORMAT.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tonnage_engine::UploadId;
use tonnage_tests::machine::Image;
use tonnage_tests::model::fixture::{describe, load, save};
use tonnage_tests::model::flips::{Specimen, left, task};
use tonnage_tests::model::recover::{recover, store_path};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Guards: a store written by any version opens, has its content, continues its uploads, and passes `fsck` before and
/// after.
#[test]
fn stores_of_every_version_open() {
    if let Ok(name) = std::env::var("TONNAGE_TEST_WRITE_FIXTURE") {
        write(&name);
    }
    let mut seen = 0;
    let mut entries: Vec<_> = fs::read_dir(folder())
        .expect("there are fixtures")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    entries.sort();
    for fixture in entries {
        let name = fixture.display();
        let image = load(&fixture.join("store")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = fs::read_to_string(fixture.join("expected"));
        let expected = expected.unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = recover(&task(uploads(&image)), &image);
        let found = found.unwrap_or_else(|violation| panic!("{name}: {violation:?}"));
        assert_eq!(describe(&found), expected, "{name}");
        seen += 1;
    }
    println!("{seen} stores of earlier versions opened");
    assert!(seen >= 2, "the fixtures are gone");
}

/// Returns the uploads of a store, by the names of their logs.
fn uploads(image: &Image) -> BTreeMap<UploadId, tonnage_tests::model::record::SentUpload> {
    let directory = store_path().join("uploads");
    let logs = image
        .files
        .keys()
        .filter(|path| path.starts_with(&directory));
    let id = |path: &PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.parse::<UploadId>().ok());
        id.unwrap_or_else(|| panic!("{} is no upload log", path.display()))
    };
    logs.map(|path| (id(path), left())).collect()
}

fn write(name: &str) {
    for (kind, closed) in [("closed", true), ("stopped", false)] {
        let fixture = folder().join(format!("{name}-{kind}"));
        assert!(
            !fixture.exists(),
            "{} exists; a fixture is written once",
            fixture.display()
        );
        let specimen = Specimen::new(closed);
        save(&specimen.image, &fixture.join("store")).expect("it can be written");
        let text = describe(&specimen.found);
        fs::write(fixture.join("expected"), text).expect("it can be written");
    }
}
