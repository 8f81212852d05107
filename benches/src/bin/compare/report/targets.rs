//! The targets: what must hold, and whether it does in a report.
//!
//! Owns: the reading of `targets.txt`, and the comparison. A ratio is the median of the ratios of the rounds. Refuses:
//! targets that depend on the speed of one machine.

use super::table::spread_text;
use super::{METRICS, Metric, Report, Role, Spread, UNDER_TEST, show};

const TABLE: &str = include_str!("targets.txt");

/// What a figure of tonnage is compared with.
#[derive(Debug)]
enum Of {
    /// The best peer in the same case.
    BestPeer,
    /// A server in the same case.
    Server(&'static str),
    /// tonnage in another case of the scenario.
    Case(&'static str),
    /// In each round the lower of two: the reader of the drive in the same case, and tonnage in another case.
    Lower(&'static str),
    /// Nothing: the figure itself.
    Itself,
    /// The drive's flush of 64 MiB: the figure less that.
    Flush,
    /// The median of its own case.
    OwnMedian,
    /// Another case: how much further apart the medians are than the rounds of one.
    Noise(&'static str),
}

/// One condition.
#[derive(Debug)]
struct Check {
    case: &'static str,
    metric: &'static Metric,
    of: Of,
    at_least: bool,
    bound: f64,
}

/// Whether a goal was met.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Met,
    /// By how much of the bound.
    Missed(String),
    Unknown,
}

/// A target with what was reached.
pub struct Row {
    pub scenario: &'static str,
    pub text: &'static str,
    pub goals: Vec<Reached>,
}

/// A goal with what was reached.
pub struct Reached {
    pub text: &'static str,
    pub reached: Option<String>,
    pub verdict: Verdict,
}

/// Compares a report with all targets.
///
/// # Panics
/// If the table is malformed.
pub fn rows(report: &Report) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let row = match line.strip_prefix("  ") {
            Some(goal) => rows.last_mut().and_then(|row| {
                row.goals.push(reach(report, row.scenario, goal)?);
                Some(())
            }),
            None => line.split_once(": ").map(|(scenario, text)| {
                rows.push(Row {
                    scenario,
                    text,
                    goals: Vec::new(),
                });
            }),
        };
        assert!(row.is_some(), "targets.txt: {line}");
    }
    rows
}

fn parse(goal: &'static str) -> Option<(&'static str, Vec<Check>)> {
    let fields: Vec<&'static str> = goal.split('|').map(str::trim).collect();
    let (text, conditions) = fields.split_first()?;
    let check = |fields: &[&'static str]| {
        let [case, metric, of, bound] = *fields else {
            return None;
        };
        let (comparison, bound) = bound.split_once(' ')?;
        let metric = METRICS.iter().find(|known| known.name == metric)?;
        let (of, at_least) = (parse_of(of)?, comparison == ">=");
        Some(Check {
            case,
            metric,
            of,
            at_least,
            bound: bound.parse().ok()?,
        })
    };
    Some((
        text,
        conditions.chunks(4).map(check).collect::<Option<_>>()?,
    ))
}

fn parse_of(text: &'static str) -> Option<Of> {
    match text {
        "best peer" => return Some(Of::BestPeer),
        "itself" => return Some(Of::Itself),
        "flush" => return Some(Of::Flush),
        "own median" => return Some(Of::OwnMedian),
        _ => {}
    }
    let (word, name) = text.split_once(' ')?;
    match word {
        "server" => Some(Of::Server(name)),
        "case" => Some(Of::Case(name)),
        "lower" => Some(Of::Lower(name)),
        "noise" => Some(Of::Noise(name)),
        _ => None,
    }
}

fn reach(report: &Report, scenario: &str, goal: &'static str) -> Option<Reached> {
    let (text, checks) = parse(goal)?;
    let measured = |check: &Check| value(report, scenario, check);
    let found: Vec<_> = checks
        .iter()
        .filter_map(|check| Some((check, measured(check)?)))
        .collect();
    let is_met = |(check, of): &(&Check, Spread)| match check.at_least {
        true => of.median >= check.bound,
        false => of.median <= check.bound,
    };
    let shown: Vec<_> = found.iter().map(|(_, of)| spread_text(*of)).collect();
    let verdict = match found.first() {
        None => Verdict::Unknown,
        Some(_) if found.iter().any(is_met) => Verdict::Met,
        Some((check, of)) if check.bound == 0.0 => Verdict::Missed(show(of.median)),
        Some((check, of)) => {
            let by = (of.median / check.bound - 1.0).abs() * 100.0;
            Verdict::Missed(format!("{by:.0} %"))
        }
    };
    let reached = (!shown.is_empty()).then(|| shown.join("; "));
    Some(Reached {
        text,
        reached,
        verdict,
    })
}

fn value(report: &Report, scenario: &str, check: &Check) -> Option<Spread> {
    let (case, metric) = (report.case(scenario, check.case)?, check.metric.name);
    let own = case.entry(UNDER_TEST)?;
    let spread = own.spread(metric)?;
    let other = |name| report.case(scenario, name)?.entry(UNDER_TEST);
    let less = |by: f64| Spread {
        median: spread.median - by,
        low: spread.low - by,
        high: spread.high - by,
    };
    match check.of {
        Of::Itself => Some(spread),
        Of::BestPeer => own.ratio(metric, case.best_peer(check.metric)?),
        Of::Server(name) => own.ratio(metric, case.entry(name)?),
        Of::Case(name) => own.ratio(metric, other(name)?),
        Of::OwnMedian => {
            let rounds = own.rounds.iter();
            let ratio = rounds.filter_map(|round| Some(round.get(metric)? / round.get("p50_ms")?));
            Spread::of(ratio.collect())
        }
        Of::Lower(name) => {
            // The reader of the drive is the only limit without CPU time.
            let is_drive =
                |entry: &&super::Entry| entry.role == Role::Limit && entry.spread("cpu").is_none();
            let drive = case.entries.iter().find(is_drive)?.values(metric);
            let hot = other(name)?.values(metric);
            let lower = drive.iter().zip(&hot).map(|(drive, hot)| drive.min(*hot));
            Spread::of(
                own.values(metric)
                    .iter()
                    .zip(lower)
                    .map(|(own, of)| own / of)
                    .collect(),
            )
        }
        Of::Flush => Some(less(report.runs.get(case.run)?.machine.flush_of_64_mib_ms)),
        Of::Noise(name) => {
            let other = other(name)?.spread(metric)?;
            let noise = (spread.high - spread.low).max(other.high - other.low);
            Some(less(other.median + noise))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rows;
    use crate::report::Report;

    /// Guards: every line of the table of targets is understood.
    #[test]
    fn the_table_of_targets_is_well_formed() {
        let rows = rows(&Report::default());
        assert!(rows.iter().all(|row| !row.goals.is_empty()));
        assert!(rows.iter().all(|row| {
            crate::scenarios::ALL
                .iter()
                .any(|(name, _)| *name == row.scenario)
        }));
    }
}
