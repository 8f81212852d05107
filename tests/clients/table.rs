//! The table of results: printed after every run, and stored as `docs/compatibility.md`.
//!
//! Owns: [`print`], [`write`], [`is_current`]. Refuses: to store the table of a run in which a test failed or was
//! skipped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Conclusion;
use tonnage_tests::say;

use crate::lane::{Lane, Row};
use crate::program::{Client, Required, source_dir};

const HEAD: &str = "\
# Clients

What each client was seen to do with this registry, and the test of `tests/clients` that shows it. The lane writes this
file itself, so it lists only what was run; a client that was not there is in it as SKIPPED. It is written anew, from a
run of every test, by

    TONNAGE_TEST_CLIENTS=all TONNAGE_TEST_WRITE_TABLE=1 cargo test -p tonnage-tests --test clients

A client that is called *replayed* was not there: the test sends what its code sends, request by request, and checks of
the answers what its code checks. The version of such a client is the date of the code that was read. All others are the
programs themselves: those written in Go are built as the `go.mod` files below `tests/clients` pin them, oras-py is the
Python package, and skopeo, podman and buildah are those of Debian 12. Operations that name two clients have moved
content from one to the other and compared it.
";

/// The head of the section of one client, whose heading is its name and version.
const SECTION_HEAD: &str = "| operation | result | test |\n|---|---|---|\n";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md")
}

fn is_to_be_written() -> bool {
    std::env::var("TONNAGE_TEST_WRITE_TABLE").is_ok_and(|value| value == "1")
}

pub fn print(rows: &[Row]) {
    say::print_line("\nclient, version, operation, result");
    for row in rows {
        let (client, version) = (&row.client, &row.version);
        let (operation, result) = (&row.operation, &row.result);
        say::print_line(&format!(
            "{client:<36} {version:<9} {operation:<66} {result}"
        ));
    }
}

/// Writes the table, if that was requested and the run was complete.
pub fn write(rows: &[Row], conclusion: &Conclusion) -> Result<(), String> {
    if !is_to_be_written() {
        return Ok(());
    }
    let left_out = conclusion.num_filtered_out + conclusion.num_ignored;
    let elsewhere = std::env::var_os("TONNAGE_TEST_REGISTRY").is_some();
    let lax = Required::of_environment() == Required::None;
    if conclusion.has_failed() || left_out > 0 || elsewhere || lax {
        return Err(
            "the table was not written: it is of a run of all tests, without failure, with \
             TONNAGE_TEST_CLIENTS and on servers of its own"
                .into(),
        );
    }
    let mut text = HEAD.to_owned();
    let sections = rows.chunk_by(|a, b| (&a.client, &a.version) == (&b.client, &b.version));
    for section in sections {
        let (client, version) = (&section[0].client, &section[0].version);
        write!(text, "\n## {client} {version}\n\n{SECTION_HEAD}").expect("a write to a string");
        for row in section {
            let (operation, result, test) = (&row.operation, &row.result, &row.test);
            writeln!(text, "| {operation} | {result} | `{test}` |").expect("a write to a string");
        }
    }
    let path = path();
    fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
    say::print_line(&format!("written: {}", path.display()));
    Ok(())
}

/// Guards: `docs/compatibility.md` has the results of these tests, with the versions that `go.mod` pins. A change of
/// either requires a new table.
pub fn is_current(lane: &Lane) -> Result<(), String> {
    if is_to_be_written() {
        return Ok(());
    }
    let text = fs::read_to_string(path()).map_err(|e| format!("read {}: {e}", path().display()))?;
    let named: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_suffix("` |")?.rsplit('`').next())
        .collect();
    let tests: BTreeSet<&str> = crate::TESTS.iter().map(|(name, _)| *name).collect();
    let tests: BTreeSet<&str> = tests
        .into_iter()
        .filter(|test| *test != lane.test())
        .collect();
    let differing: Vec<_> = named.symmetric_difference(&tests).collect();
    if !differing.is_empty() {
        return Err(format!(
            "tests that only the code or only the table has: {differing:?}"
        ));
    }
    for client in Client::ALL {
        let Some((module, folder)) = client.module() else {
            continue;
        };
        let pins = source_dir().join(folder).join("go.mod");
        let pins = fs::read_to_string(&pins).map_err(|e| format!("{}: {e}", pins.display()))?;
        let pin = pins.lines().find_map(|line| {
            let rest = line.trim().strip_prefix(module)?.strip_prefix(" v")?;
            rest.split_whitespace().next()
        });
        let pin = pin.ok_or_else(|| format!("no go.mod pins {module}"))?;
        let name = client.name();
        let current = format!("{name} {pin}\n");
        let is_there = text.split("\n## ").any(|section| {
            let is_skipped =
                section.starts_with(&format!("{name} ")) && section.contains("| SKIPPED |");
            is_skipped || section.starts_with(&current)
        });
        if !is_there {
            return Err(format!("the table lacks {name} {pin}, which go.mod pins"));
        }
    }
    Ok(())
}
