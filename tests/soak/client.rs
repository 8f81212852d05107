//! A client that pushes, mounts, pulls and deletes, and checks every answer.
//!
//! Owns: [`Client`]: its connections, its choices, and what it does when. `pushes`, `pulls` and `deletions` have the
//! requests. Refuses: choices that depend on anything but the seed, the answers and the clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use tonnage_tests::content::Seeded;
use tonnage_tests::http::{Answer, Connection, Upload};
use tonnage_tests::push::{MANIFEST, Pusher};

use crate::history::Event;
use crate::ledger::Ledger;
use crate::pulls::SlowPull;
use crate::world::{REPOSITORIES, World};

/// A violation: the digest concerned, and what is wrong.
#[derive(Debug)]
pub struct Violation {
    pub digest: String,
    pub why: String,
}

/// The outcome of a step.
pub type Checked<T = ()> = Result<T, Violation>;

/// Returns a violation.
pub fn violation<T>(digest: &str, why: impl Into<String>) -> Checked<T> {
    Err(Violation {
        digest: digest.to_owned(),
        why: why.into(),
    })
}

/// A request: what it is, the repository and the digest that it is about, method and target.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub what: &'static str,
    pub repository: usize,
    pub digest: &'a str,
    pub method: &'a Method,
    pub target: &'a str,
}

/// An answer, with the times at which its request was sent and it had arrived.
#[derive(Debug)]
pub struct Seen {
    pub sent: Instant,
    pub answered: Instant,
    pub answer: Answer,
}

impl Seen {
    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }
}

/// A blob whose grace ends at about `due`, which is when the interesting races happen.
#[derive(Debug)]
pub struct Edge {
    pub due: Instant,
    pub repository: usize,
    pub blob: usize,
}

/// An upload that was left in its middle.
#[derive(Debug)]
pub struct Unfinished {
    pub repository: usize,
    pub blob: usize,
    pub location: String,
    pub received: usize,
}

/// One of the clients.
#[derive(Debug)]
pub struct Client {
    pub number: usize,
    pub world: Arc<World>,
    pub choices: Seeded,
    /// Its only connection: the server closes one that is idle for 2 s if others need its large buffers.
    pub pusher: Pusher,
    pub ledger: Ledger,
    pub edges: VecDeque<Edge>,
    pub unfinished: Vec<Unfinished>,
    pub slow_pulls: Vec<SlowPull>,
}

impl Client {
    /// Connects.
    pub async fn connect(world: &Arc<World>, number: usize, seed: u64) -> Result<Self, String> {
        let connection = Connection::connect(world.address).await?;
        let name = World::name(number * REPOSITORIES);
        Ok(Self {
            number,
            world: Arc::clone(world),
            choices: Seeded::new(seed),
            pusher: Pusher::new(connection, &name),
            ledger: Ledger::new(REPOSITORIES),
            edges: VecDeque::new(),
            unfinished: Vec::new(),
            slow_pulls: Vec::new(),
        })
    }

    /// Acts until the run is over. Then checks everything that this client pushed.
    pub async fn work(&mut self) {
        let mut outcome = Ok(());
        while outcome.is_ok() && !self.world.is_over() {
            outcome = self.act().await;
        }
        if outcome.is_ok() {
            outcome = self.finish().await;
        }
        if let Err(Violation { digest, why }) = outcome {
            self.world.fail(self.number, &digest, why);
        }
    }

    async fn act(&mut self) -> Checked {
        let is_due = |edge: &Edge| edge.due <= Instant::now();
        if self.edges.front().is_some_and(is_due)
            && let Some(edge) = self.edges.pop_front()
        {
            return self.touch_at_the_edge(edge).await;
        }
        let own = self.choose(REPOSITORIES);
        match self.choices.between(0, 1000) {
            0..240 => self.push_image(own).await,
            240..320 => self.pull_any().await,
            320..420 => self.continue_pull().await,
            420..500 => self.pull_own(own).await,
            500..560 => self.check_any_blob(own).await,
            560..640 => self.push_orphan(own).await,
            640..700 => self.mount_any(own).await,
            700..760 => self.move_tag(own).await,
            760..790 => self.delete_tag(own).await,
            790..900 => self.delete_manifest(own).await,
            900..940 => self.delete_blob(own).await,
            940..965 => self.leave_upload(own).await,
            965..985 => self.continue_upload().await,
            985..992 => self.list_tags(own).await,
            _ => self.delete_repository(own).await,
        }
    }

    /// Ends what is unfinished, and pulls everything that must be there.
    async fn finish(&mut self) -> Checked {
        while !self.unfinished.is_empty() {
            self.cancel_upload().await?;
        }
        self.push_share().await?;
        for own in 0..REPOSITORIES {
            self.list_tags(own).await?;
            let manifests = self.world.repositories[self.global(own)]
                .lock()
                .manifests
                .clone();
            for manifest in manifests {
                self.pull_manifest(self.global(own), &manifest.digest, &manifest)
                    .await?;
                self.pull_blobs(self.global(own), &manifest).await?;
            }
        }
        Ok(())
    }

