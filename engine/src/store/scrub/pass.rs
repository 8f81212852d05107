//! One pass over all segments with live blobs.
//!
//! Owns: [`Pass`]: the order of segments, what is checked in each, and what is marked. Refuses: checking a record
//! (`segment::verifier`), and the blobs of which no intact frame speaks (`unnamed`).
//!
//! Invariants: a blob is marked only if the index names the place that was read; the bytes of a place never change. A
//! segment that is removed meanwhile is no damage. An operation that was not attempted marks nothing. The pass holds
//! parts of the store, not the store itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Scrub, ScrubReport, ScrubRequest};
use crate::catalog::View;
use crate::commit::Sequencer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, SegmentId};
use crate::format::proof::Proof;
use crate::io::Env;
use crate::jobs::Job;
use crate::pace::Pace;
use crate::segment::{RecordVerifier, Segments, UncachedSegment};
use crate::store::Inner;

/// Pause before a segment that could not be opened is tried again, and how often that is.
const RETRY: (Duration, u32) = (Duration::from_secs(1), 10);
/// Segments with blobs that no intact frame names are looked up together, because that reads the whole index.
const UNNAMED_MAX: usize = 16;

/// A pass that runs.
pub(super) struct Pass {
    pub(super) env: Env,
    pub(super) sequencer: Arc<Sequencer>,
    segments: Arc<Segments>,
    shared: Arc<Scrub>,
    job: Job,
    pace: Pace,
    request: ScrubRequest,
    report: ScrubReport,
    /// Segments in which intact frames name only some of the live blobs, with the places of these.
    pub(super) unnamed: BTreeMap<SegmentId, HashSet<u64>>,
}

impl Pass {
    /// Prepares a pass as `job`.
    pub(super) fn begin(inner: &Inner, job: Job, request: ScrubRequest) -> Self {
        let env = inner.env.clone();
        Self {
            pace: Pace::new(request.bytes_per_second, env.clock.monotonic()),
            env,
            sequencer: Arc::clone(&inner.sequencer),
            segments: Arc::clone(&inner.segments),
            shared: Arc::clone(&inner.scrub),
            job,
            request,
            report: ScrubReport::default(),
            unnamed: BTreeMap::new(),
        }
    }

    /// Returns what was found so far.
    pub(super) fn report(&self) -> ScrubReport {
        self.report.clone()
    }

    /// Reads all segments once, from a random one on or from the first.
    pub(super) async fn run(&mut self, random: bool) -> Result<()> {
        let (first, last) = self.count().await?;
        let start = if random {
            let mut bytes = [0; 8];
            self.env.rng.fill(&mut bytes);
            first + u64::from_le_bytes(bytes) % (last - first + 1)
        } else {
            first
        };
        self.range(start, u64::MAX).await?;
        self.range(first, start).await?;
        self.check_unnamed().await?;
        let now = self.env.clock.wall_unix_ms();
        self.shared.completed(self.request.digests, now);
        Ok(())
    }

    /// Counts the live bytes. Returns the first and the last segment.
    async fn count(&self) -> Result<(u64, u64)> {
        let mut segments = self.view().segments();
        let (mut total, mut first, mut last) = (0_u64, None, 0);
        while let Some((id, used)) = segments.next_resident().await? {
            total = total.saturating_add(used.live_bytes);
            first.get_or_insert(id.0);
            last = id.0;
        }
        self.job.set_total(total);
        Ok((first.unwrap_or_default(), last))
    }

    /// Reads the segments from `from` to before `to`.
    async fn range(&mut self, from: u64, to: u64) -> Result<()> {
        let mut next = from;
        while next < to {
            let view = self.view();
            let after = next.checked_sub(1).map(SegmentId);
            // Looked up each time, because a row that is kept while others are removed would keep old runs open.
            let Some((id, used)) = view.segments_after(after).next_resident().await? else {
                return Ok(());
            };
            if id.0 >= to {
                return Ok(());
            }
            next = id.0 + 1;
            if used.live_blobs > 0 {
                self.segment(id, &view, used.end, used.live_blobs).await?;
            }
            if self.unnamed.len() >= UNNAMED_MAX {
                self.check_unnamed().await?;
            }
        }
        Ok(())
    }

