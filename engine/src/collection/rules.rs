//! The rules of collection (DESIGN D3 and D4).
//!
//! Owns: [`judge`], the only decision about a suspect. It is made twice from the same rules: on the durable state, to
//! find candidates, and on the newest state when the removal is queued. Refuses: leases and pins, which protect a
//! digest whatever the rows say.

use crate::catalog::View;
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::{Extent, Lsn};
use crate::format::keys::Suspect;

/// What happens to a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it is no suspect.
    NotSuspect,
    /// It is cleared: something references it, or it is not stored.
    Clear,
    /// It is kept, because it became a suspect too short a time ago.
    InGrace,
    /// Its blob is removed from the index. The bytes are at this extent.
    Remove(Extent),
}

/// For which suspects grace is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// For those of transactions up to this one: grace was counted while the process ran.
    UpTo(Lsn),
    /// For those of transactions until this time, in Unix ms: the store was closed, and the wall clock counts.
    Until(u64),
}

/// Returns whether a suspect became one too short a time ago.
pub(crate) fn is_in_grace(suspect: &Suspect, due: Due) -> bool {
    match due {
        Due::UpTo(lsn) => suspect.lsn > lsn,
        Due::Until(unix_ms) => suspect.unix_ms > unix_ms,
    }
}

/// Judges `digest` in one state.
///
/// Manifests of a repository and children of manifests are referenced. Links give visibility, not life, and a referrer
/// keeps its subject no more than a link does.
pub(crate) fn judge(view: &View, digest: &Digest, due: Due) -> Result<Verdict> {
    let Some(suspect) = view.suspect(digest)? else {
        return Ok(Verdict::NotSuspect);
    };
    if is_in_grace(&suspect, due) {
        return Ok(Verdict::InGrace);
    }
    let Some(blob) = view.blob(digest)? else {
        return Ok(Verdict::Clear);
    };
    if view.referenced(digest)? {
        return Ok(Verdict::Clear);
    }
    Ok(Verdict::Remove(blob.extent))
}
