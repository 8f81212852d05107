//! Bar charts as inline SVG.
//!
//! Owns: [`bars`]. A bar is the median, the line across its end the lowest and the highest round. The figures stand as
//! text beside the bars, and the description names them, so nothing depends on colour. Colours come from the page's
//! style sheet.

use std::fmt::Write;

use super::html::escape;
use super::{Case, Metric, Role, show, unit_in};

const WIDTH: f64 = 420.0;
const LABEL: f64 = 118.0;
const FIGURE: f64 = 58.0;
const ROW: f64 = 24.0;
const TOP: f64 = 22.0;

/// Returns the chart of one figure of a case; empty if fewer than two servers have it. Writing to a string cannot fail.
pub fn bars(case: &Case, metric: &Metric) -> String {
    let rows: Vec<_> = case
        .entries
        .iter()
        .filter_map(|entry| Some((entry, entry.spread(metric.name)?)))
        .collect();
    let most = rows
        .iter()
        .map(|(_, spread)| spread.high)
        .fold(0.0, f64::max);
    if rows.len() < 2 || most <= 0.0 {
        return String::new();
    }
    let unit = unit_in(metric, case);
    let better = if metric.higher_is_better {
        "more is better"
    } else {
        "less is better"
    };
    let title = format!("{}, {unit} ({better})", metric.label);
    let told: Vec<_> = rows
        .iter()
        .map(|(entry, spread)| format!("{} {}", entry.server, show(spread.median)))
        .collect();
    let described = format!("{}: {title}: {}", case.name, told.join(", "));
    let height = TOP + ROW * rows.len() as f64 + 4.0;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n<text class=\"title\" x=\"0\" y=\"13\">{}</text>\n",
        escape(&described),
        escape(&title)
    );
    let scale = (WIDTH - LABEL - FIGURE) / most;
    for (number, (entry, spread)) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        let (middle, end) = (top + ROW / 2.0, LABEL + spread.median * scale);
        let (low, high) = (LABEL + spread.low * scale, LABEL + spread.high * scale);
        let role = class(entry.role);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{role}\" x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/>\
             <path class=\"spread\" d=\"M{low:.1} {middle:.1}H{high:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LABEL - 6.0,
            middle + 4.0,
            escape(&entry.server),
            top + 3.0,
            end - LABEL,
            ROW - 6.0,
            high.max(end) + 5.0,
            middle + 4.0,
            show(spread.median)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Returns the style class of a role.
pub fn class(role: Role) -> &'static str {
    match role {
        Role::Tonnage => "tonnage",
        Role::Peer => "peer",
        Role::Limit => "limit",
    }
}
