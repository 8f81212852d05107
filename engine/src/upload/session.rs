//! One upload as its requests share it: which request has the turn, how far it is, how it ends.
//!
//! Owns: [`Session`], [`Held`]. Refuses: the bytes (`body`) and the table of sessions (`sessions`).
//!
//! Invariants: one request at a time has the turn, and only that one changes the body. The turn is taken only between
//! two steps of the request before. The last user of an ended session drops its bytes. No lock is held across an I/O
//! except the body's.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::sync::futures::Notified;

use super::UploadStatus;
use super::body::Body;
use super::eviction::{IdleSpace, Rank};
use super::sessions::Uploads;
use super::shared::UploadIdentity;
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::sync::{Mutex, Notify};
use crate::vocabulary::{UploadClaim, UploadId, UploadPosition};

/// A request that received nothing for this long loses its turn to any other one.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// One upload.
#[derive(Debug)]
pub(super) struct Session {
    identity: UploadIdentity,
    unlisted: bool,
    body: tokio::sync::Mutex<Body>,
    state: Mutex<State>,
    /// Notified when the turn or the phase changes.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    offset: u64,
    /// Largest offset that an answer named: the next request does not roll back the bytes before it.
    answered: u64,
    algorithm: Algorithm,
    /// When a request last began or ended, or bytes last came.
    at: Duration,
    /// Number of the newest request; only that one may write.
    turn: u64,
    /// Whether that request is active.
    writing: bool,
    /// Number of requests that wait for their turn.
    waiting: usize,
    phase: Phase,
    /// Whether the body had memory or a descriptor after the last step.
    holds: bool,
    /// Bytes on disk after the last step.
    on_disk: u64,
    /// The upload is not suspended again before this time.
    retry_at: Duration,
    /// What ended it, if it failed.
    failure: Option<Error>,
}

/// How far the upload is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It takes bytes.
    Open,
    /// A request is making a blob of it.
    Finishing,
    /// It is a blob, whose commit is under way.
    Finished,
    /// It can no longer be found.
    Ended,
}

impl State {
    /// Returns why a request that holds the upload cannot continue after its end.
    fn end(&self) -> Error {
        self.failure.clone().unwrap_or(Error::UnknownUpload)
    }

    /// Returns whether nothing uses the upload, so that it may be ended to make room or because of its age.
    fn is_idle(&self) -> bool {
        self.phase == Phase::Open && !self.writing && self.waiting == 0
    }
}

impl Session {
    pub(super) fn new(identity: UploadIdentity, unlisted: bool, body: Body, now: Duration) -> Self {
        let state = State {
            offset: body.offset(),
            answered: 0,
            algorithm: body.algorithm(),
            at: now,
            turn: 0,
            writing: false,
            waiting: 0,
            phase: Phase::Open,
            holds: body.holds(),
            on_disk: body.bytes_on_disk(),
            retry_at: Duration::ZERO,
            failure: None,
        };
        Self {
            identity,
            unlisted,
            body: tokio::sync::Mutex::new(body),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    pub(super) fn id(&self) -> UploadId {
        self.identity.id
    }

    /// Returns whether no other request can open it.
    pub(super) fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    pub(super) fn repository(&self) -> &str {
        &self.identity.repository
    }

    /// Returns the bytes received up to the last completed step.
    pub(super) fn offset(&self) -> u64 {
        self.state.lock().offset
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.state.lock().algorithm
    }

    /// Returns the actor that began it.
    pub(super) fn actor(&self) -> &str {
        &self.identity.actor
    }

    /// Returns how far it is, for an answer to its client.
    pub(super) fn status(&self) -> UploadStatus {
        let mut state = self.state.lock();
        state.answered = state.answered.max(state.offset);
        UploadStatus {
            offset: state.offset,
            algorithm: state.algorithm,
            actor: self.identity.actor.clone(),
            created_unix_ms: self.identity.created_unix_ms,
        }
    }

    /// Resolves at the next change of turn or phase after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Notes that a request waits for its turn: the upload is in use until [`Session::end_wait`].
    pub(super) fn begin_wait(&self) {
        self.state.lock().waiting += 1;
    }

    /// Notes that the request has its turn, was rejected, or is gone.
    pub(super) fn end_wait(&self) {
        self.state.lock().waiting -= 1;
    }

    /// Gives the turn to a request and returns its number; returns `None` while the upload becomes a blob, so that the
    /// caller waits. The caller holds the body, so the request before is between two steps, and begins no other.
    pub(super) fn claim(
        &self,
        claim: &UploadClaim,
        body: &mut Body,
        now: Duration,
    ) -> Result<Option<u64>> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {}
            Phase::Finishing | Phase::Finished => return Ok(None),
            Phase::Ended => return Err(Error::UnknownUpload),
        }
        let offset = body.offset();
        match claim.position {
            UploadPosition::At(first) if first != offset => {
                state.answered = state.answered.max(offset);
                return Err(Error::OutOfOrder { first, offset });
            }
            UploadPosition::Anywhere
                if state.writing && now.saturating_sub(state.at) < STALLED_AFTER =>
            {
                return Err(Error::UploadBusy);
            }
            // The request names the upload's offset and continues there.
            UploadPosition::At(_) | UploadPosition::Anywhere => body.keep_unanswered(),
            // Decided here: later answers, to the request before or to another one, change nothing for this one.
            UploadPosition::End => keep_answered(&state, body),
        }
        body.set_client(claim.client);
        if let Some(algorithm) = claim.algorithm {
            body.prefer(algorithm);
            state.algorithm = body.algorithm();
        }
        if let Some(bytes) = claim.announced {
            body.announce(bytes);
        }
        state.turn += 1;
        (state.writing, state.at) = (true, now);
        let turn = state.turn;
        drop(state);
        self.changed.notify_waiters();
        Ok(Some(turn))
    }

