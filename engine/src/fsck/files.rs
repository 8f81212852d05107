//! Which files does nothing name, and which named ones are gone?
//!
//! Owns: comparing directories with what the journal names. Refuses: removing; the next open does that.

use std::collections::BTreeSet;
use std::path::Path;

use super::{FsckReport, Severity};
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::io::Env;
use crate::journal::{self, read::Walked};
use crate::recovery::apply::{list_segments, numbered};
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
    for id in found
        .iter()
        .filter(|id| !named.contains(id) && !uploads.contains(id))
    {
        report.add(
            Severity::Leftover,
            &path(*id),
            "no transaction and no upload names this segment",
        );
    }
    journal_files(env, store, walked, report).await
}

async fn journal_files(
    env: &Env,
    store: &Path,
    walked: &Walked,
    report: &mut FsckReport,
) -> Result<()> {
    let directory = journal::directory(store);
    let names = env
        .io
        .list_dir(&directory)
        .await
        .map_err(|source| Error::io("list", &directory, source))?;
    let last = walked.last.as_ref().map_or(0, |header| header.number);
    for number in names.iter().filter_map(|name| numbered(name, ".journal")) {
        if number > last && walked.unfinished != Some(number) {
            let what = "a journal file behind the end of the journal: one before it is missing";
            report.add(Severity::Damage, &journal::file_path(store, number), what);
        }
    }
    if let Some(number) = walked.unfinished {
        let what = "prepared or created just before the stop, and never used";
        report.add(Severity::Leftover, &journal::file_path(store, number), what);
    }
    Ok(())
}
