//! The targets: what must hold, and whether it does in a report.
//!
//! Owns: the table of targets, and the comparison. A ratio is the median of the ratios of the rounds. Refuses: targets
//! that depend on the speed of one machine.

use super::table::spread_text;
use super::{CPU, Metric, RATE, Report, Spread, UNDER_TEST, lower, show};

const P99: Metric = lower("p99_ms", "p99", "ms");

/// What a figure of tonnage is compared with.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// The best peer in the same case.
    BestPeer,
    /// A server in the same case.
    Server(&'static str),
    /// tonnage in another case of the scenario.
    Case(&'static str),
    /// The lower of a limit in the same case and tonnage in another one, round by round.
    Lower(&'static [&'static str], &'static str),
    /// Nothing: the figure itself.
    Itself,
    /// The time of the drive's flush of 64 MiB: the figure less that.
    Flush,
    /// The median of the same figure over the whole case (p99 by the median of its own case).
    OwnMedian,
    /// Another case: how much further apart than the rounds of each are. Negative if they overlap.
    Noise(&'static str),
}

/// One condition.
#[derive(Debug, Clone, Copy)]
struct Check {
    case: &'static str,
    metric: Metric,
    of: Of,
    at_least: bool,
    bound: f64,
}

/// A goal: met if one of its checks is.
struct Goal {
    text: &'static str,
    checks: &'static [Check],
}

struct Target {
    scenario: &'static str,
    text: &'static str,
    goals: &'static [Goal],
}

const fn min(case: &'static str, of: Of, bound: f64) -> Check {
    Check {
        case,
        metric: RATE,
        of,
        at_least: true,
        bound,
    }
}

const fn max(case: &'static str, metric: Metric, of: Of, bound: f64) -> Check {
    Check {
        case,
        metric,
        of,
        at_least: false,
        bound,
    }
}

const fn goal(text: &'static str, checks: &'static [Check]) -> Goal {
    Goal { text, checks }
}

const FIO: &[&str] = &["fio", "read loop"];
const UNREAD: Metric = lower("unread_kib", "unread", "KiB");
const TAIL: Metric = lower("tail_ms", "tail", "ms");
const SECONDS: Metric = lower("seconds", "seconds", "s");
const PER_BLOB: Metric = lower("bytes_per_blob", "per blob", "B");
const MEMORY: Metric = lower("peak_mib", "memory", "MiB");
const SERVER_P99: Metric = lower("server_p99_ms", "p99", "ms");

const TARGETS: &[Target] = &[
    Target {
        scenario: "hot-pull",
        text: "hot pull, one stream, plain",
        goals: &[
            goal(
                "rate: at least 0.95 of the write loop",
                &[min("one stream", Of::Server("loop"), 0.95)],
            ),
            goal(
                "CPU: at most 1.1 of the write loop",
                &[max("one stream", CPU, Of::Server("loop"), 1.1)],
            ),
            goal(
                "rate: at least 1.5 of the best peer",
                &[min("one stream", Of::BestPeer, 1.5)],
            ),
            goal(
                "rate: at least 1.2 of nginx with sendfile",
                &[min("one stream", Of::Server("nginx"), 1.2)],
            ),
        ],
    },
    Target {
        scenario: "parts",
        text: "16 parts of one blob",
        goals: &[
            goal(
                "8 MiB ranges: rate at least 0.9 of one stream",
                &[min("8 MiB ranges", Of::Case("one stream"), 0.9)],
            ),
            goal(
                "32 MiB, resumed: rate at least 0.9 of one stream",
                &[min("32 MiB ranges, resumed", Of::Case("one stream"), 0.9)],
            ),
            goal(
                "open ranges: rate at least 0.9 of one stream",
                &[min("open ranges, dropped", Of::Case("one stream"), 0.9)],
            ),
            goal(
                "8 MiB ranges: p99 at most 3 times the median",
                &[max("8 MiB ranges", P99, Of::OwnMedian, 3.0)],
            ),
            goal(
                "32 MiB, resumed: p99 at most 3 times the median",
                &[max("32 MiB ranges, resumed", P99, Of::OwnMedian, 3.0)],
            ),
            goal(
                "open ranges: p99 at most 3 times the median",
                &[max("open ranges, dropped", P99, Of::OwnMedian, 3.0)],
            ),
            goal(
                "open ranges: at most 1 MiB in sockets unread, KiB",
                &[max("open ranges, dropped", UNREAD, Of::Itself, 1024.0)],
            ),
        ],
    },
    Target {
        scenario: "cold-pull",
        text: "cold pull",
        goals: &[
            goal(
                "one: at least 0.85 of the lower of fio and hot",
                &[min("one blob", Of::Lower(FIO, "one blob, hot"), 0.85)],
            ),
            goal(
                "8: at least 0.85 of the lower of fio and hot",
                &[min(
                    "8 blobs at once",
                    Of::Lower(FIO, "8 blobs at once, hot"),
                    0.85,
                )],
            ),
            goal(
                "one: 1.3 of the best peer, or 0.9 of the limit",
                &[
                    min("one blob", Of::BestPeer, 1.3),
                    min("one blob", Of::Lower(FIO, "one blob, hot"), 0.9),
                ],
            ),
            goal(
                "8: 1.3 of the best peer, or 0.9 of the limit",
                &[
                    min("8 blobs at once", Of::BestPeer, 1.3),
                    min(
                        "8 blobs at once",
                        Of::Lower(FIO, "8 blobs at once, hot"),
                        0.9,
                    ),
                ],
            ),
        ],
    },
    Target {
        scenario: "tls-pull",
        text: "TLS pull, one stream, the same cipher",
        goals: &[
            goal(
                "HTTP/1.1: at least 0.9 of nginx",
                &[min("HTTP/1.1", Of::Server("nginx"), 0.9)],
            ),
            goal(
                "HTTP/2: at least 0.9 of nginx",
                &[min("HTTP/2", Of::Server("nginx"), 0.9)],
            ),
        ],
    },
    Target {
        scenario: "small-gets",
        text: "small GETs, concurrency 64",
        goals: &[
            goal(
                "manifest by tag: at least 1.0 of nginx",
                &[min("manifest GET by tag", Of::Server("nginx"), 1.0)],
            ),
            goal(
                "HEAD blob: at least 1.0 of nginx",
                &[min("HEAD blob", Of::Server("nginx"), 1.0)],
            ),
            goal(
                "4 KiB blob: at least 1.0 of nginx",
                &[min("4 KiB blob GET", Of::Server("nginx"), 1.0)],
            ),
            goal(
                "manifest by tag: at least 0.9 of a bare hyper answer",
                &[min("manifest GET by tag", Of::Server("bare hyper"), 0.9)],
            ),
            goal(
                "HEAD blob: at least 0.9 of a bare hyper answer",
                &[min("HEAD blob", Of::Server("bare hyper"), 0.9)],
            ),
            goal(
                "4 KiB blob: at least 0.9 of a bare hyper answer",
                &[min("4 KiB blob GET", Of::Server("bare hyper"), 0.9)],
            ),
            goal(
                "manifest by tag: at least 4 of the best peer",
                &[min("manifest GET by tag", Of::BestPeer, 4.0)],
            ),
            goal(
                "HEAD blob: at least 4 of the best peer",
                &[min("HEAD blob", Of::BestPeer, 4.0)],
            ),
            goal(
                "4 KiB blob: at least 4 of the best peer",
                &[min("4 KiB blob GET", Of::BestPeer, 4.0)],
            ),
        ],
    },
    Target {
        scenario: "large-push",
        text: "durable push",
        goals: &[
            goal(
                "one stream: at least 0.9 of receive-hash-write-sync",
                &[min("one stream", Of::Server("loop"), 0.9)],
            ),
            goal(
                "four: at least 0.9 of receive-hash-write-sync",
                &[min("four streams", Of::Server("loop"), 0.9)],
            ),
            goal(
                "one stream: 2 of the best peer, or 0.9 of the limit",
                &[
                    min("one stream", Of::BestPeer, 2.0),
                    min("one stream", Of::Server("loop"), 0.9),
                ],
            ),
            goal(
                "four: 2 of the best peer, or 0.9 of the limit",
                &[
                    min("four streams", Of::BestPeer, 2.0),
                    min("four streams", Of::Server("loop"), 0.9),
                ],
            ),
        ],
    },
    Target {
        scenario: "small-push",
        text: "small pushes, concurrency 64",
        goals: &[
            goal(
                "1 KiB blobs: at least 8 of the best peer",
                &[min("1 KiB blobs", Of::BestPeer, 8.0)],
            ),
            goal(
                "images: at least 8 of the best peer",
                &[min("images", Of::BestPeer, 8.0)],
            ),
        ],
    },
    Target {
        scenario: "mixed-push",
        text: "1 KiB pushes while four large pushes run",
        goals: &[goal(
            "p99: at most 3 times that without them",
            &[max("beside four large pushes", P99, Of::Case("alone"), 3.0)],
        )],
    },
    Target {
        scenario: "finish",
        text: "201 after the last byte",
        goals: &[
            goal(
                "largest: under 200 ms beyond the flush of 64 MiB, ms",
                &[max("largest blob", TAIL, Of::Flush, 200.0)],
            ),
            goal(
                "largest and smallest: apart at most the noise, ms",
                &[max("largest blob", TAIL, Of::Noise("smallest blob"), 0.0)],
            ),
        ],
    },
    Target {
        scenario: "start",
        text: "start with millions of blobs",
        goals: &[
            goal(
                "clean: under 0.2 s",
                &[max(
                    "most blobs, after a clean stop",
                    SECONDS,
                    Of::Itself,
                    0.2,
                )],
            ),
            goal(
                "after kill -9: under 5 s",
                &[max("most blobs, after kill -9", SECONDS, Of::Itself, 5.0)],
            ),
            goal(
                "anonymous memory: under 64 bytes a blob",
                &[max(
                    "most blobs, after a clean stop",
                    PER_BLOB,
                    Of::Itself,
                    64.0,
                )],
            ),
        ],
    },
    Target {
        scenario: "crowd",
        text: "64 pulls and 16 pushes at once, manifest GETs beside them",
        goals: &[
            goal(
                "RssAnon + RssShmem under 256 MiB",
                &[max("manifest GETs", MEMORY, Of::Itself, 256.0)],
            ),
            goal(
                "manifest p99 at the server under 5 ms",
                &[max("manifest GETs", SERVER_P99, Of::Itself, 5.0)],
            ),
        ],
    },
];

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
pub fn rows(report: &Report) -> Vec<Row> {
    let row = |target: &Target| Row {
        scenario: target.scenario,
        text: target.text,
        goals: target
            .goals
            .iter()
            .map(|goal| reach(report, target.scenario, goal))
            .collect(),
    };
    TARGETS.iter().map(row).collect()
}

fn reach(report: &Report, scenario: &str, goal: &Goal) -> Reached {
    let found = goal
        .checks
        .iter()
        .filter_map(|check| Some((check, value(report, scenario, check)?)));
    let found: Vec<_> = found.collect();
    let is_met = |(check, of): &(&Check, Spread)| match check.at_least {
        true => of.median >= check.bound,
        false => of.median <= check.bound,
    };
    let shown = found
        .iter()
        .map(|(_, of)| spread_text(*of))
        .collect::<Vec<_>>()
        .join("; ");
    let verdict = match found.first() {
        None => Verdict::Unknown,
        Some(_) if found.iter().any(is_met) => Verdict::Met,
        Some((check, of)) if check.bound == 0.0 => Verdict::Missed(show(of.median)),
        Some((check, of)) => {
            let by = (of.median / check.bound - 1.0).abs() * 100.0;
            Verdict::Missed(format!("{by:.0} %"))
        }
    };
    Reached {
        text: goal.text,
        reached: (!found.is_empty()).then_some(shown),
        verdict,
    }
}

fn value(report: &Report, scenario: &str, check: &Check) -> Option<Spread> {
    let (case, metric) = (report.case(scenario, check.case)?, check.metric.name);
    let own = case.entry(UNDER_TEST)?;
    let spread = own.spread(metric)?;
    let shifted = |by: f64| Spread {
        median: spread.median - by,
        low: spread.low - by,
        high: spread.high - by,
    };
    match check.of {
        Of::Itself => Some(spread),
        Of::BestPeer => own.ratio(metric, case.best_peer(&check.metric)?),
        Of::Server(name) => own.ratio(metric, case.entry(name)?),
        Of::Case(other) => own.ratio(metric, report.case(scenario, other)?.entry(UNDER_TEST)?),
        Of::OwnMedian => {
            let ratio = own
                .rounds
                .iter()
                .filter_map(|round| Some(round.get(metric)? / round.get("p50_ms")?));
            Spread::of(ratio.collect())
        }
        Of::Lower(limits, other) => {
            let limit = limits
                .iter()
                .find_map(|name| case.entry(name))?
                .values(metric);
            let hot = report
                .case(scenario, other)?
                .entry(UNDER_TEST)?
                .values(metric);
            let lowest = limit.iter().zip(&hot).map(|(a, b)| a.min(*b));
            Spread::of(
                own.values(metric)
                    .iter()
                    .zip(lowest)
                    .map(|(own, low)| own / low)
                    .collect(),
            )
        }
        Of::Flush => Some(shifted(
            report.runs.get(case.run)?.machine.flush_of_64_mib_ms,
        )),
        Of::Noise(other) => {
            let other = report
                .case(scenario, other)?
                .entry(UNDER_TEST)?
                .spread(metric)?;
            let noise = (spread.high - spread.low).max(other.high - other.low);
            Some(shifted(other.median + noise))
        }
    }
}
