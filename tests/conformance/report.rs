//! The output of the conformance program: `results.yaml` (one row for each API and data set) and `junit.xml` (every
//! test).
//!
//! Owns: [`Report`], which is read from both, and the check of it. Refuses: a report shorter than the one of the
//! present program, so that a run with few tests cannot pass; and any row that is neither a pass nor known to be off.

use std::fmt;
use std::fs;
use std::path::Path;

/// The minimum of rows. The program of August 2026 has as many. It counts 986 tests and lists 793 cases, because it
/// also counts what encloses a case.
const LEAST_APIS: usize = 28;
const LEAST_DATA: usize = 24;
const LEAST_TESTS: usize = 900;
const LEAST_CASES: usize = 700;

/// The data set that is off in the program's `dev` profile: it pushes manifests without their blobs, which the registry
/// rejects by default.
const SPARSE: &str = "Sparse Manifests";

/// Both reports, as counts and rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    apis: Vec<Row>,
    data: Vec<Row>,
    /// The counts in the head of `junit.xml`. Only these show a skip of what encloses cases.
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
    disabled: usize,
    /// The number of cases in `junit.xml` that passed.
    cases: usize,
    /// Every case that did not pass, as `STATUS NAME: REASON`.
    others: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    status: String,
}

impl Report {
    /// Reads both files in `results`. A missing one is an error; it is missing when the program could not begin.
    pub fn read(results: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = results.join(name);
            fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))
        };
        Self::parse(&read("results.yaml")?, &read("junit.xml")?)
    }

    fn parse(yaml: &str, junit: &str) -> Result<Self, String> {
        let suite = elements(junit, "testsuite")
            .next()
            .ok_or("junit.xml has no test suite")?;
        let count = |name| match attribute(suite, name) {
            // The program omits counts of zero.
            None if matches!(name, "skipped" | "disabled") => Ok(0),
            None => Err(format!("junit.xml does not say how many {name}: {suite}")),
            Some(said) => said
                .parse::<usize>()
                .map_err(|e| format!("junit.xml, {name}={said}: {e}")),
        };
        let mut report = Self {
            apis: section(yaml, "apis:")?,
            data: section(yaml, "data:")?,
            tests: count("tests")?,
            failures: count("failures")?,
            errors: count("errors")?,
            skipped: count("skipped")?,
            disabled: count("disabled")?,
            cases: 0,
            others: Vec::new(),
        };
        for case in junit.split("<testcase ").skip(1) {
            match attribute(case, "status") {
                Some("passed") => report.cases += 1,
                status => report.others.push(format!(
                    "{} {}: {}",
                    status.unwrap_or("no status"),
                    attribute(case, "name").unwrap_or("no name"),
                    reason(case)
                )),
            }
        }
        // The program writes none of these today; the JUnit format has them for cases that did not pass.
        for kind in ["skipped", "failure", "error"] {
            for _ in elements(junit, kind) {
                report.others.push(format!("<{kind}>"));
            }
        }
        Ok(report)
    }

    /// Returns an error that lists everything that is wrong. `sparse` tells whether the run had that data set on.
    pub fn check(&self, sparse: bool) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (what, there, least) in [
            ("API rows", self.apis.len(), LEAST_APIS),
            ("data rows", self.data.len(), LEAST_DATA),
            ("tests", self.tests, LEAST_TESTS),
            ("cases that passed", self.cases, LEAST_CASES),
        ] {
            if there < least {
                wrong.push(format!(
                    "only {there} {what}, where the program has at least {least}"
                ));
            }
        }
        for row in self.apis.iter().chain(&self.data) {
            let wanted = match row.name == SPARSE && !sparse {
                true => "Disabled",
                false => "Pass",
            };
            if row.status != wanted {
                wrong.push(format!("row {}: {}", row.name, row.status));
            }
        }
        if !self.data.iter().any(|row| row.name == SPARSE) {
            wrong.push(format!("there is no row {SPARSE}"));
        }
        if [self.failures, self.errors, self.skipped, self.disabled] != [0; 4] {
            wrong.push(format!("junit.xml counts {self}"));
        }
        wrong.extend(self.others.iter().take(40).cloned());
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the conformance program reports:\n  {}",
            wrong.join("\n  ")
        ))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tests, cases, .. } = self;
        let (failures, errors, skipped) = (self.failures, self.errors, self.skipped);
        let (apis, data, disabled) = (self.apis.len(), self.data.len(), self.disabled);
        write!(
            f,
            "{tests} tests, {failures} failures, {errors} errors, {skipped} skipped, {disabled} disabled; \
             {cases} cases passed; {apis} API rows, {data} data rows"
        )
    }
}

