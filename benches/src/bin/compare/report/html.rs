//! The results as one HTML page without outside parts.
//!
//! Owns: [`page`]. Refuses: scripts, fonts and pictures of other places; anything that is not in the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::chart::{bars, class};
use super::targets::{self, Verdict};
use super::{METRICS, Report, Run, UNDER_TEST, show, unit_in};

/// What each scenario measures and how the content is checked.
const ABOUT: [(&str, &str); 11] = [
    (
        "hot-pull",
        "One client pulls one blob that is in the page cache, without TLS.",
    ),
    (
        "parts",
        "16 clients read one blob of the page cache in ranges. Every eighth range of 32 MiB is dropped in its \
      middle and resumed. An open range is dropped after 8 MiB; what is then in the sockets of server and client was \
      sent in vain. How many windows the server read is not measured.",
    ),
    (
        "cold-pull",
        "Before each pull the files are synced and dropped from the page cache (posix_fadvise). The drive's \
      limit is a buffered sequential read of the files of tonnage's store in one thread each, which compares nothing, \
      just before the pull. The files of every server are read twice before its pull, of which the second time is the \
      limit, so that what the drive or its host keeps of them is the same for all.",
    ),
    (
        "tls-pull",
        "TLS 1.3 with AES-256-GCM. HTTP/1.1 by the load client, HTTP/2 by curl, which costs more than a server. What \
      curl pulls is compared by its SHA-256 once, and not while it is timed.",
    ),
    (
        "small-gets",
        "64 connections. Every byte of every answer is compared.",
    ),
    (
        "large-push",
        "POST, one PATCH, PUT on a new store. The limit receives, hashes (SHA-256), writes and syncs in one \
      thread for each stream.",
    ),
    (
        "small-push",
        "64 connections; POST, PUT for each blob. An image is a config, a layer and a manifest with a tag.",
    ),
    (
        "mixed-push",
        "8 connections push blobs of 1 KiB, first alone, then while four large pushes run.",
    ),
    (
        "finish",
        "From the last byte of the body to the 201. The content is generated and hashed while it is sent.",
    ),
    (
        "start",
        "From the start of the process to its first answer. Memory is RssAnon less that of an empty store.",
    ),
    (
        "crowd",
        "64 pulls and 16 pushes at once; two connections get a manifest meanwhile. The p99 at the server comes \
      from its own histogram, linear inside a bucket.",
    ),
];

/// Returns the page. `notes` has a reason for some scenarios. Writing to a string cannot fail.
pub fn page(report: &Report, notes: &BTreeMap<String, String>) -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Tonnage beside other registries</title>\n<style>\n",
    );
    out.push_str(include_str!("page.css"));
    out.push_str("</style>\n</head>\n<body>\n<main>\n<h1>Tonnage beside other registries</h1>\n");
    let quick: BTreeSet<&str> = report
        .cases
        .iter()
        .filter(|case| report.runs.get(case.run).is_some_and(|run| run.quick))
        .map(|case| case.scenario.as_str())
        .collect();
    if !quick.is_empty() {
        let _ = writeln!(
            out,
            "<p><strong>Quick runs:</strong> {}. Their sizes are small (below), so the figures are coarser, and those \
             of pushes show the drive's buffers. The targets are meant for the full sizes.</p>",
            escape(&Vec::from_iter(quick).join(", "))
        );
    }
    method(&mut out, report);
    table_of_targets(&mut out, report, notes);
    for name in report.scenarios() {
        scenario(&mut out, report, name);
    }
    if !report.not_run.is_empty() {
        out.push_str("<h2>Not run</h2>\n<ul>\n");
        for not in &report.not_run {
            let _ = writeln!(
                out,
                "<li>{}: {}</li>",
                escape(&not.scenario),
                escape(&not.why)
            );
        }
        out.push_str("</ul>\n");
    }
    arithmetic(&mut out, report);
    runs(&mut out, report);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn method(out: &mut String, report: &Report) {
    let cores = report
        .runs
        .iter()
        .map(|run| run.machine.cores)
        .max()
        .unwrap_or_default();
    let shared = if cores <= 2 {
        format!(
            "Client and server share the {cores} cores of this machine, so a client that costs less time makes a server \
             faster. The CPU time of the server for each byte and request, which is given too, does not depend on \
             the client."
        )
    } else {
        "Servers and client have half of the cores each.".into()
    };
    let _ = writeln!(
        out,
        "<p>All servers run on the same disk with durability on and their defaults otherwise. In each round every \
         server is measured once, one after the other, in alternating order. Figures are medians of the rounds, with \
         the lowest and the highest. Ratios are medians of the ratios in each round. {shared} Every push has unique \
         random content, and the load client compares every byte that it pulls with what was pushed. A limit does \
         only what no server can avoid: the write loop sends a mapped file to the socket, nginx uses sendfile. \
         Neither checks what it sends; Tonnage checks every chunk.</p>\n\
         <p class=\"key\" aria-hidden=\"true\"><span class=\"tonnage\"></span>Tonnage\
         <span class=\"peer\"></span>other registries<span class=\"limit\"></span>limits</p>"
    );
}

