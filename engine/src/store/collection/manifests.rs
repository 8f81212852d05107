//! Removal of manifests that nothing keeps, as a part of a collection's cycle.
//!
//! Owns: [`ManifestPass`], one look at all suspects among the manifests. Refuses: the rules
//! (`collection::manifests`), queueing removals (`commit::manifest_removals`), and the cycle ([`super`]).
//!
//! Invariants: all manifests of a removal are condemned before it is queued; the queued transaction keeps them
//! condemned until it is durable or has failed. Untagged manifests of repositories that keep them are never read. The
//! blobs of a removed manifest become suspects with its removal, and have their own grace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::report::{CollectedManifest, CollectionReport, CollectionRequest};
use super::rest::Rest;
use crate::catalog::{Repository, SuspectKind, View};
use crate::collection::{Due, ManifestVerdict, Terms, is_in_grace, judge_manifest};
use crate::commit::{ManifestCandidates, ManifestRemovals, SuspectManifest};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::format::keys::Suspect;
use crate::format::transaction::RepositoryId;
use crate::jobs::Job;
use crate::lease::Condemned;
use crate::store::Inner;
use crate::store::background::row_seen;
use crate::table::resident_off_worker;

/// Suspects that are settled in one transaction.
const BATCH: usize = 8;
/// Manifests and edges that one transaction removes: no other commit waits for long. The last suspect may exceed it.
const ROWS: usize = 64;

/// When the next suspect among the manifests may be removed.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextManifest {
    /// The first transaction of which a suspect is left whose grace is not over.
    oldest: Lsn,
    /// When the first untagged manifest has been one for as long as its repository's policy says, in Unix ms.
    unix_ms: u64,
}

impl NextManifest {
    /// Returns whether that is now.
    pub(super) fn is_due(&self, due: Due, now_unix_ms: u64) -> bool {
        self.unix_ms <= now_unix_ms || matches!(due, Due::UpTo(lsn) if self.oldest <= lsn)
    }
}

/// One look at all suspects among the manifests of one state.
pub(super) struct ManifestPass<'a> {
    inner: &'a Inner,
    rest: &'a Rest<'a>,
    /// When it rested last, or began.
    rested: Duration,
    due: Due,
    now_unix_ms: u64,
    dry_run: bool,
    list_max: usize,
    view: View,
    report: CollectionReport,
    next: NextManifest,
    batch: Vec<(SuspectManifest, Vec<Digest>)>,
    /// Manifests and edges that the batch removes.
    rows: usize,
    /// Names of the repositories in `batch`.
    names: BTreeMap<RepositoryId, String>,
}

impl<'a> ManifestPass<'a> {
    /// Takes the durable state.
    pub(super) fn new(
        inner: &'a Inner,
        rest: &'a Rest<'a>,
        due: Due,
        request: CollectionRequest,
    ) -> Self {
        let view = View::new(inner.sequencer.durable());
        // Those that come later are of later transactions.
        let oldest = Lsn(view.lsn().0 + 1);
        Self {
            inner,
            rest,
            rested: inner.env.clock.monotonic(),
            due,
            now_unix_ms: inner.env.clock.wall_unix_ms(),
            dry_run: request.dry_run,
            list_max: request.list_max,
            view,
            report: CollectionReport::default(),
            next: NextManifest {
                oldest,
                unix_ms: u64::MAX,
            },
            batch: Vec::new(),
            rows: 0,
            names: BTreeMap::new(),
        }
    }

    /// Looks at all suspects and settles them. Returns the report of that, and when to look again; `None`: in the next
    /// cycle.
    pub(super) async fn run(
        mut self,
        job: &Job,
    ) -> Result<(CollectionReport, Option<NextManifest>)> {
        self.kind(SuspectKind::Follower, job).await?;
        if !self.inner.options.untagged.keeps_all() {
            self.kind(SuspectKind::Untagged, job).await?;
        }
        self.settle().await?;
        let of = |one: &CollectedManifest| (one.repository.clone(), one.digest);
        self.report.listed_manifests.sort_by_cached_key(of);
        let next = (self.report.leased == 0).then_some(self.next);
        Ok((self.report, next))
    }

    async fn kind(&mut self, kind: SuspectKind, job: &Job) -> Result<()> {
        let view = self.view.clone();
        let mut from = RepositoryId(0);
        while let Some(id) = view
            .read(|view| view.next_with_suspects(kind, from))
            .await?
        {
            from = RepositoryId(id.0 + 1);
            // The rows of a deleted repository are purged.
            let Some(name) = view.read(|view| view.repository_name(id)).await? else {
                continue;
            };
            let policy = self.inner.options.untagged.removes_after(&name);
            let policy = policy.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            if kind == SuspectKind::Untagged && policy.is_none() {
                continue;
            }
            let terms = Terms {
                due: self.due,
                untagged_until: policy.map(|time| self.now_unix_ms.saturating_sub(time)),
            };
            let mut suspects = view.manifest_suspects(kind, id);
            while let Some((digest, suspect)) = suspects.next_resident().await? {
                self.report.suspects += 1;
                row_seen(job, self.report.suspects).await?;
                let stays = policy.filter(|_| kind == SuspectKind::Untagged);
                if !self.is_time_over(&suspect, stays) {
                    self.report.in_grace += 1;
                    continue;
                }
                let suspect = SuspectManifest {
                    repository: id,
                    digest,
                    terms,
                };
                self.judge(suspect, &name).await?;
            }
        }
        Ok(())
    }

