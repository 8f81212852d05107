//! Comparing passwords with their hashes.
//!
//! Owns: [`Passwords`]: what a comparison is, and which passwords were right a moment ago. Refuses: HTTP, and which
//! comparisons run (`comparisons`).
//!
//! A password that was right is remembered while it is used, because some clients send it with every request.
//!
//! Invariants: what is remembered is a keyed hash, useless outside of this process. A user whose password changed or
//! who was removed is not remembered. A wrong password takes as long for every name, whether or not it exists.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::comparisons::{Busy, Comparisons};
use super::own::PASSWORD_BYTES;
use super::{UserEntry, Users};
use crate::access::{AccessError, Caller, Decision, Refused};
use crate::clock::RunningClock;

/// How long a right password is remembered after its last use.
const REMEMBERED: Duration = Duration::from_mins(1);
/// How long a client counts as one who logged in.
const KNOWN: Duration = Duration::from_hours(24);
/// Clients that count as ones who logged in; when there are more, all are forgotten.
const KNOWN_MAX: usize = 64 << 10;
/// Passwords that are remembered; when there are more, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Compares passwords.
#[derive(Debug)]
pub(in crate::access) struct Passwords {
    users: Users,
    right: Mutex<HashMap<Proof, Duration>>,
    secret: [u8; 32],
    clock: RunningClock,
    comparisons: Arc<Comparisons>,
    /// Clients who logged in, and until when they count as such.
    known: Mutex<HashMap<IpAddr, Duration>>,
}

/// The keyed hash of a name, the hash of its password, and the password.
type Proof = [u8; 32];

impl Passwords {
    /// Creates it for these users.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(in crate::access) fn new(users: Users) -> Result<Self, AccessError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_failed| AccessError::Randomness)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            users,
            right: Mutex::default(),
            secret,
            clock: RunningClock::start(),
            comparisons: Comparisons::start(processors / 2).map_err(AccessError::Thread)?,
            known: Mutex::default(),
        })
    }

    /// Returns the users.
    pub(in crate::access) fn users(&self) -> &Users {
        &self.users
    }

    /// Determines whose name and password these are; nobody's if they are wrong.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if too many comparisons wait.
    pub(in crate::access) fn log_in(
        self: &Arc<Self>,
        client: IpAddr,
        name: String,
        password: String,
    ) -> Decision<'static, Result<Option<Caller>, Refused>> {
        if let Some(caller) = self.remembered(&name, &password) {
            return Decision::Ready(Ok(Some(caller)));
        }
        Decision::Pending(Arc::clone(self).compare(client, name, password).boxed())
    }

    /// Returns the caller, if the password was found right a moment ago.
    fn remembered(&self, name: &str, password: &str) -> Option<Caller> {
        let user = self.users.get(name)?;
        let now = self.clock.recent();
        let proof = self.proof(name, &user, password);
        let mut right = self.right.lock();
        let until = right.get_mut(&proof).filter(|until| now < **until)?;
        *until = now + REMEMBERED;
        drop(right);
        Some(user.caller(name))
    }

    /// Compares a password. Returns the caller, if it is right.
    async fn compare(
        self: Arc<Self>,
        client: IpAddr,
        name: String,
        password: String,
    ) -> Result<Option<Caller>, Refused> {
        let this = Arc::clone(&self);
        let (wanted, typed) = (name.clone(), password.clone());
        let compare =
            move || this.remembered(&wanted, &typed).is_some() || this.is_right(&wanted, &typed);
        if !self.in_turn(client, compare).await? {
            return Ok(None);
        }
        self.remember(client);
        // It was removed in between, if it is not remembered.
        Ok(self.remembered(&name, &password))
    }

    /// Runs a part of a login that takes time, when it is the turn of `client`.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if too many logins wait.
    pub(in crate::access) async fn in_turn(
        &self,
        client: IpAddr,
        work: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Refused> {
        let done = self.comparisons.run(client, self.is_known(client), work);
        done.await.map_err(|Busy| {
            tracing::debug!("a login was refused: too many logins wait");
            Refused::Unavailable
        })
    }

    fn is_known(&self, client: IpAddr) -> bool {
        let now = self.clock.recent();
        self.known
            .lock()
            .get(&client)
            .is_some_and(|until| now < *until)
    }

    fn remember(&self, client: IpAddr) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(client, self.clock.now() + KNOWN);
    }

    /// Compares a password, and remembers it if it is right. Waits for the disk and computes.
    fn is_right(&self, name: &str, password: &str) -> bool {
        // A user that a command added a moment ago is known at once.
        self.users.reload();
        let user = self.users.get(name);
        // bcrypt ignores what follows its 72 bytes, and repeats what ends with NUL.
        let is_whole = password.len() <= *PASSWORD_BYTES.end() && !password.contains('\0');
        let is_right =
            |user: &&UserEntry| bcrypt::verify(password, user.hash()).unwrap_or(false) && is_whole;
        let found = user.as_ref().filter(is_right);
        let Some(user) = found else {
            let spent = user.as_ref().map(UserEntry::cost);
            for cost in costs_left(spent, self.users.cost()) {
                drop(bcrypt::hash(password, cost));
            }
            return false;
        };
        let proof = self.proof(name, user, password);
        let mut right = self.right.lock();
        if right.len() >= REMEMBERED_MAX {
            right.clear();
        }
        right.insert(proof, self.clock.now() + REMEMBERED);
        true
    }

    fn proof(&self, name: &str, user: &UserEntry, password: &str) -> Proof {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.secret);
        let mut context = aws_lc_rs::hmac::Context::with_key(&key);
        for part in [name, user.hash(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut proof = [0; 32];
        proof.copy_from_slice(context.sign().as_ref());
        proof
    }
}

/// Returns the costs of the hashes that make a failed comparison take as long as one of the cost `most`. A hash takes
/// twice as long as one of the cost below. `spent` is the cost of the comparison; `None` if there was none.
fn costs_left(spent: Option<u32>, most: u32) -> impl Iterator<Item = u32> {
    match spent {
        Some(spent) => spent..most,
        None => most..most + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a failed login takes the same work for every name: of any cost, or unknown.
    #[test]
    fn failures_take_the_same_work() {
        let work = |spent: Option<u32>| {
            let rounds = |cost: u32| 1_u64 << cost;
            spent.map_or(0, rounds) + costs_left(spent, 12).map(rounds).sum::<u64>()
        };
        for spent in [None, Some(4), Some(5), Some(11), Some(12)] {
            assert_eq!(work(spent), 1 << 12, "{spent:?}");
        }
    }
}