fn table_of_targets(out: &mut String, report: &Report, notes: &BTreeMap<String, String>) {
    out.push_str(
        "<h2>Targets</h2>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Target</th>\
         <th scope=\"col\" class=\"figure\">Reached</th><th scope=\"col\">Met</th></tr></thead>\n<tbody>\n",
    );
    for row in targets::rows(report) {
        let why = notes
            .get(row.scenario)
            .map(|why| format!("<br><small>{}</small>", escape(why)));
        let _ = writeln!(
            out,
            "<tr><th scope=\"rowgroup\" colspan=\"3\">{}{}</th></tr>",
            escape(row.text),
            why.unwrap_or_default()
        );
        for goal in row.goals {
            let verdict = match goal.verdict {
                Verdict::Met => "<span class=\"met\">met</span>".into(),
                Verdict::Missed(by) => {
                    format!("<span class=\"missed\">missed by {}</span>", escape(&by))
                }
                Verdict::Unknown => "<span class=\"notrun\">not run</span>".into(),
            };
            let reached = goal.reached.unwrap_or_else(|| "–".into());
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"figure\">{}</td><td>{verdict}</td></tr>",
                escape(goal.text),
                escape(&reached)
            );
        }
    }
    out.push_str("</tbody></table></div>\n");
}

fn scenario(out: &mut String, report: &Report, name: &str) {
    let about = ABOUT
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, about)| about);
    let _ = writeln!(out, "<h2 id=\"{0}\">{0}</h2>\n<p>{about}</p>", escape(name));
    for case in report.cases.iter().filter(|case| case.scenario == name) {
        let _ = writeln!(
            out,
            "<h3>{}</h3>\n<div class=\"charts\">",
            escape(&case.name)
        );
        let charted = ["rate", "cpu", "p99_ms", "peak_mib"];
        for metric in METRICS
            .iter()
            .filter(|metric| charted.contains(&metric.name))
        {
            out.push_str(&bars(case, metric));
        }
        out.push_str("</div>\n");
        figures(out, case);
    }
}

/// The figures of a case as a table; it is open where there is no chart.
fn figures(out: &mut String, case: &super::Case) {
    let used = case.metrics();
    let open = if case.entries.len() < 2 { " open" } else { "" };
    let _ = write!(
        out,
        "<details{open}><summary>Figures</summary><div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Server</th>"
    );
    for metric in &used {
        let label = format!("{}, {}", metric.label, unit_in(metric, case));
        let _ = write!(
            out,
            "<th scope=\"col\" class=\"figure\">{}</th>",
            escape(&label)
        );
    }
    out.push_str(
        "<th scope=\"col\" class=\"figure\">rate of Tonnage to this</th></tr></thead>\n<tbody>\n",
    );
    let own = case.entry(UNDER_TEST);
    for entry in &case.entries {
        let role = if class(entry.role) == "limit" {
            "limit: "
        } else {
            ""
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{role}{}</th>",
            escape(&entry.server)
        );
        for metric in &used {
            let cell = entry.spread(metric.name).map_or("–".into(), |of| {
                format!(
                    "{} <small>{} to {}</small>",
                    show(of.median),
                    show(of.low),
                    show(of.high)
                )
            });
            let _ = write!(out, "<td class=\"figure\">{cell}</td>");
        }
        let ratio = own
            .filter(|own| own.server != entry.server)
            .and_then(|own| own.ratio("rate", entry));
        let ratio = ratio.map_or("–".into(), |of| {
            format!(
                "{} <small>{} to {}</small>",
                show(of.median),
                show(of.low),
                show(of.high)
            )
        });
        let _ = writeln!(out, "<td class=\"figure\">{ratio}</td></tr>");
    }
    out.push_str("</tbody></table></div></details>\n");
}

