//! Which files does nothing name, and which named ones are gone?
//!
//! Owns: comparing directories with what the journal names. Refuses: removing; the next open does that.

use std::collections::BTreeSet;
use std::path::Path;

use super::{FsckReport, Severity};
use crate::catalog::View;
use crate::error::Result;
use crate::io::Env;
use crate::journal::{self, read::Walked};
use crate::recovery::apply::list_segments;
use crate::segment::segment_name;
use crate::upload::surviving;

/// Compares directories with the catalog.
pub(super) async fn check(
    env: &Env,
    store: &Path,
    view: &View,
    walked: &Walked,
    report: &mut FsckReport,
) -> Result<()> {
    let found = list_segments(&*env.io, store).await?;
    let uploads = surviving(env, &store.join("uploads")).await?;
    report.uploads = uploads.len() as u64;
    let mut named = BTreeSet::new();
    for segment in view.segments() {
        let (id, used) = segment?;
        if used.live_blobs > 0 {
            named.insert(id);
        }
    }
    let path = |id| store.join("segments").join(segment_name(id));
    for id in named.difference(&found) {
        report.add(
            Severity::Damage,
            &path(*id),
            "missing, and the index says that live blobs are in it",
        );
    }
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
    if let Some(number) = walked.unfinished {
        let what = "prepared or created just before the stop, and never used";
        report.add(Severity::Leftover, &journal::file_path(store, number), what);
    }
    Ok(())
}