    /// Prepares a suspension: bytes of a close without an answer stay if an answer named them.
    pub(super) fn keep_answered(&self, body: &mut Body) {
        let state = self.state.lock();
        // A request that has the turn decides about its own bytes.
        if !state.writing {
            keep_answered(&state, body);
        }
    }

    /// Notes that bytes from `offset` on are being rolled back: answers name `offset` from now on.
    pub(super) fn begin_rollback(&self, offset: u64) {
        let mut state = self.state.lock();
        state.offset = state.offset.min(offset);
    }

    /// Fails if the request no longer has its turn.
    pub(super) fn check(&self, turn: u64) -> Result<()> {
        let state = self.state.lock();
        if state.turn != turn {
            Err(Error::UploadBusy)
        } else if state.phase == Phase::Ended {
            Err(state.end())
        } else {
            Ok(())
        }
    }

    /// Ends the request; returns whether the upload ends, too.
    pub(super) fn release(&self, turn: u64, now: Duration) -> bool {
        let mut state = self.state.lock();
        if state.turn != turn {
            return false;
        }
        (state.writing, state.at) = (false, now);
        let over = self.unlisted && state.phase == Phase::Open;
        if over {
            state.phase = Phase::Ended;
        }
        drop(state);
        self.changed.notify_waiters();
        over
    }

