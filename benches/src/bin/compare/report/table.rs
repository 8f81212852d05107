//! The results as text.

use std::fmt::Write;

use super::targets::{self, Verdict};
use super::{RATE, Report, Role, Spread, UNDER_TEST, show, unit_in};

/// Returns all cases with their ratios, then the targets. Writing to a string cannot fail.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for case in &report.cases {
        let run = &report.runs[case.run];
        let size = if run.quick {
            " (quick: small sizes)"
        } else {
            ""
        };
        let _ = writeln!(out, "\n{} / {}{size}", case.scenario, case.name);
        for metric in case.metrics() {
            let _ = writeln!(out, "  {}, {}", metric.label, unit_in(metric, case));
            let own = case.entry(UNDER_TEST);
            for entry in &case.entries {
                let Some(spread) = entry.spread(metric.name) else {
                    continue;
                };
                let ratio =
                    own.filter(|own| own.server != entry.server && metric.name != "drive_share");
                let ratio = ratio.and_then(|own| own.ratio(metric.name, entry));
                let ratio = ratio.map_or(String::new(), |of| {
                    format!("  tonnage is x {}", spread_text(of))
                });
                let role = if entry.role == Role::Limit {
                    "limit: "
                } else {
                    ""
                };
                let name = format!("{role}{}", entry.server);
                let _ = writeln!(out, "    {name:<24}{:<34}{ratio}", spread_text(spread));
            }
        }
        if let Some(best) = case.best_peer(&RATE) {
            let _ = writeln!(out, "  best peer: {}", best.server);
        }
    }
    let _ = writeln!(out, "\nTargets");
    let measured = |row: &targets::Row| report.scenarios().contains(&row.scenario);
    for row in targets::rows(report).into_iter().filter(measured) {
        let _ = writeln!(out, "  {}: {}", row.scenario, row.text);
        for goal in &row.goals {
            let reached = goal
                .reached
                .clone()
                .unwrap_or_else(|| "not measured".into());
            let verdict = match &goal.verdict {
                Verdict::Met => "met".to_owned(),
                Verdict::Missed(by) => format!("MISSED by {by}"),
                Verdict::Unknown => "not run".to_owned(),
            };
            let _ = writeln!(out, "    {:<58}{reached:<34}{verdict}", goal.text);
        }
    }
    for not in &report.not_run {
        let _ = writeln!(out, "NOT RUN: {}: {}", not.scenario, not.why);
    }
    out
}

/// Formats a median with the lowest and the highest value.
pub fn spread_text(of: Spread) -> String {
    format!(
        "{} [{} to {}]",
        show(of.median),
        show(of.low),
        show(of.high)
    )
}
