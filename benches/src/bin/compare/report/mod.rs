//! The results of runs: the form in which they are saved and merged, and their statistics.
//!
//! Owns: [`Report`], [`Spread`]. Refuses: means, which one slow flush of a drive would dominate.

mod chart;
mod html;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::html::page;
pub use self::table::text;

use crate::fleet::Per;
use crate::machine::Machine;

/// The form of the JSON.
const VERSION: u32 = 1;
/// The name of the program under test.
pub const UNDER_TEST: &str = "tonnage";

/// Figures by their name.
pub type Values = BTreeMap<String, f64>;

/// What a server is in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Tonnage,
    Peer,
    Limit,
}

/// Everything that was measured, in one run or in several.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub runs: Vec<Run>,
    pub cases: Vec<Case>,
    pub not_run: Vec<NotRun>,
}

/// Where and how a run was made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    pub date: String,
    pub commit: String,
    pub command: String,
    pub quick: bool,
    pub sizes: String,
    pub programs: BTreeMap<String, String>,
    pub machine: Machine,
}

/// One measurement of a scenario, of all servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// The index of its run.
    pub run: usize,
    pub scenario: String,
    pub name: String,
    pub rate_unit: String,
    pub cpu_unit: String,
    pub entries: Vec<Entry>,
}

/// The figures of one server, one for each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub server: String,
    pub role: Role,
    pub rounds: Vec<Values>,
}

/// Something that was asked for and not measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotRun {
    pub scenario: String,
    pub why: String,
}

/// The median of the rounds, the lowest and the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, low, high })
    }
}

impl Report {
    pub fn new(run: Run) -> Self {
        Self {
            version: VERSION,
            runs: vec![run],
            ..Self::default()
        }
    }

    /// Adds the figures of one server in one round.
    pub fn add(
        &mut self,
        scenario: &str,
        name: &str,
        per: Per,
        server: (&str, Role),
        values: Values,
    ) {
        let known = |case: &Case| case.scenario == scenario && case.name == name;
        let at = self.cases.iter().position(known).unwrap_or_else(|| {
            self.cases.push(Case {
                run: 0,
                scenario: scenario.to_owned(),
                name: name.to_owned(),
                rate_unit: per.rate_unit().to_owned(),
                cpu_unit: per.cpu_unit().to_owned(),
                entries: Vec::new(),
            });
            self.cases.len() - 1
        });
        let case = &mut self.cases[at];
        match case
            .entries
            .iter_mut()
            .find(|entry| entry.server == server.0)
        {
            Some(entry) => entry.rounds.push(values),
            None => case.entries.push(Entry {
                server: server.0.to_owned(),
                role: server.1,
                rounds: vec![values],
            }),
        }
    }

    /// Removes the figures of a server that failed in a round: they would not be comparable.
    pub fn remove(&mut self, scenario: &str, server: &str) {
        let cases = self
            .cases
            .iter_mut()
            .filter(|case| case.scenario == scenario);
        cases.for_each(|case| case.entries.retain(|entry| entry.server != server));
    }

    /// Records and prints that something was not measured.
    pub fn skip(&mut self, scenario: &str, why: &str) {
        eprintln!("SKIPPED: {scenario}: {why}");
        let same = |known: &NotRun| known.scenario == scenario && known.why == why;
        if !self.not_run.iter().any(same) {
            self.not_run.push(NotRun {
                scenario: scenario.to_owned(),
                why: why.to_owned(),
            });
        }
    }

    pub fn case(&self, scenario: &str, name: &str) -> Option<&Case> {
        self.cases
            .iter()
            .find(|case| case.scenario == scenario && case.name == name)
    }

    /// Returns the names of the scenarios, in the order of their first case.
    pub fn scenarios(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for case in &self.cases {
            if !names.contains(&case.scenario.as_str()) {
                names.push(&case.scenario);
            }
        }
        names
    }