    /// Waits until it has ended or no request writes to it.
    pub(super) async fn wait_until_idle(&self) {
        loop {
            let changed = self.changed();
            {
                let state = self.state.lock();
                if state.phase == Phase::Ended || (state.phase == Phase::Open && !state.writing) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Notes that the request begins to make a blob of it.
    pub(super) fn begin_finish(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(state.end());
        }
        state.phase = Phase::Finishing;
        Ok(())
    }

    /// Notes that it is a blob now; fails if it was cancelled meanwhile.
    pub(super) fn finished(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Finishing {
            return Err(state.end());
        }
        state.phase = Phase::Finished;
        Ok(())
    }

    /// Makes it take bytes again after no blob was made of it, unless it was cancelled meanwhile.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Finishing {
            state.phase = Phase::Open;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends it, unless it became a blob or has ended; returns whether it does.
    pub(super) fn cancel(&self) -> bool {
        self.end_if(|state| matches!(state.phase, Phase::Open | Phase::Finishing))
    }

    /// Ends it if no request used it since `since`; returns whether it does.
    pub(super) fn expire(&self, since: Duration) -> bool {
        self.end_if(|state| state.is_idle() && state.at <= since)
    }

    /// Returns its place in the order in which uploads are ended to make room; `None` while it is in use.
    pub(super) fn rank(&self) -> Option<Rank> {
        let state = self.state.lock();
        let evictable = state.is_idle() && !self.unlisted;
        evictable.then_some(Rank {
            partial: state.offset > 0,
            since: state.at,
        })
    }

    /// Returns the space that ending it would free; `None` while it is in use.
    pub(super) fn idle_space(&self, now: Duration) -> Option<IdleSpace> {
        let state = self.state.lock();
        let idle = now.saturating_sub(state.at);
        let evictable = state.is_idle() && state.on_disk > 0;
        evictable.then_some(IdleSpace {
            bytes: state.on_disk,
            idle,
        })
    }

    /// Ends it to make room, unless it is in use; returns whether it does.
    pub(super) fn evict(&self) -> bool {
        self.end_if(State::is_idle)
    }

    /// Returns whether it holds memory or a descriptor and received nothing for `quiet`.
    pub(super) fn is_quiet(&self, now: Duration, quiet: Duration) -> bool {
        let state = self.state.lock();
        let due = now.saturating_sub(state.at) >= quiet && now >= state.retry_at;
        state.holds && state.phase == Phase::Open && due
    }

    /// Returns whether it holds memory or a descriptor.
    pub(super) fn holds(&self) -> bool {
        self.state.lock().holds
    }

    pub(super) fn retry_at(&self, at: Duration) {
        self.state.lock().retry_at = at;
    }

    /// Ends it after its commit.
    pub(super) fn end(&self) {
        self.end_if(|_| true);
    }

    fn end_if(&self, may: impl FnOnce(&State) -> bool) -> bool {
        let mut state = self.state.lock();
        let ends = may(&state);
        if ends {
            state.phase = Phase::Ended;
        }
        drop(state);
        self.changed.notify_waiters();
        ends
    }

    /// Notes how far the body is; returns whether it holds something now that it did not hold before.
    fn note(&self, body: &Body, now: Duration) -> bool {
        let mut state = self.state.lock();
        let held = std::mem::replace(&mut state.holds, body.holds());
        state.on_disk = body.bytes_on_disk();
        let begins = state.holds && !held;
        if matches!(state.phase, Phase::Finished | Phase::Ended) {
            return begins;
        }
        if state.offset != body.offset() {
            (state.offset, state.at) = (body.offset(), now);
        }
        // A request that failed rolled back, and its client has the error.
        state.answered = state.answered.min(state.offset);
        if let Err(error) = body.check() {
            state.phase = Phase::Ended;
            // Also if it failed beside the request that holds it, which has no other answer.
            state.failure = Some(error);
        }
        begins
    }

    fn has_ended(&self) -> bool {
        self.state.lock().phase == Phase::Ended
    }

    /// Waits for the step under way, then holds the body.
    pub(super) async fn hold<'a>(&'a self, uploads: &'a Uploads) -> Held<'a> {
        Held {
            session: self,
            uploads,
            body: Some(self.body.lock().await),
        }
    }

    /// Holds the body if no step is under way.
    pub(super) fn try_hold<'a>(&'a self, uploads: &'a Uploads) -> Option<Held<'a>> {
        let body = self.body.try_lock().ok()?;
        Some(Held {
            session: self,
            uploads,
            body: Some(body),
        })
    }

    /// Drops the bytes. If a step is under way, that happens at its end.
    pub(super) fn abandon(&self) {
        if let Ok(mut body) = self.body.try_lock() {
            body.abandon();
        }
    }

    /// Drops the bytes once no step is under way and nothing uses their files, even if the caller gives up before.
    pub(super) async fn settle_and_abandon(&self) {
        let _given_up = AbandonOnDrop(self);
        let mut body = self.body.lock().await;
        body.settle().await;
        body.abandon();
    }
}

/// Keeps the bytes of a close without an answer if an answer named an offset after its beginning, because its client
/// continues there.
fn keep_answered(state: &State, body: &mut Body) {
    if body
        .unanswered()
        .is_some_and(|mark| state.answered > mark.offset())
    {
        body.keep_unanswered();
    }
}

/// Drops the bytes of a session that has ended.
struct AbandonOnDrop<'a>(&'a Session);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The body, held for one step. When it drops, the session notes how far the body is.
#[derive(Debug)]
pub(super) struct Held<'a> {
    session: &'a Session,
    uploads: &'a Uploads,
    body: Option<tokio::sync::MutexGuard<'a, Body>>,
}

impl Deref for Held<'_> {
    type Target = Body;

    fn deref(&self) -> &Body {
        match &self.body {
            Some(body) => body,
            None => unreachable!("a body is held until the drop"),
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Body {
        match &mut self.body {
            Some(body) => body,
            None => unreachable!("a body is held until the drop"),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            let begins = self.session.note(&body, self.uploads.now());
            if begins {
                self.uploads.shared().held.notify_one();
            }
        }
        // After the body's lock was released: a call that ended the upload meanwhile could not drop its bytes.
        if self.session.has_ended() {
            self.uploads.forget(self.session);
        }
    }
}