/// Returns the rows under the key `head` at the beginning of a line (`config` has indented keys of the same name).
fn section(yaml: &str, head: &str) -> Result<Vec<Row>, String> {
    let mut lines = yaml.lines();
    lines
        .find(|line| *line == head)
        .ok_or_else(|| format!("results.yaml has no `{head}`"))?;
    lines
        .take_while(|line| line.starts_with(' '))
        .map(|line| {
            let (name, status) = line
                .rsplit_once(": ")
                .ok_or_else(|| format!("results.yaml, below `{head}`: {line:?} is no row"))?;
            Ok(Row {
                name: name.trim().to_owned(),
                status: status.trim().to_owned(),
            })
        })
        .collect()
}

/// Returns the opening tag of every element called `name`. Text cannot look like a tag, because it is escaped.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let open = format!("<{name}");
    xml.split('<').skip(1).filter_map(move |piece| {
        let tag = piece.split('>').next()?;
        let called = tag.split([' ', '/', '\n']).next()?;
        (called == &open[1..]).then_some(tag)
    })
}

/// Returns what the program reports about a case that did not pass.
fn reason(case: &str) -> String {
    let said = case.split_once("<system-out>").map(|(_, rest)| rest);
    let said = said.and_then(|rest| rest.split('<').next());
    let said = said.unwrap_or("no reason given");
    said.replace("&#xA;", " ").replace("&#34;", "\"")
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let tag = tag.split('>').next()?;
    let (before, rest) = tag.split_once(&format!("{name}=\""))?;
    let whole = before.is_empty() || before.ends_with(' ');
    whole.then(|| rest.split('"').next())?
}

/// Guards: the check of a report accepts a good one and rejects every kind of bad one.
#[test]
fn only_a_full_report_without_a_skip_is_a_good_one() {
    let good = (sample_yaml(), sample_junit());
    let check = |yaml: &str, junit: &str| Report::parse(yaml, junit).and_then(|r| r.check(false));
    let sparse = |yaml: &str| Report::parse(yaml, &good.1).and_then(|r| r.check(true));
    check(&good.0, &good.1).expect("a good report");

    let yaml = |from: &str, to: &str| check(&good.0.replacen(from, to, 1), &good.1);
    yaml("Api 7: Pass", "Api 7: Skip").expect_err("a skipped API");
    yaml("Api 7: Pass", "Api 7: FAIL").expect_err("a failed API");
    yaml("Data 3: Pass", "Data 3: Disabled").expect_err("a set of data that is off");
    yaml("Data 3: Pass", "Data 3: Error").expect_err("an error");
    yaml("Sparse Manifests: Disabled", "Sparse Manifests: Skip").expect_err("a skipped set");
    yaml("Sparse Manifests: Disabled", "Sparse Manifests: Pass")
        .expect_err("a set that was not run");
    yaml("  Sparse Manifests: Disabled\n", "  Api 99: Pass\n").expect_err("the set is unknown");
    sparse(&good.0).expect_err("a requested set that is off");
    sparse(
        &good
            .0
            .replace("Sparse Manifests: Disabled", "Sparse Manifests: Pass"),
    )
    .expect("a good report with the set");
    yaml("  Api 7: Pass\n", "").expect_err("an API is gone");
    yaml("\napis:\n", "\n").expect_err("all APIs are gone");

    let junit = |from: &str, to: &str| check(&good.0, &good.1.replacen(from, to, 1));
    junit("failures=\"0\"", "failures=\"1\"").expect_err("a failure");
    junit("errors=\"0\"", "errors=\"1\"").expect_err("an error");
    junit("errors=\"0\"", "errors=\"0\" skipped=\"1\"").expect_err("a skip in the counts");
    junit("status=\"passed\"", "status=\"skipped\"").expect_err("a skipped test");
    junit("></testcase>", "><skipped/></testcase>").expect_err("a skip inside a test");
    junit("errors=\"0\"", "errors=\"0\" disabled=\"1\"").expect_err("a disabled test");
    junit("<testcase ", "<other ").expect_err("fewer cases than there are");
    check(&good.0, "").expect_err("an empty junit.xml");
    let few = "<testsuite tests=\"1\" failures=\"0\" errors=\"0\"><testcase name=\"a\" status=\"passed\"/>";
    check(&good.0, few).expect_err("a run of one test");
}

#[cfg(test)]
fn sample_yaml() -> String {
    let rows = |name: &str, count| {
        let rows = (0..count).map(|n| format!("  {name} {n}: Pass\n"));
        rows.collect::<String>()
    };
    format!(
        "config:\n  apis:\n    ping: true\n  data:\n    sparse: false\napis:\n{}data:\n{}  Sparse Manifests: Disabled\n",
        rows("Api", LEAST_APIS),
        rows("Data", LEAST_DATA - 1)
    )
}

#[cfg(test)]
fn sample_junit() -> String {
    let test = "<testcase name=\"a\" status=\"passed\"></testcase>\n";
    format!(
        "<testsuites tests=\"{LEAST_TESTS}\">\n<testsuite tests=\"{LEAST_TESTS}\" failures=\"0\" errors=\"0\">\n{}",
        test.repeat(LEAST_CASES)
    )
}