    pub fn load(path: &Path) -> Result<Self, String> {
        let doing = |e: &dyn std::fmt::Display| format!("read {}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| doing(&e))?;
        let report: Self = serde_json::from_str(&text).map_err(|e| doing(&e))?;
        if report.version != VERSION {
            return Err(doing(&format!(
                "version {} is not supported",
                report.version
            )));
        }
        Ok(report)
    }

    /// Adds another report. Where both have a scenario, that of `other` replaces this one's.
    pub fn merge(&mut self, other: Self) {
        let measured: Vec<String> = other.scenarios().into_iter().map(str::to_owned).collect();
        self.cases.retain(|case| !measured.contains(&case.scenario));
        let known = |not: &NotRun| measured.contains(&not.scenario);
        self.not_run.retain(|not| !known(not));
        let first = self.runs.len();
        self.runs.extend(other.runs);
        self.cases.extend(other.cases.into_iter().map(|case| Case {
            run: case.run + first,
            ..case
        }));
        self.not_run.extend(other.not_run);
        self.version = VERSION;
    }
}

impl Case {
    /// Returns the metrics that any of its servers has.
    pub fn metrics(&self) -> Vec<&'static Metric> {
        let shown = |metric: &&Metric| metric.name != "drive_share" || self.scenario == "cold-pull";
        let is_measured = |metric: &&Metric| {
            let mut entries = self.entries.iter();
            entries.any(|entry| entry.spread(metric.name).is_some())
        };
        METRICS.iter().filter(shown).filter(is_measured).collect()
    }

    pub fn entry(&self, server: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.server == server)
    }

    /// Returns the peer with the best median of `metric`.
    pub fn best_peer(&self, metric: &Metric) -> Option<&Entry> {
        let peers = self.entries.iter().filter(|entry| entry.role == Role::Peer);
        let rated = peers.filter_map(|peer| Some((peer, peer.spread(metric.name)?.median)));
        let best = rated.max_by(|(_, a), (_, b)| match metric.higher_is_better {
            true => a.total_cmp(b),
            false => b.total_cmp(a),
        });
        best.map(|(peer, _)| peer)
    }
}

impl Entry {
    pub fn values(&self, metric: &str) -> Vec<f64> {
        self.rounds
            .iter()
            .filter_map(|round| round.get(metric).copied())
            .collect()
    }

    pub fn spread(&self, metric: &str) -> Option<Spread> {
        Spread::of(self.values(metric))
    }

    /// Returns the ratios of this to `other`, round by round.
    pub fn ratio(&self, metric: &str, other: &Self) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratio = |(a, b): (&Values, &Values)| Some(a.get(metric)? / b.get(metric)?);
        Spread::of(pairs.filter_map(ratio).collect())
    }
}

/// What is known of a figure.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    pub higher_is_better: bool,
}

const fn lower(name: &'static str, label: &'static str, unit: &'static str) -> Metric {
    Metric {
        name,
        label,
        unit,
        higher_is_better: false,
    }
}

const fn higher(name: &'static str, label: &'static str, unit: &'static str) -> Metric {
    Metric {
        name,
        label,
        unit,
        higher_is_better: true,
    }
}

/// The units of rate and CPU are those of the case.
pub const RATE: Metric = higher("rate", "rate", "");
pub const CPU: Metric = lower("cpu", "server CPU", "");

/// All figures, in the order of the columns.
pub const METRICS: [Metric; 15] = [
    RATE,
    higher("pull_mib_s", "pulls", "MiB/s"),
    higher("push_mib_s", "pushes", "MiB/s"),
    CPU,
    lower("p50_ms", "p50", "ms"),
    lower("p99_ms", "p99", "ms"),
    lower("server_p99_ms", "p99 at the server", "ms"),
    lower("tail_ms", "201 after the last byte", "ms"),
    lower("unread_p50_kib", "unread in sockets, p50", "KiB"),
    lower("unread_max_kib", "unread in sockets, most", "KiB"),
    lower("seconds", "until ready", "s"),
    lower("bytes_per_blob", "RssAnon per blob", "B"),
    lower("rss_anon_mib", "RssAnon", "MiB"),
    lower("peak_mib", "peak RssAnon + RssShmem", "MiB"),
    higher("drive_share", "read from the drive", "of bytes"),
];

/// Returns the unit of a figure in a case.
pub fn unit_in<'a>(metric: &'a Metric, case: &'a Case) -> &'a str {
    match metric.name {
        "rate" => &case.rate_unit,
        "cpu" => &case.cpu_unit,
        _ => metric.unit,
    }
}

/// Formats a figure with three digits.
pub fn show(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let (head, tail) = digits.split_at(digits.len() - 3);
            format!("{head},{tail}")
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