/// What 100 Gb/s would take by the CPU time of a pull.
fn arithmetic(out: &mut String, report: &Report) {
    let cpu = |scenario, name| {
        let entry = report.case(scenario, name)?.entry(UNDER_TEST)?;
        entry.spread("cpu").map(|spread| spread.median)
    };
    let pulls = [
        ("plain", cpu("hot-pull", "one stream")),
        ("TLS, HTTP/1.1", cpu("tls-pull", "HTTP/1.1")),
        ("TLS, HTTP/2", cpu("tls-pull", "HTTP/2")),
    ];
    let gib_per_second = 100e9 / 8.0 / f64::from(1 << 30);
    out.push_str("<h2>What one box needs for 100 Gb/s</h2>\n");
    let _ = writeln!(
        out,
        "<p>This is arithmetic, not a measurement. 100 Gb/s are {gib_per_second:.2} GiB/s. Cores of this machine that a \
         hot pull of that rate takes, from the CPU time for each GiB above:</p>\n<ul>"
    );
    for (name, cpu) in pulls {
        let Some(cpu) = cpu else { continue };
        let _ = writeln!(
            out,
            "<li>{name}: {gib_per_second:.2} GiB/s × {} s/GiB = {:.1} cores</li>",
            show(cpu),
            gib_per_second * cpu
        );
    }
    out.push_str(
        "</ul>\n<p>It assumes that the time for each byte stays the same with more cores, and that a network card costs \
         what loopback costs. The memory bandwidth is at least three times the rate: the page cache is read once to check it \
         and once to copy it, and the copy is written.</p>\n",
    );
}

fn runs(out: &mut String, report: &Report) {
    out.push_str("<h2>Machine and command</h2>\n");
    for (number, run) in report.runs.iter().enumerate() {
        if report.cases.iter().any(|case| case.run == number) {
            one_run(out, report, number, run);
        }
    }
}

fn one_run(out: &mut String, report: &Report, number: usize, run: &Run) {
    let mut scenarios: Vec<&str> = Vec::new();
    for case in report.cases.iter().filter(|case| case.run == number) {
        if !scenarios.contains(&case.scenario.as_str()) {
            scenarios.push(&case.scenario);
        }
    }
    let machine = &run.machine;
    let programs: Vec<_> = run
        .programs
        .iter()
        .map(|(name, version)| format!("{name}: {version}"))
        .collect();
    let sha = if machine.sha_ni { "with" } else { "without" };
    let rows = [
        ("Scenarios", scenarios.join(", ")),
        ("Date", run.date.clone()),
        ("Commit", run.commit.clone()),
        ("Versions", programs.join("; ")),
        (
            "CPU",
            format!(
                "{} cores, {}, {sha} SHA extensions",
                machine.cores, machine.cpu
            ),
        ),
        ("Memory", machine.memory.clone()),
        ("Kernel", machine.kernel.clone()),
        ("File system", machine.file_system.clone()),
        (
            "Flush",
            format!(
                "{} ms after 4 KiB, {} ms after 64 MiB (measured, medians)",
                show(machine.flush_of_4_kib_ms),
                show(machine.flush_of_64_mib_ms)
            ),
        ),
        ("Load before", machine.load_average_before.clone()),
        (
            "Sizes",
            format!("{}{}", if run.quick { "quick: " } else { "" }, run.sizes),
        ),
    ];
    out.push_str("<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    let _ = writeln!(
        out,
        "<dt>Command</dt><dd><code>{}</code></dd>\n</dl>",
        escape(&run.command)
    );
}

/// Replaces the characters that HTML reserves.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
