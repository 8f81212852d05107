//! Reports the results as a table and as JSON: medians over the rounds, and ratios of medians.
//!
//! Owns: [`Samples`], the description of the machine. Refuses: means, which one slow flush of a drive would dominate.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// All samples, by measurement and registry.
#[derive(Debug, Default)]
pub struct Samples {
    all: BTreeMap<(usize, &'static str), BTreeMap<&'static str, Vec<f64>>>,
    order: Vec<&'static str>,
}

/// The columns of the table; the first two are the values of `Kind::name`.
const TONNAGE: &str = "tonnage";
const DOCKER: &str = "docker-registry";
pub const DOCKER_SYNCED: &str = "docker-registry, then fsync";
pub const LIMIT: &str = "limit";

impl Samples {
    /// Adds one sample of `measurement` (its name ends with the unit) for `who`.
    pub fn add(&mut self, measurement: &'static str, who: &'static str, value: f64) {
        let at = self
            .order
            .iter()
            .position(|known| *known == measurement)
            .unwrap_or_else(|| {
                self.order.push(measurement);
                self.order.len() - 1
            });
        self.all
            .entry((at, measurement))
            .or_default()
            .entry(who)
            .or_default()
            .push(value);
    }

    /// Returns a table of medians. The last two columns are ratios of medians: tonnage to docker-registry (synced where
    /// that was measured), and tonnage to the limit.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<44}{:>10}{:>10}{:>12}{:>10}{:>10}{:>10}\n",
            "median", "tonnage", "docker", "docker+sync", "limit", "x docker", "of limit"
        );
        for ((_, measurement), columns) in &self.all {
            let of = |who| columns.get(who).map(|values| median(values));
            let (tonnage, docker, synced, limit) =
                (of(TONNAGE), of(DOCKER), of(DOCKER_SYNCED), of(LIMIT));
            let ratio = |to: Option<f64>| Some(tonnage? / to?);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{measurement:<44}{:>10}{:>10}{:>12}{:>10}{:>10}{:>10}",
                show(tonnage),
                show(docker),
                show(synced),
                show(limit),
                show(ratio(synced.or(docker))),
                show(ratio(limit)),
            );
        }
        text
    }

    /// Returns every sample, with medians.
    pub fn json(&self) -> Value {
        let rows = self.all.iter().map(|((_, measurement), columns)| {
            let columns = columns.iter().map(|(who, values)| {
                (
                    (*who).to_owned(),
                    json!({"median": median(values), "samples": values}),
                )
            });
            json!({"measurement": measurement, "of": columns.collect::<serde_json::Map<_, _>>()})
        });
        Value::Array(rows.collect())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return sorted[middle];
    }
    f64::midpoint(sorted[middle - 1], sorted[middle])
}

fn show(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// Describes the machine on which the figures depend.
pub fn machine(folder: &Path, flush_millis: f64) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_once(':')
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cpu = read("/proc/cpuinfo");
    let sha_ni = value(&cpu, "flags").split(' ').any(|flag| flag == "sha_ni");
    json!({
        "cpu": value(&cpu, "model name"),
        "sha_ni": sha_ni,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": value(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "file_system": file_system(folder, &read("/proc/self/mounts")),
        "flush_of_4_kib_ms": flush_millis,
        "load_average_before": read("/proc/loadavg").trim(),
    })
}

fn file_system(folder: &Path, mounts: &str) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let holds = fields.filter(|fields| fields.len() > 3 && folder.starts_with(fields[1]));
    let nearest = holds.max_by_key(|fields| fields[1].len());
    nearest.map_or("unknown".into(), |fields| {
        format!("{} ({})", fields[2], fields[3])
    })
}
