//! The official OCI conformance program against a `tonnage` of its own: every API and every data set that its
//! profile of the distribution spec's main branch has on (`OCI_VERSION=dev`), with the default configuration; and all of that once
//! more with sparse manifests allowed, and the data set on that pushes them.
//!
//! Owns: the lane and what a good report is; `program` runs the program, `report` reads what it wrote. Refuses: its exit
//! code as a proof, for it ends with 0 when it could not begin, and takes a skip for a pass. A program that is not here
//! is a loud line (`TONNAGE_TEST_CLIENTS=require` makes it a failure).

mod program;
mod report;

use std::path::Path;

use tonnage_tests::process::{Server, folder};
use tonnage_tests::say;

use crate::program::Program;
use crate::report::Report;

/// Guards: the distribution API to the letter, as the people who wrote the spec test it: no failure, no error, no skip
/// (distribution-spec main, whose rules include those of release 1.1).
#[test]
fn the_official_program_finds_nothing_to_fail_or_skip() {
    conform(false);
}

/// Guards: the same where the operator allows manifests whose content is not there (spec, "Pushing manifests": "MAY reject"),
/// with the set of data that pushes such images and indexes.
#[test]
fn nor_where_sparse_manifests_are_allowed() {
    conform(true);
}

fn conform(sparse: bool) {
    let what = match sparse {
        true => "the OCI conformance program, sparse manifests",
        false => "the OCI conformance program",
    };
    let program = match Program::find() {
        Ok(program) => program,
        Err(why) => {
            say::skipped(what, &why);
            assert!(
                !say::required("TONNAGE_TEST_CLIENTS"),
                "the conformance program is required (TONNAGE_TEST_CLIENTS): {why}"
            );
            return;
        }
    };
    let results = folder().expect("a folder for the reports");
    // Both forms of an entry: the program pushes to `conformance/repo1` and `conformance/repo2`.
    let options = ["--sparse-repositories", "conformance/repo1,conformance/*"];
    let server = match sparse {
        true => Server::start_with(&options),
        false => Server::start(),
    };
    let server = server.expect("a server");
    if let Err(why) = judge(&program, &server, sparse, results.path()) {
        panic!(
            "{why}\nWhat the program wrote is kept (report.html has every request and answer): {}\nThe server said:\n{}",
            results.keep().display(),
            server.log()
        );
    }
}

fn judge(program: &Program, server: &Server, sparse: bool, results: &Path) -> Result<(), String> {
    let said = program.run(server.address(), sparse, results)?;
    let report =
        Report::read(results).map_err(|why| format!("{why}\nThe program ended with {said}"))?;
    let with = if sparse {
        ", sparse manifests allowed"
    } else {
        ""
    };
    say::aloud(&format!(
        "conformance {}{with}: {report}",
        program.version()
    ));
    report.complaints(sparse)?;
    if said.success {
        return Ok(());
    }
    Err(format!("all rows pass, yet the program ended with {said}"))
}
