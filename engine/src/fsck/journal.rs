//! Checks that the journal and the newest checkpoint are intact and agree.
//!
//! Owns: choosing the rows that everything else is compared with, and the advice where the two differ. Refuses:
//! repairing.
//!
//! Invariant: following the advice loses nothing that either of them still has.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{FsckReport, Severity};
use crate::catalog::View;
use crate::checkpoint;
use crate::error::Result;
use crate::extent::Lsn;
use crate::format::superblock::Superblock;
use crate::journal::read::JournalWalk;
use crate::recovery::{self, Recovered, plan};
use crate::state::State;
use crate::table::{RunCheck, TableContext};

/// Reads both. Returns the rows of the store, as far as they are readable, and the walk that gave them.
pub(super) async fn check(
    context: &TableContext,
    superblock: &Superblock,
    report: &mut FsckReport,
) -> Result<Option<(View, JournalWalk)>> {
    let whole = recovery::replay_from_start(context, superblock).await;
    let recovered = recovery::replay(context, superblock, None, RunCheck::BeforeUse).await;
    if let Ok(recovered) = &recovered {
        let fallback = checkpoint::check_fallback(context, &recovered.checkpoints).await?;
        for rejected in recovered.checkpoints.rejected.iter().chain(&fallback) {
            report.add(Severity::Cache, &rejected.path, rejected.why.clone());
        }
    }
    let (state, walked) = match (whole, recovered) {
        (Ok((state, walked)), Ok(recovered)) => {
            compare(context, (state, walked), recovered, report).await?
        }
        (Err(error), Ok(recovered)) => {
            report.add_error(&context.root, error)?;
            if let Some(chosen) = &recovered.checkpoints.chosen {
                report_only_copy(&context.root, chosen.record.lsn, None, report);
            }
            (recovered.state, recovered.walked)
        }
        (Ok(whole), Err(error)) => {
            report.add_error(&context.root, error)?;
            whole
        }
        (Err(error), Err(same)) => {
            let differ = error.to_string() != same.to_string();
            report.add_error(&context.root, error)?;
            if differ {
                report.add_error(&context.root, same)?;
            }
            return Ok(None);
        }
    };
    report.lsn = state.lsn;
    report.clean = plan::closed_cleanly(&walked);
    report.transactions = walked.transactions;
    for found in &walked.harmless {
        let what = format!("byte {}: {}", found.offset, found.what);
        report.add(Severity::Damage, &found.path, what);
    }
    for found in &walked.uncertain_marks {
        let what = format!("byte {}: {}", found.offset, found.what);
        report.add(Severity::Leftover, &found.path, what);
    }
    Ok(Some((View::new(Arc::new(state)), walked)))
}

/// Checks that the checkpoint with the journal after it leads to the same rows as the journal alone. Returns the one
/// that holds more.
async fn compare(
    context: &TableContext,
    whole: (State, JournalWalk),
    recovered: Recovered,
    report: &mut FsckReport,
) -> Result<(State, JournalWalk)> {
    let Some(chosen) = &recovered.checkpoints.chosen else {
        return Ok(whole);
    };
    let (journal_ends, checkpoint) = (whole.0.lsn, chosen.record.lsn);
    if journal_ends < checkpoint {
        report_only_copy(&context.root, checkpoint, Some(journal_ends), report);
        return Ok((recovered.state, recovered.walked));
    }
    match first_difference(&whole.0, &recovered.state).await {
        Ok(None) => {}
        Ok(Some((journal, checkpoint))) => {
            let what = format!(
                "the checkpoint contradicts the journal, which is intact: row {checkpoint} there, {journal} here. Move runs/ and \
                 checkpoint.* to another place while the store is closed; the next open builds them from the journal"
            );
            report.add(Severity::Damage, &context.root, what);
        }
        Err(error) => report.add_error(&context.root, error)?,
    }
    Ok(whole)
}

/// Reports that the checkpoint holds rows that the journal has lost.
fn report_only_copy(
    root: &Path,
    checkpoint: Lsn,
    journal_ends: Option<Lsn>,
    report: &mut FsckReport,
) {
    let ends = journal_ends.map_or_else(
        || "the journal is damaged".to_owned(),
        |lsn| format!("the journal ends at LSN {lsn}"),
    );
    let what = format!(
        "{ends}, and the checkpoint holds everything up to LSN {checkpoint}: the store opens with it, and it is the only copy. \
         Keep runs/ and checkpoint.*, back them up, and restore the journal files if there is a copy of them"
    );
    report.add(Severity::Damage, root, what);
}

/// Returns the first row that is not in both, as each has it.
async fn first_difference(one: &State, other: &State) -> Result<Option<(String, String)>> {
    let mut ours = one.layers.scan_prefix(b"", None);
    let mut theirs = other.layers.scan_prefix(b"", None);
    let name = |row: Option<(Bytes, Bytes)>| {
        row.map_or_else(
            || "nothing".to_owned(),
            |(key, _)| key.escape_ascii().to_string(),
        )
    };
    loop {
        match (ours.next_resident().await?, theirs.next_resident().await?) {
            (None, None) => return Ok(None),
            (Some(row), Some(same)) if row == same => {}
            (row, differs) => return Ok(Some((name(row), name(differs)))),
        }
    }
}
