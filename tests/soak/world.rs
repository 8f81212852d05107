//! What all clients of a run share: contents, the visible state of every repository, and the first violation.
//!
//! Owns: [`World`], [`Blob`], [`Repository`], [`Manifest`]. A repository is changed by its owner only, which records a
//! change here before its request and after the answer. So others know what they must find.
//! Refuses: exact predictions while a change is in progress.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tonnage_tests::content::{Content, Seeded, digest_of_bytes};
use tonnage_tests::process::Server;
use tonnage_tests::push::EMPTY_JSON;

use crate::history::History;
use crate::time::ServerTime;

/// Repositories of each client.
pub const REPOSITORIES: usize = 3;
/// Contents that all clients push. With fewer, none is ever unreferenced for long enough to be collected.
const CONTENTS: u64 = 480;
/// Blobs that are larger get a segment of their own in this test, so that many segments are unlinked.
pub const SPILL_KIB: u64 = 256;
/// Events after which those that wait for a number of them look again.
const NOTIFY_EACH: u64 = 10;

/// One of the contents.
#[derive(Debug)]
pub struct Blob {
    /// The source of its bytes; `None` for the empty object that is the config of every manifest.
    pub content: Option<Content>,
    /// Its bytes.
    pub bytes: Bytes,
    /// Its digest.
    pub digest: String,
}

/// A manifest of a repository.
#[derive(Debug)]
pub struct Manifest {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The numbers of its blobs, each once.
    pub blobs: Vec<usize>,
    /// Whether a request that deletes it was begun.
    pub is_deleted: AtomicBool,
}

/// A tag of a repository.
#[derive(Debug, Default, Clone)]
pub struct Tag {
    /// Odd while a request changes it.
    pub version: u64,
    /// The manifest that the last change set.
    pub manifest: Option<Arc<Manifest>>,
}

/// A repository, as its owner last left it.
#[derive(Debug, Default)]
pub struct Repository {
    /// Manifests that got their 201 and whose deletion was not begun.
    pub manifests: Vec<Arc<Manifest>>,
    /// Its tags.
    pub tags: BTreeMap<u64, Tag>,
}

/// The counters of a run, for its summary.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests of clients.
    pub events: AtomicU64,
    /// Requests that found nothing because a promise had ended.
    pub lapsed: AtomicU64,
    /// Pushes that began anew because promises of their blobs had ended.
    pub repeated: AtomicU64,
    /// Requests that found content which only a promise protected.
    pub promised: AtomicU64,
    /// Those for which grace was over, without the time in which the server was stopped.
    pub held_by_stops: AtomicU64,
    /// Pulls that met a deletion.
    pub deleted: AtomicU64,
}

/// The shared state of a run.
#[derive(Debug)]
pub struct World {
    /// The server.
    pub address: SocketAddr,
    /// Its data.
    pub data: PathBuf,
    /// All contents; the first is the config.
    pub blobs: Vec<Blob>,
    /// The repositories of all clients, in order.
    pub repositories: Vec<Mutex<Repository>>,
    /// The time of the server.
    pub time: ServerTime,
    /// The grace of the server.
    pub grace: Duration,
    /// What happened last.
    pub history: History,
    /// The counters.
    pub counts: Counts,
    over: AtomicBool,
    failure: Mutex<Option<(usize, String, String)>>,
    waiting: (Mutex<()>, Condvar),
}

impl World {
    /// Creates the world of a run with so many clients; one more has the history of commands.
    pub fn new(server: &Server, clients: usize, seed: u64, grace: Duration) -> Self {
        let repositories = (0..clients * REPOSITORIES).map(|_| Mutex::default());
        Self {
            address: server.address(),
            data: server.data().to_owned(),
            blobs: contents(seed),
            repositories: repositories.collect(),
            time: ServerTime::new(grace),
            grace,
            history: History::new(clients + 1),
            counts: Counts::default(),
            over: AtomicBool::new(false),
            failure: Mutex::default(),
            waiting: (Mutex::new(()), Condvar::new()),
        }
    }

    /// Returns the name of a repository.
    pub fn name(repository: usize) -> String {
        let (client, number) = (repository / REPOSITORIES, repository % REPOSITORIES);
        format!("soak/c{client}-{number}")
    }

    /// Returns the number of the blob with this digest.
    pub fn blob_of(&self, digest: &str) -> Option<usize> {
        self.blobs.iter().position(|blob| blob.digest == digest)
    }

    /// Counts requests.
    pub fn count(&self, events: u64) {
        let before = self.counts.events.fetch_add(events, Ordering::SeqCst);
        if before / NOTIFY_EACH != (before + events) / NOTIFY_EACH {
            self.notify();
        }
    }

    /// Returns the number of requests so far.
    pub fn events(&self) -> u64 {
        self.counts.events.load(Ordering::SeqCst)
    }

    /// Waits for this number of requests. Returns false if the run is over first.
    pub fn wait_for(&self, events: u64) -> bool {
        let mut guard = self.waiting.0.lock();
        while self.events() < events && !self.is_over() {
            self.waiting.1.wait(&mut guard);
        }
        !self.is_over()
    }

    /// Ends the run.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.notify();
    }

    /// Returns whether clients must stop.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Records a violation that `client` found, about a digest that `why` may name, and ends the run.
    pub fn fail(&self, client: usize, digest: &str, why: String) {
        let mut failure = self.failure.lock();
        failure.get_or_insert((client, digest.to_owned(), why));
        drop(failure);
        self.end();
    }

    /// Returns the first violation, with what happened before it.
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock();
        let (client, digest, why) = failure.as_ref()?;
        let history = self.history.report(*client, digest);
        Some(format!("client {client}: {why}\n{history}"))
    }

    /// Returns the number and the bytes of all manifests and blobs that must be stored now.
    pub fn live(&self) -> (usize, u64) {
        let mut live = HashMap::new();
        for repository in &self.repositories {
            for manifest in &repository.lock().manifests {
                live.insert(manifest.digest.clone(), manifest.bytes.len());
                let blobs = manifest.blobs.iter().map(|blob| &self.blobs[*blob]);
                live.extend(blobs.map(|blob| (blob.digest.clone(), blob.bytes.len())));
            }
        }
        (live.len(), live.values().map(|len| *len as u64).sum())
    }

    fn notify(&self) {
        drop(self.waiting.0.lock());
        self.waiting.1.notify_all();
    }
}

/// Generates the contents: 1 KiB to 256 KiB, every eighth larger than that, and one of 9 MiB.
fn contents(seed: u64) -> Vec<Blob> {
    let mut choices = Seeded::new(seed);
    let config = Blob {
        content: None,
        bytes: Bytes::from_static(EMPTY_JSON),
        digest: digest_of_bytes(EMPTY_JSON),
    };
    let generated = (1..CONTENTS).map(|number| {
        let length = match number {
            _ if number == CONTENTS * 2 / 3 => 9 << 20,
            _ if number % 8 == 7 => choices.between((SPILL_KIB << 10) + 1, 600 << 10),
            _ => {
                let least = 1 << choices.between(10, 18);
                choices.between(least, 2 * least)
            }
        };
        let content = Content::new(choices.bits(), length);
        Blob {
            content: Some(content),
            bytes: content.bytes().into(),
            digest: content.digest(),
        }
    });
    std::iter::once(config).chain(generated).collect()
}
