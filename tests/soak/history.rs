//! What happened last, for the report of a violation.
//!
//! Owns: [`History`], a bounded list of events for each client, and their text. Refuses: judgement, which the clients
//! have.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Instant;

use parking_lot::Mutex;

/// Events that are kept of each client.
const KEPT: usize = 4000;
/// Most events of each kind that a report has.
const REPORTED: usize = 80;

/// A request with its answer, or an admin command with its outcome.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it was sent.
    pub sent: Instant,
    /// When the answer arrived.
    pub answered: Instant,
    /// What it was.
    pub what: &'static str,
    /// The name of its repository.
    pub repository: String,
    /// The digest that it is about; may be empty.
    pub digest: String,
    /// The status, or the exit code of a command.
    pub status: u16,
}

/// The last events of all clients.
#[derive(Debug)]
pub struct History {
    begin: Instant,
    clients: Vec<Mutex<VecDeque<Event>>>,
}

impl History {
    /// Creates an empty history of so many clients.
    pub fn new(clients: usize) -> Self {
        Self {
            begin: Instant::now(),
            clients: (0..clients).map(|_| Mutex::default()).collect(),
        }
    }

    /// Adds an event of `client`.
    pub fn add(&self, client: usize, event: Event) {
        let mut events = self.clients[client].lock();
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Returns the last events of `client`, and those of all clients that are about `digest`, in the order in which
    /// they were sent.
    pub fn report(&self, client: usize, digest: &str) -> String {
        let mut text = String::new();
        let mut about: Vec<_> = Vec::new();
        for (number, events) in self.clients.iter().enumerate() {
            let events = events.lock();
            let found = events
                .iter()
                .filter(|event| !digest.is_empty() && event.digest == digest);
            about.extend(found.map(|event| (number, event.clone())));
        }
        about.sort_by_key(|(_, event)| event.sent);
        let _ = writeln!(text, "last events on {digest}:");
        self.write(&mut text, &about[about.len().saturating_sub(REPORTED)..]);
        let own = self.clients[client].lock();
        let own: Vec<_> = own.iter().map(|event| (client, event.clone())).collect();
        let _ = writeln!(text, "last events of client {client}:");
        self.write(&mut text, &own[own.len().saturating_sub(REPORTED)..]);
        text
    }

    fn write(&self, text: &mut String, events: &[(usize, Event)]) {
        for (client, event) in events {
            let at = |time: Instant| (time - self.begin).as_secs_f64();
            let digest = event.digest.get(..19).unwrap_or(&event.digest);
            let _ = writeln!(
                text,
                "{:12.6} .. {:12.6} client {client:2} {:16} {} {digest} -> {}",
                at(event.sent),
                at(event.answered),
                event.what,
                event.repository,
                event.status
            );
        }
    }
}