    /// Returns whether a suspect's time is over, before anything of it is looked up. `stays_ms` is the policy's time.
    fn is_time_over(&mut self, suspect: &Suspect, stays_ms: Option<u64>) -> bool {
        let in_grace = is_in_grace(suspect, self.due);
        let until = suspect.unix_ms.saturating_add(stays_ms.unwrap_or(0));
        let stays = stays_ms.is_some() && until > self.now_unix_ms;
        if stays {
            // The cycle of that time notes its grace.
            self.next.unix_ms = self.next.unix_ms.min(until);
        } else if in_grace {
            self.next.oldest = self.next.oldest.min(suspect.lsn);
        }
        !in_grace && !stays
    }

    async fn judge(&mut self, suspect: SuspectManifest, name: &str) -> Result<()> {
        let SuspectManifest {
            repository,
            digest,
            terms,
        } = suspect;
        let judge = |view: &View| judge_manifest(view, repository, &digest, terms);
        let dead = match self.view.read(judge).await? {
            ManifestVerdict::Stays => return Ok(()),
            ManifestVerdict::InGrace => {
                self.report.in_grace += 1;
                return Ok(());
            }
            ManifestVerdict::Clear if self.dry_run => {
                self.report.cleared += 1;
                return Ok(());
            }
            ManifestVerdict::Clear | ManifestVerdict::Suspect(_) => Vec::new(),
            ManifestVerdict::Remove(dead) => dead,
        };
        if self.dry_run {
            self.preview(name, digest, &dead);
            return Ok(());
        }
        for digest in &dead {
            self.rows += self.read_ahead(repository, digest).await?;
        }
        let known = self.names.entry(repository);
        known.or_insert_with(|| name.to_owned());
        self.batch.push((suspect, dead));
        if self.batch.len() >= BATCH || self.rows >= ROWS {
            self.settle().await?;
        }
        Ok(())
    }

    /// Reads what the removal of a manifest reads, so that it is in memory under the sequencer's lock. Returns the
    /// number of rows, at most about [`ROWS`].
    async fn read_ahead(&self, repository: RepositoryId, digest: &Digest) -> Result<usize> {
        let read = |view: &View| {
            view.read_ahead_of_loss(repository, digest)?;
            let of = Repository::new(view, repository);
            let children = of.children(digest, ROWS)?;
            for child in &children {
                of.has_manifest(child)?;
            }
            Ok(1 + children.len())
        };
        self.view.read(read).await
    }

    /// Reports what a run would do with a suspect. Those that are dead with it are suspects, too, and looked at.
    fn preview(&mut self, name: &str, digest: Digest, dead: &[Digest]) {
        if dead.is_empty() {
            return;
        }
        if dead.iter().any(|digest| self.inner.leases.holds(digest)) {
            self.report.leased += 1;
            return;
        }
        self.add(name, digest);
    }

    fn add(&mut self, name: &str, digest: Digest) {
        self.report.manifests += 1;
        if self.report.listed_manifests.len() < self.list_max {
            let repository = name.to_owned();
            let listed = CollectedManifest { repository, digest };
            self.report.listed_manifests.push(listed);
        }
    }

    /// Settles the batch: durable on return.
    async fn settle(&mut self) -> Result<()> {
        let inner = self.inner;
        if self.batch.is_empty() {
            return Ok(());
        }
        // Before they are condemned, because checks of what is condemned wait.
        inner.checkpoints.wait_for_room(inner).await;
        self.rows = 0;
        let names = std::mem::take(&mut self.names);
        let mut condemned = BTreeMap::new();
        let mut suspects = Vec::new();
        for (suspect, dead) in std::mem::take(&mut self.batch) {
            if self.condemn(&dead, &mut condemned) {
                suspects.push(suspect);
            } else {
                self.report.leased += 1;
            }
        }
        let condemned = condemned.into_values().collect();
        let mut candidates = ManifestCandidates::new(suspects, condemned);
        let sequencer = Arc::clone(&inner.sequencer);
        let queue = move || sequencer.remove_manifests(&mut candidates);
        let ManifestRemovals {
            removed,
            cleared,
            retired,
            waiting,
        } = resident_off_worker(&inner.env, queue).await?;
        if let Some(waiting) = waiting {
            let committed = waiting.await.map_err(|_gone| Error::Closed)??;
            if !removed.is_empty() {
                self.report.manifests_lsn = Some(committed.lsn);
            }
        }
        if retired {
            inner.deleted.notify_one();
        }
        self.report.cleared += cleared;
        for (repository, digest) in removed {
            let name = names.get(&repository).map_or("", String::as_str);
            self.add(name, digest);
        }
        inner.checkpoints.start_if_due(inner);
        self.rested = self.rest.after(self.rested).await;
        Ok(())
    }

    /// Condemns all of `dead`, or none of them. Adds to what is condemned already.
    fn condemn(&self, dead: &[Digest], condemned: &mut BTreeMap<Digest, Condemned>) -> bool {
        let mut new = BTreeMap::new();
        for digest in dead {
            if condemned.contains_key(digest) {
                continue;
            }
            let Some(one) = self.inner.leases.condemn(*digest) else {
                return false;
            };
            new.insert(*digest, one);
        }
        condemned.extend(new);
        true
    }
}
