//! Collection: what happens to a digest that nothing may reference any more, and to a manifest that nothing may keep.
//!
//! Owns: the rules for blobs ([`rules`]) and for manifests ([`manifests`]), how long grace lasts ([`grace`]), and what
//! a deletion would make garbage ([`trial`]). Refuses: carrying the rules out (`store::collection`),
//! and queueing removals (`commit`).
//!
//! Invariant of the rows: a stored blob that nothing references is a suspect. A commit that takes a reference away, or
//! stores or links a blob, makes its digest a suspect; a commit that references it clears that. So collection reads
//! suspects only, and never searches the store.

pub(crate) mod grace;
pub(crate) mod manifests;
pub(crate) mod rules;
pub(crate) mod trial;

pub(crate) use grace::GraceClock;
pub(crate) use manifests::{ManifestVerdict, Terms, judge_manifest};
pub(crate) use rules::{Due, Verdict, is_in_grace, judge};
pub use trial::{DeletionTrial, Freed};
