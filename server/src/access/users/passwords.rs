//! Comparing passwords with their hashes.
//!
//! Owns: [`Passwords`]: which comparisons run, and what they found a moment ago. Refuses: HTTP.
//!
//! A comparison takes about 0.2 s of a processor by intention. So it never runs on an async worker; at most as many
//! run as half of the processors; and each address of clients has one at a time, so that one who guesses passwords
//! leaves room to others. A password that was right a moment ago is remembered, because clients send it with every
//! request.
//!
//! Invariants: what is remembered is a keyed hash, useless outside of this process. A user whose password changed or
//! who was removed is not remembered. A name that does not exist takes as long as a wrong password.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Semaphore};

use super::{UserEntry, Users};
use crate::access::{AccessError, Caller};
use crate::clock::RunningClock;

/// How long a right password is remembered.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Passwords that are remembered; when there are more, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Compares passwords.
#[derive(Debug)]
pub(in crate::access) struct Passwords {
    users: Users,
    right: Mutex<HashMap<Proof, Duration>>,
    secret: [u8; 32],
    clock: RunningClock,
    running: Semaphore,
    turns: Mutex<HashMap<IpAddr, Weak<Turn<()>>>>,
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
            running: Semaphore::new((processors / 2).max(1)),
            turns: Mutex::default(),
        })
    }

    /// Returns the users.
    pub(in crate::access) fn users(&self) -> &Users {
        &self.users
    }

    /// Returns the caller, if the password was found right a moment ago.
    pub(in crate::access) fn remembered(&self, name: &str, password: &str) -> Option<Caller> {
        let user = self.users.get(name)?;
        let now = self.clock.recent();
        let proof = self.proof(name, &user, password);
        let until = *self.right.lock().get(&proof)?;
        (now < until).then(|| caller(name, &user))
    }

    /// Compares a password. Returns the caller, if it is right.
    pub(in crate::access) async fn compare(
        self: Arc<Self>,
        peer: IpAddr,
        name: String,
        password: String,
    ) -> Option<Caller> {
        let turn = self.turn(peer);
        let _turn = turn.lock().await;
        // Another request of the same client may just have been compared.
        if let Some(caller) = self.remembered(&name, &password) {
            return Some(caller);
        }
        let _permit = self.running.acquire().await.ok()?;
        let this = Arc::clone(&self);
        let compared = tokio::task::spawn_blocking(move || this.compare_now(&name, &password));
        compared.await.ok().flatten()
    }

    fn compare_now(&self, name: &str, password: &str) -> Option<Caller> {
        // A user that a command added a moment ago is known at once.
        self.users.reload();
        let Some(user) = self.users.get(name) else {
            // As long as for a user that exists.
            let compared = bcrypt::hash(password, self.users.cost());
            drop(compared);
            return None;
        };
        if !bcrypt::verify(password, user.hash()).unwrap_or(false) {
            return None;
        }
        let proof = self.proof(name, &user, password);
        let mut right = self.right.lock();
        if right.len() >= REMEMBERED_MAX {
            right.clear();
        }
        right.insert(proof, self.clock.now() + REMEMBERED);
        Some(caller(name, &user))
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

    /// Returns the turn of an address.
    fn turn(&self, peer: IpAddr) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(&peer).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::new(()));
        turns.insert(peer, Arc::downgrade(&turn));
        turn
    }
}

fn caller(name: &str, user: &UserEntry) -> Caller {
    Caller {
        subject: name.to_owned(),
        is_admin: user.is_admin,
        scope: None,
    }
}
