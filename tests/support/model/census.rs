//! Counts of what was generated and reached, because a generator proves nothing without them.
//!
//! Owns: [`Census`]: operations, sizes, answers, images, and results of recoveries.

use std::collections::BTreeMap;

use tonnage_engine::OpenReport;

use super::content::SIZES;
use super::generate::History;
use super::operation::{Call, Operation};
use super::record::Record;
use crate::machine::call_sites;

/// Counts of one sweep, or of many.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Histories that were run.
    pub histories: u64,
    /// Their calls.
    pub operations: u64,
    /// Crash points that were passed.
    pub points: u64,
    /// Images that occurred.
    pub images: u64,
    /// Distinct images that contain a store.
    pub distinct: u64,
    /// Recoveries, each with `fsck` before and after.
    pub recoveries: u64,
    /// Opens that were stopped everywhere.
    pub cut_openings: u64,
    /// Stops that only killed the process, with the next process stopped everywhere.
    pub killed: u64,
    /// Damaged stores that were checked.
    pub damaged: u64,
    /// Stores with a misdirected unsynced write.
    pub strays: u64,
    /// Calls by name.
    pub by_operation: BTreeMap<&'static str, u64>,
    /// Pushes by size.
    pub by_size: BTreeMap<usize, u64>,
    /// Branches of recovery by name.
    pub by_branch: BTreeMap<&'static str, u64>,
    /// Damage by its outcome.
    pub by_damage: BTreeMap<&'static str, u64>,
    /// Call sites of the engine that change the disk, with their classes, and how often they were reached, recoveries
    /// included.
    pub by_place: BTreeMap<(&'static str, &'static str), u64>,
}

impl Census {
    /// Counts a history's calls.
    pub fn note_history(&mut self, history: &History) {
        self.histories += 1;
        for call in history.calls() {
            self.operations += 1;
            *self.by_operation.entry(call.operation.name()).or_default() += 1;
            if let Operation::Push { content, .. } | Operation::Leave { content, .. } =
                &call.operation
            {
                let size = SIZES[*content as usize % SIZES.len()];
                *self.by_size.entry(size).or_default() += 1;
            }
        }
    }

    /// Counts the branches that an open reported.
    pub fn note_open(&mut self, report: &OpenReport, uploads: usize) {
        let branches = [
            ("created", report.created),
            ("after a clean stop", report.clean && !report.created),
            ("after a crash", !report.clean),
            ("replay after a checkpoint", report.checkpoint.is_some()),
            (
                "replay from the beginning",
                report.checkpoint.is_none() && !report.created,
            ),
            (
                "a checkpoint passed over",
                !report.checkpoints_unusable.is_empty(),
            ),
            ("transactions replayed", report.replayed > 0),
            ("orphans removed", report.orphans_removed > 0),
            ("uploads resumed", report.uploads_resumed > 0),
            ("uploads continued", uploads > 0),
            (
                "damaged superblock copies",
                !report.superblock_copies_damaged.is_empty(),
            ),
        ];
        for (name, taken) in branches {
            *self.by_branch.entry(name).or_default() += u64::from(taken);
        }
    }

    /// Counts the contents and manifests that were collected.
    pub fn note_collected(&mut self, record: &Record) {
        let removed = record.entries.iter().map(|entry| match &entry.effect {
            Some(Call {
                operation: Operation::Collect(removed),
                ..
            }) => removed.len() as u64,
            _ => 0,
        });
        *self.by_branch.entry("contents collected").or_default() += removed.sum::<u64>();
        let manifests = record.entries.iter().map(|entry| match &entry.effect {
            Some(Call {
                operation: Operation::CollectManifests(removed),
                ..
            }) => removed.len() as u64,
            _ => 0,
        });
        *self.by_branch.entry("manifests collected").or_default() += manifests.sum::<u64>();
    }

    /// Counts the call sites that this thread reached since the last call.
    pub fn note_call_sites(&mut self) {
        for (place, count) in call_sites::take_counts() {
            *self.by_place.entry(place).or_default() += count;
        }
    }

    /// Returns the call sites that were reached fewer than `wanted` times, with their counts.
    pub fn rare_call_sites(&self, wanted: u64) -> Vec<String> {
        let mut by_name = BTreeMap::<_, u64>::new();
        for ((name, _class), count) in &self.by_place {
            *by_name.entry(*name).or_default() += count;
        }
        let rare = by_name.iter().filter(|(_, count)| **count < wanted);
        rare.map(|(name, count)| format!("{name} ({count})"))
            .collect()
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.operations += other.operations;
        self.points += other.points;
        self.images += other.images;
        self.distinct += other.distinct;
        self.recoveries += other.recoveries;
        self.cut_openings += other.cut_openings;
        self.killed += other.killed;
        self.damaged += other.damaged;
        self.strays += other.strays;
        merge(&mut self.by_operation, &other.by_operation);
        merge(&mut self.by_size, &other.by_size);
        merge(&mut self.by_branch, &other.by_branch);
        merge(&mut self.by_damage, &other.by_damage);
        merge(&mut self.by_place, &other.by_place);
    }
}

fn merge<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(*key).or_default() += count;
    }
}
