//! The sessions by their id.
//!
//! Owns: [`SessionTable`]: adding within the bound, finding, removing, and ending some to make room (`eviction`).
//! Refuses: their bytes; the caller abandons what was removed.
//!
//! Invariant: the table's lock is taken before a session's, never after.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::eviction::{EvictionOrder, IdleSpace, QUIET, longest_idle};
use super::session::Session;
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::vocabulary::UploadId;

/// All sessions. Share by `Arc`.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    all: HashMap<UploadId, Arc<Session>>,
    eviction: EvictionOrder,
}

impl SessionTable {
    pub(super) fn len(&self) -> usize {
        self.sessions.lock().all.len()
    }

    /// Adds a session if there are fewer than `max`, or if ending others makes room. Ended ones are added to `evicted`,
    /// even if there is still no room; the caller abandons them.
    pub(super) fn add_within(
        &self,
        session: Arc<Session>,
        max: usize,
        now: Duration,
        evicted: &mut Vec<Arc<Session>>,
    ) -> Result<()> {
        let mut sessions = self.sessions.lock();
        // Counted and added under one lock, so that two new ones do not both get the last place.
        while sessions.all.len() >= max {
            let first = |sessions: &Sessions| {
                let eviction = &sessions.eviction;
                eviction.evictable(session.repository(), max, now)
            };
            let Some(ended) = sessions.evict(first) else {
                return Err(Error::TooManyUploads { max });
            };
            evicted.push(ended);
        }
        sessions.add(session);
        Ok(())
    }

    /// Adds a session of before the restart.
    pub(super) fn add(&self, session: Arc<Session>) {
        self.sessions.lock().add(session);
    }

    pub(super) fn find(&self, id: UploadId, repository: &str) -> Option<Arc<Session>> {
        let sessions = self.sessions.lock();
        let session = sessions.all.get(&id);
        session
            .filter(|session| session.repository() == repository)
            .map(Arc::clone)
    }

    /// Returns the sessions that `which` selects.
    pub(super) fn select(&self, which: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let sessions = self.sessions.lock();
        let chosen = sessions.all.values().filter(|session| which(session));
        chosen.map(Arc::clone).collect()
    }

    /// Notes that a request took the session or released it.
    pub(super) fn note(&self, session: &Session) {
        let mut sessions = self.sessions.lock();
        if sessions.all.contains_key(&session.id()) {
            sessions.note(session);
        }
    }

    /// Ends the longest idle upload that has bytes on disk ([`longest_idle`]), and returns it.
    pub(super) fn evict_for_space(&self, now: Duration) -> Option<Arc<Session>> {
        let mut sessions = self.sessions.lock();
        let is_quiet = |(_, space): &(UploadId, IdleSpace)| space.idle >= QUIET;
        sessions.evict(|sessions| longest_idle(sessions.idle_spaces(now).filter(is_quiet)))
    }

    /// Returns the time until an unused upload may be ended for space; `None` if there is none.
    pub(super) fn quiet_after(&self, now: Duration) -> Option<Duration> {
        let sessions = self.sessions.lock();
        let longest = sessions
            .idle_spaces(now)
            .map(|(_, space)| space.idle)
            .max()?;
        Some(QUIET.saturating_sub(longest))
    }

    /// Returns the bytes on disk of all uploads that [`SessionTable::evict_for_space`] would end, once they are quiet.
    pub(super) fn idle_bytes(&self, now: Duration) -> u64 {
        let sessions = self.sessions.lock();
        sessions
            .idle_spaces(now)
            .map(|(_, space)| space.bytes)
            .sum()
    }

    pub(super) fn remove(&self, session: &Session) {
        let removed = self.sessions.lock().remove(session.id());
        // Dropped without the table's lock.
        drop(removed);
    }
}

impl Sessions {
    fn add(&mut self, session: Arc<Session>) {
        self.eviction.add(session.repository());
        self.note(&session);
        self.all.insert(session.id(), session);
    }

    fn note(&mut self, session: &Session) {
        let rank = session.rank();
        self.eviction.rank(session.id(), session.repository(), rank);
    }

    fn remove(&mut self, id: UploadId) -> Option<Arc<Session>> {
        let session = self.all.remove(&id)?;
        self.eviction.remove(id, session.repository());
        Some(session)
    }

    fn idle_spaces(&self, now: Duration) -> impl Iterator<Item = (UploadId, IdleSpace)> {
        let all = self.all.values();
        all.filter_map(move |session| Some((session.id(), session.idle_space(now)?)))
    }

    /// Ends the session that `first` names, or the next one if a request has taken it meanwhile.
    fn evict(&mut self, first: impl Fn(&Self) -> Option<UploadId>) -> Option<Arc<Session>> {
        loop {
            let id = first(self)?;
            let Some(session) = self.all.get(&id).map(Arc::clone) else {
                unreachable!("a session is removed from the table and from the order together")
            };
            if session.evict() {
                return self.remove(id);
            }
            // A request uses it, and has not noted that yet.
            self.note(&session);
        }
    }
}