    /// Returns the number of an own repository among all.
    pub fn global(&self, own: usize) -> usize {
        self.number * REPOSITORIES + own
    }

    /// Returns a number below `count`.
    pub fn choose(&mut self, count: usize) -> usize {
        let choice = self
            .choices
            .between(0, u64::try_from(count).expect("a count"));
        usize::try_from(choice).expect("below a count")
    }

    /// Returns a blob other than the config. The first are chosen most often, so there are blobs that are always in
    /// use, and blobs that are mostly dead.
    pub fn choose_blob(&mut self) -> usize {
        let count = self.world.blobs.len() - 1;
        let narrowed = self.choose(count) + 1;
        let blob = 1 + self.choose(narrowed);
        // The largest take a hundred times as long as the others.
        let is_large = self.world.blobs[blob].bytes.len() > 1 << 20;
        if is_large && self.choose(8) > 0 {
            return 1;
        }
        blob
    }

    /// Remembers to look at a blob when its grace is about to end, or has just ended.
    pub fn watch_edge(&mut self, repository: usize, blob: usize) {
        if self.edges.len() < 64 {
            let grace = self.world.grace;
            let late = Duration::from_millis(self.choices.between(0, 400));
            let due = Instant::now() + grace + late - Duration::from_millis(50);
            self.edges.push_back(Edge {
                due,
                repository,
                blob,
            });
        }
    }

    /// Sends a request and records it. Errors of the server, too many requests, and answers that do not end are
    /// violations in every case.
    pub async fn ask(&mut self, ask: Ask<'_>, body: Upload) -> Checked<Seen> {
        let kind = match ask.target.contains("/manifests/") {
            true => MANIFEST,
            false => "application/octet-stream",
        };
        let header = match *ask.method == Method::GET || *ask.method == Method::HEAD {
            true => ("accept", "*/*"),
            false => ("content-type", kind),
        };
        self.send(ask, &[header], body).await
    }

    /// Sends a GET for a range, or for the whole.
    pub async fn ask_range(&mut self, ask: Ask<'_>, range: Option<&str>) -> Checked<Seen> {
        let header = range.map(|range| ("range", range));
        self.send(ask, header.as_slice(), Upload::empty()).await
    }

    async fn send(
        &mut self,
        ask: Ask<'_>,
        headers: &[(&str, &str)],
        body: Upload,
    ) -> Checked<Seen> {
        let sent = Instant::now();
        let connection = &mut self.pusher.client;
        let answer = connection
            .send(ask.method.clone(), ask.target, headers, body)
            .await;
        let answered = Instant::now();
        let status = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
        self.record(
            ask.what,
            ask.repository,
            ask.digest,
            (sent, answered, status),
        );
        self.world.count(1);
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return violation(ask.digest, format!("{}: {why}", ask.what)),
        };
        if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            return unexpected(&ask, &answer);
        }
        Ok(Seen {
            sent,
            answered,
            answer,
        })
    }

    /// Adds an event to the history.
    pub fn record(
        &self,
        what: &'static str,
        repository: usize,
        digest: &str,
        (sent, answered, status): (Instant, Instant, u16),
    ) {
        let event = Event {
            sent,
            answered,
            what,
            repository: World::name(repository),
            digest: digest.to_owned(),
            status,
        };
        self.world.history.add(self.number, event);
    }

    /// Checks that a request which did not find a blob of an own repository may not have found it, and forgets the
    /// blob.
    pub fn missed(&mut self, own: usize, blob: usize, seen: &Seen, what: &str) -> Checked {
        if self
            .ledger
            .must_have(own, blob, seen.answered, &self.world.time)
        {
            let digest = &self.world.blobs[blob].digest;
            let name = World::name(self.global(own));
            return violation(digest, format!("{what}: {name} lost {digest}"));
        }
        if self.ledger.has_link(own, blob) {
            self.world.counts.lapsed.fetch_add(1, Ordering::Relaxed);
        }
        self.ledger.forget(own, blob);
        Ok(())
    }

    /// Records that a request found a blob of an own repository.
    pub fn found(&self, own: usize, blob: usize, seen: &Seen) {
        let (counts, time) = (&self.world.counts, &self.world.time);
        if self.ledger.is_promised(own, blob, seen.answered, time) {
            counts.promised.fetch_add(1, Ordering::Relaxed);
        }
        if self.ledger.is_held_by_stop(own, blob, seen.answered, time) {
            counts.held_by_stops.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns the violation that an answer is none of those that are allowed.
pub fn unexpected<T>(ask: &Ask<'_>, answer: &Answer) -> Checked<T> {
    let body = String::from_utf8_lossy(&answer.body);
    let (what, target) = (ask.what, ask.target);
    violation(
        ask.digest,
        format!("{what}: {} {target}: {} {body}", ask.method, answer.status),
    )
}
