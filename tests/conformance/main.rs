//! The official OCI conformance program against its own `tonnage`. The first run has the default configuration and
//! every API and data set of the program's profile for the main branch of the distribution spec (`OCI_VERSION=dev`).
//! The second run allows sparse manifests and adds the data set that pushes them.
//!
//! Owns: the tests, and the criteria of a good report; `program` runs the program, `report` reads its output. Refuses:
//! its exit code as a proof, because it is 0 also when the program could not begin, and ignores skips. A missing
//! program prints a message (`TONNAGE_TEST_CLIENTS=require` makes it a failure).

mod program;
mod report;

use std::path::Path;

use tonnage_tests::process::{Server, folder};
use tonnage_tests::say;

use crate::program::Program;
use crate::report::Report;

/// Guards: the distribution API as its authors test it: no failure, no error, no skip (distribution-spec main, whose
/// rules include those of release 1.1).
#[test]
fn the_official_program_passes_without_a_skip() {
    conform(false);
}

/// Guards: the same where the operator allows manifests without their content (spec, "Pushing manifests": "MAY
/// reject"), with the data set that pushes such images and indexes.
#[test]
fn it_passes_with_sparse_manifests_allowed() {
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
    if let Err(why) = check(&program, &server, sparse, results.path()) {
        panic!(
            "{why}\nThe program's reports are kept (report.html has every request and answer): {}\n\
             Log of the server:\n{}",
            results.keep().display(),
            server.log()
        );
    }
}

fn check(program: &Program, server: &Server, sparse: bool, results: &Path) -> Result<(), String> {
    let said = program.run(server.address(), sparse, results)?;
    let report =
        Report::read(results).map_err(|why| format!("{why}\nThe program ended with {said}"))?;
    let with = if sparse {
        ", sparse manifests allowed"
    } else {
        ""
    };
    say::print_line(&format!(
        "conformance {}{with}: {report}",
        program.version()
    ));
    report.check(sparse)?;
    if said.success {
        return Ok(());
    }
    Err(format!("all rows pass, yet the program ended with {said}"))
}
