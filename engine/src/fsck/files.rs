//! Finds files that nothing names, and named segments newer than the journal.
//!
//! Owns: the comparison of directories with the journal. Refuses: removing; the next open does that.

use std::collections::BTreeSet;

use super::{FsckReport, Severity, uploads};
use crate::catalog::View;
use crate::error::Result;
use crate::journal::{self, read::JournalWalk};
use crate::recovery::apply::{segment_path, segment_sizes};
use crate::recovery::names::misplaced;
use crate::table::TableContext;

/// Compares directories with the catalog.
pub(super) async fn check(
    context: &TableContext,
    view: &View,
    walked: &JournalWalk,
    report: &mut FsckReport,
) -> Result<()> {
    let store = &*context.root;
    let found = segment_sizes(&*context.env.io, store).await?;
    let found: BTreeSet<_> = found.into_keys().collect();
    let mut named = BTreeSet::new();
    let mut segments = view.segments();
    while let Some((id, used)) = segments.next_resident().await? {
        if used.live_blobs > 0 {
            named.insert(id);
        }
    }
    let uploads = uploads::check(context, &named, report).await?;
    let path = |id| segment_path(store, id);
    let limit = view.state().segment_limit;
    for id in found.range(limit..) {
        let what = "newer than the journal: the end of the journal is missing";
        report.add(Severity::Damage, &path(*id), what);
    }
    for id in found
        .range(..limit)
        .filter(|id| !named.contains(id) && !uploads.contains(id))
    {
        report.add(
            Severity::Leftover,
            &path(*id),
            "no transaction and no upload names this segment",
        );
    }
    for path in misplaced(&*context.env.io, store).await? {
        let what = "not the type of file that belongs here, and nothing uses it: move it away while the store is closed";
        report.add(Severity::Leftover, &path, what);
    }
    if let Some(number) = walked.unfinished {
        let what = "created just before the stop, and never used";
        report.add(Severity::Leftover, &journal::file_path(store, number), what);
    }
    Ok(())
}
