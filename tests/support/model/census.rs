//! What was done, counted: a generator that is not measured proves nothing.
//!
//! Owns: [`Census`]: operations, sizes, answers, images, and how recoveries went.

use std::collections::BTreeMap;

use tonnage_engine::OpenReport;

use super::content::SIZES;
use super::generate::History;
use super::operation::Operation;
use crate::machine::places;

/// Counts of a sweep, or of many.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Histories run.
    pub histories: u64,
    /// Calls in them.
    pub operations: u64,
    /// Crash points passed.
    pub points: u64,
    /// Images that came up.
    pub images: u64,
    /// Distinct ones that hold a store.
    pub distinct: u64,
    /// Recoveries, each with `fsck` before and after.
    pub recoveries: u64,
    /// Openings that were stopped everywhere.
    pub cut_openings: u64,
    /// Stops that only killed the process, the next one being stopped everywhere.
    pub killed: u64,
    /// Damaged stores looked at.
    pub damaged: u64,
    /// Stores over which an unsynced write went astray.
    pub strays: u64,
    /// Calls by name.
    pub by_operation: BTreeMap<&'static str, u64>,
    /// Pushes by size.
    pub by_size: BTreeMap<usize, u64>,
    /// Branches of recovery by name.
    pub by_branch: BTreeMap<&'static str, u64>,
    /// Damage by what came of it.
    pub by_damage: BTreeMap<&'static str, u64>,
    /// Places of the engine that change the disk and their classes, by how often they were reached, recoveries included.
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

    /// Counts what an open said.
    pub fn note_open(&mut self, report: &OpenReport, uploads: usize) {
        let branches = [
            ("created anew", report.created),
            ("after a clean stop", report.clean && !report.created),
            ("after a crash", !report.clean),
            ("replay behind a checkpoint", report.checkpoint.is_some()),
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
            ("uploads gone on with", uploads > 0),
            (
                "damaged superblock copies",
                !report.superblock_copies_damaged.is_empty(),
            ),
        ];
        for (name, taken) in branches {
            *self.by_branch.entry(name).or_default() += u64::from(taken);
        }
    }

    /// Counts the places that this thread reached since it was last asked.
    pub fn note_places(&mut self) {
        for (place, count) in places::take_counts() {
            *self.by_place.entry(place).or_default() += count;
        }
    }

    /// Places of the engine that were reached fewer than `wanted` times, each with how often.
    pub fn rare_places(&self, wanted: u64) -> Vec<String> {
        let mut by_name = BTreeMap::<_, u64>::new();
        for ((name, _class), count) in &self.by_place {
            *by_name.entry(*name).or_default() += count;
        }
        let rare = by_name.iter().filter(|(_, count)| **count < wanted);
        rare.map(|(name, count)| format!("{name} ({count})"))
            .collect()
    }

    /// Adds another one.
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