    /// Checks the live blobs of a segment, as `view` has them.
    async fn segment(&mut self, id: SegmentId, view: &View, end: u64, live: u64) -> Result<()> {
        self.job.checkpoint().await?;
        let mut named = HashSet::new();
        let walked = match self.open(id).await {
            Ok(mut segment) => self.walk(&mut segment, view, end, &mut named).await,
            Err(error) => Err(error),
        };
        match walked {
            Ok(()) => {}
            Err(error) if is_about_file(&error) => {
                // Removed meanwhile.
                if self.view().read(|view| view.segment(id)).await?.is_none() {
                    return Ok(());
                }
                tracing::warn!(%error, "scrub could not read a segment from one end to the other; its blobs are read one by one");
            }
            Err(error) if error.is_not_attempted() => {
                tracing::warn!(%error, "scrub skipped a segment");
                self.report.skipped += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.report.segments += 1;
        if (named.len() as u64) < live {
            self.unnamed.insert(id, named);
        }
        Ok(())
    }

    /// Checks the live blobs that intact frames name, and adds their places to `named`.
    async fn walk(
        &mut self,
        segment: &mut UncachedSegment,
        view: &View,
        end: u64,
        named: &mut HashSet<u64>,
    ) -> Result<()> {
        let walk = self.segments.walk(segment, end).await?;
        let Some(mut walk) = walk else { return Ok(()) };
        while let Some(record) = walk.next(segment).await? {
            let (digest, extent) = (record.digest, record.extent);
            let stored = view.read(|view| view.blob(&digest)).await?;
            if stored.is_some_and(|stored| stored.extent == extent) {
                named.insert(extent.offset);
                self.check(segment, digest, extent).await?;
            }
            self.spend(segment).await?;
        }
        Ok(())
    }

    /// Checks one blob, and marks what is found.
    pub(super) async fn check(
        &mut self,
        segment: &mut UncachedSegment,
        digest: Digest,
        extent: Extent,
    ) -> Result<()> {
        let damaged = Arc::clone(self.segments.damaged());
        let verifier = RecordVerifier::new(digest, extent, self.request.digests);
        let Ok(mut verifier) = verifier else {
            damaged.mark_wrong_until(digest, extent, Proof::Drive);
            self.add_damage(digest);
            return Ok(());
        };
        let verified = self.verify(segment, &mut verifier, &digest, &extent).await;
        if verified.is_err() && !self.is_stored(&digest, &extent).await? {
            return Ok(());
        }
        match verified {
            Ok(true) => {
                self.report.blobs += 1;
                self.shared.totals.lock().blobs += 1;
            }
            // Removed meanwhile.
            Ok(false) => {}
            Err(Error::Corrupt(what)) => {
                tracing::error!(%digest, %what, "scrub found damage");
                damaged.mark_wrong_until(digest, extent, Proof::Drive);
                self.add_damage(digest);
            }
            Err(Error::DigestMismatch { found, .. }) => {
                tracing::error!(%digest, %found, %extent, "scrub found content that has another digest");
                damaged.mark_wrong_until(digest, extent, Proof::Digest);
                self.add_damage(digest);
            }
            Err(error) if is_about_file(&error) => {
                tracing::error!(%digest, %error, "scrub could not read a blob");
                damaged.mark_unreadable_until(digest, extent, verifier.span(), Proof::Drive);
                self.add_damage(digest);
            }
            Err(error) if error.is_not_attempted() => {
                tracing::warn!(%digest, %error, "scrub skipped a blob");
                self.report.skipped += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads and checks one record. Returns false if its segment was removed meanwhile.
    async fn verify(
        &mut self,
        segment: &mut UncachedSegment,
        verifier: &mut RecordVerifier,
        digest: &Digest,
        extent: &Extent,
    ) -> Result<bool> {
        let damaged = Arc::clone(self.segments.damaged());
        let proof = if self.request.digests {
            Proof::Digest
        } else {
            Proof::Drive
        };
        // What only the digest proves is proven at the end.
        let verified = |span, proof| damaged.verified_by(digest, extent, &span, proof);
        verifier.begin(segment).await?;
        verified(verifier.span(), Proof::Drive);
        while verifier.step(segment, &self.env).await?.is_some() {
            let span = verifier.span();
            let payload_end = span.end.min(extent.offset + extent.length);
            self.job.progress(payload_end.saturating_sub(span.start));
            verified(span, Proof::Drive);
            self.spend(segment).await?;
            // Its space is free only once nobody reads it.
            let id = extent.segment;
            if self.view().read(|view| view.segment(id)).await?.is_none() {
                return Ok(false);
            }
        }
        let (from, to) = (extent.offset, extent.offset + extent.length.max(1));
        verified(verifier.span(), proof);
        verified(from..to, proof);
        Ok(true)
    }

    /// Opens a segment; waits for a descriptor if there is none.
    pub(super) async fn open(&self, id: SegmentId) -> Result<UncachedSegment> {
        let (pause, attempts) = RETRY;
        for _ in 1..attempts {
            match self.segments.open_uncached(id).await {
                Err(error) if error.is_not_attempted() => self.env.clock.sleep(pause).await,
                opened => return opened,
            }
        }
        self.segments.open_uncached(id).await
    }

    /// Counts what was read, and waits as long as the budget and the operator want.
    pub(super) async fn spend(&mut self, segment: &mut UncachedSegment) -> Result<()> {
        let bytes = segment.take_read_bytes();
        if bytes > 0 {
            self.report.bytes += bytes;
            self.shared.totals.lock().bytes += bytes;
            let clock = &self.env.clock;
            let wait = self.pace.spend(bytes, clock.monotonic());
            if wait > Duration::ZERO {
                clock.sleep(wait).await;
            }
        }
        self.job.checkpoint().await
    }

    /// Marks a blob whose segment cannot be opened.
    pub(super) fn mark_unopened(&mut self, digest: Digest, extent: Extent) {
        let damaged = self.segments.damaged();
        if damaged.truncated_at(&extent).is_none()
            && let Ok(verifier) = RecordVerifier::new(digest, extent, false)
        {
            damaged.mark_unreadable_until(digest, extent, verifier.span(), Proof::Drive);
        }
        self.add_damage(digest);
    }

    /// Notes that nothing is known of a blob.
    pub(super) fn skip(&mut self) {
        self.report.skipped += 1;
    }

    fn add_damage(&mut self, digest: Digest) {
        self.report.damaged += 1;
        self.shared.totals.lock().damaged += 1;
        if self.report.listed.len() < self.request.list_max {
            self.report.listed.push(digest);
        }
    }

    /// Returns whether a blob is still where it was found.
    pub(super) async fn is_stored(&self, digest: &Digest, extent: &Extent) -> Result<bool> {
        let stored = self.view().read(|view| view.blob(digest)).await?;
        Ok(stored.is_some_and(|stored| stored.extent == *extent))
    }

    /// Returns the newest durable state.
    pub(super) fn view(&self) -> View {
        View::new(self.sequencer.durable())
    }
}

/// Returns whether an error says that the file, or a part of it, cannot be read.
pub(super) fn is_about_file(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Corrupt(_))
}
