//! A scripted workload, and what each of its steps leads to.
//!
//! One script per repository, each run by a task of its own, so that transactions of different repositories share frames. A
//! script is a fixed list of steps; what the repository holds after each step is computed by [`Expected`], a model
//! small enough to check by eye.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tonnage_engine::upload::{UploadId, UploadSpec};
use tonnage_engine::{
    Algorithm, Batch, Change, Digest, Error, ManifestEntry, Origin, Require, Store,
};

/// One step of a script. Contents are named by number; their sizes follow from it.
#[derive(Debug, Clone)]
pub enum Step {
    /// Uploads content in pieces and links it.
    Push(u32),
    /// Puts a manifest over contents pushed before, and tags it.
    Manifest {
        number: u32,
        children: Vec<u32>,
        tag: &'static str,
    },
    /// Puts a manifest that refers to another.
    Refer { number: u32, subject: u32 },
    /// Moves a tag to a manifest that is there.
    Tag(&'static str, u32),
    /// Removes a tag.
    Untag(&'static str),
    /// Removes a manifest with its tags.
    DeleteManifest(u32),
    /// Takes a content's visibility away.
    Unlink(u32),
    /// Sends half of a content and leaves the upload open.
    Leave(u32),
    /// Writes a checkpoint.
    Checkpoint,
}

/// What a repository holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Visible blobs.
    pub links: BTreeSet<Digest>,
    /// Manifests with what they keep alive.
    pub manifests: BTreeMap<Digest, BTreeSet<Digest>>,
    /// Tags.
    pub tags: BTreeMap<String, Digest>,
    /// Subjects with their referrers.
    pub referrers: BTreeMap<Digest, BTreeSet<Digest>>,
}

/// How far each script had got: steps begun and steps acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps begun.
    pub begun: usize,
    /// Steps answered.
    pub done: usize,
}

/// A repository and its script.
#[derive(Debug, Clone)]
pub struct Script {
    /// The repository.
    pub repository: &'static str,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Bytes of content `number`: sizes around every boundary there is.
pub fn content(number: u32) -> Bytes {
    const SIZES: [usize; 12] = [
        0, 1, 511, 4096, 65_535, 65_536, 65_537, 100_000, 131_072, 200_001, 3, 1000,
    ];
    let size = SIZES[number as usize % SIZES.len()];
    let mut state = u64::from(number) + 1;
    let bytes: Vec<u8> = (0..size)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    Bytes::from(bytes)
}

/// Bytes of manifest `number`.
pub fn manifest(number: u32) -> Bytes {
    Bytes::from(format!("{{\"manifest\":{number}}}"))
}

/// Digest of content `number`.
pub fn digest(number: u32) -> Digest {
    Digest::of(Algorithm::Sha256, &content(number))
}

/// Digest of manifest `number`.
pub fn manifest_digest(number: u32) -> Digest {
    Digest::of(Algorithm::Sha256, &manifest(number))
}

/// The workload of the crash sweep: two repositories that share contents, every kind of step, a checkpoint in the middle of
/// each, uploads left open.
pub fn scripts() -> Vec<Script> {
    use Step::{Checkpoint, DeleteManifest, Leave, Manifest, Push, Refer, Tag, Unlink, Untag};
    vec![
        Script {
            repository: "library/a",
            steps: vec![
                Push(1),
                Push(7),
                Manifest {
                    number: 100,
                    children: vec![1, 7],
                    tag: "latest",
                },
                Leave(9),
                Push(9),
                Manifest {
                    number: 101,
                    children: vec![9],
                    tag: "latest",
                },
                Checkpoint,
                Refer {
                    number: 102,
                    subject: 101,
                },
                Tag("old", 100),
                Untag("latest"),
                Push(0),
                DeleteManifest(100),
                Unlink(7),
                Manifest {
                    number: 103,
                    children: vec![0, 1],
                    tag: "latest",
                },
            ],
        },
        Script {
            repository: "b",
            steps: vec![
                Push(2),
                Push(1),
                Manifest {
                    number: 100,
                    children: vec![1, 2],
                    tag: "v1",
                },
                Push(5),
                Push(6),
                Checkpoint,
                Manifest {
                    number: 201,
                    children: vec![5, 6],
                    tag: "v2",
                },
                DeleteManifest(201),
                Leave(9),
                Push(8),
                Tag("v3", 100),
            ],
        },
    ]
}

impl Expected {
    /// What the repository holds after `step`.
    pub fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Push(number) => {
                next.links.insert(digest(*number));
            }
            Step::Manifest {
                number,
                children,
                tag,
            } => {
                let children = children.iter().map(|child| digest(*child)).collect();
                next.manifests.insert(manifest_digest(*number), children);
                next.tags
                    .insert((*tag).to_owned(), manifest_digest(*number));
            }
            Step::Refer { number, subject } => {
                next.manifests
                    .insert(manifest_digest(*number), BTreeSet::new());
                let referrers = next.referrers.entry(manifest_digest(*subject)).or_default();
                referrers.insert(manifest_digest(*number));
            }
            Step::Tag(tag, number) => {
                next.tags
                    .insert((*tag).to_owned(), manifest_digest(*number));
            }
            Step::Untag(tag) => {
                next.tags.remove(*tag);
            }
            Step::DeleteManifest(number) => {
                let gone = manifest_digest(*number);
                next.manifests.remove(&gone);
                next.tags.retain(|_, digest| *digest != gone);
                next.referrers.values_mut().for_each(|referrers| {
                    referrers.remove(&gone);
                });
            }
            Step::Unlink(number) => {
                next.links.remove(&digest(*number));
            }
            Step::Leave(_) | Step::Checkpoint => {}
        }
        next
    }

    /// What the repository holds after the first `count` steps.
    pub fn after_steps(steps: &[Step], count: usize) -> Self {
        steps
            .iter()
            .take(count)
            .fold(Self::default(), |state, step| state.after(step))
    }
}

/// Runs a script, noting in `progress` when a step begins and when it was acknowledged. Ends at the first error.
pub async fn run(
    store: Store,
    script: Script,
    progress: Arc<Mutex<Progress>>,
) -> Result<(), Error> {
    for step in &script.steps {
        progress.lock().begun += 1;
        take(&store, script.repository, step).await?;
        progress.lock().done += 1;
    }
    Ok(())
}

/// One step against a store.
pub async fn take(store: &Store, repository: &str, step: &Step) -> Result<(), Error> {
    let manifest_step = |number: u32, children: &[u32], subject: Option<u32>| ManifestEntry {
        digest: manifest_digest(number),
        size: manifest(number).len() as u64,
        children: children.iter().map(|child| digest(*child)).collect(),
        subject: subject.map(manifest_digest),
        attributes: Bytes::from_static(b"test"),
    };
    match step {
        Step::Push(number) => {
            let id = begin(store, repository)?;
            let mut upload = store.open_upload(id, repository)?;
            send(&mut upload, &content(*number)).await?;
            let blob = upload.finish(digest(*number)).await?;
            let changes = vec![Change::Place(blob), Change::Link(digest(*number))];
            commit(store, repository, vec![], changes).await
        }
        Step::Manifest {
            number,
            children,
            tag,
        } => {
            let blob = store
                .put_small(manifest(*number), Algorithm::Sha256)
                .await?;
            let requires = children
                .iter()
                .map(|child| Require::Linked(digest(*child)))
                .collect();
            let set = Change::SetTag {
                tag: (*tag).to_owned(),
                digest: manifest_digest(*number),
            };
            let entry = Change::PutManifest(manifest_step(*number, children, None));
            commit(
                store,
                repository,
                requires,
                vec![Change::Place(blob), entry, set],
            )
            .await
        }
        Step::Refer { number, subject } => {
            let blob = store
                .put_small(manifest(*number), Algorithm::Sha256)
                .await?;
            let entry = Change::PutManifest(manifest_step(*number, &[], Some(*subject)));
            commit(store, repository, vec![], vec![Change::Place(blob), entry]).await
        }
        Step::Tag(tag, number) => {
            let set = Change::SetTag {
                tag: (*tag).to_owned(),
                digest: manifest_digest(*number),
            };
            commit(store, repository, vec![], vec![set]).await
        }
        Step::Untag(tag) => {
            commit(
                store,
                repository,
                vec![],
                vec![Change::DeleteTag((*tag).to_owned())],
            )
            .await
        }
        Step::DeleteManifest(number) => {
            commit(
                store,
                repository,
                vec![],
                vec![Change::DeleteManifest(manifest_digest(*number))],
            )
            .await
        }
        Step::Unlink(number) => {
            commit(
                store,
                repository,
                vec![],
                vec![Change::Unlink(digest(*number))],
            )
            .await
        }
        Step::Leave(number) => {
            let id = begin(store, repository)?;
            let whole = content(*number);
            let mut upload = store.open_upload(id, repository)?;
            send(&mut upload, &whole.slice(..whole.len() / 2)).await
        }
        Step::Checkpoint => store.checkpoint().await.map(drop),
    }
}

fn begin(store: &Store, repository: &str) -> Result<UploadId, Error> {
    store.begin_upload(UploadSpec {
        repository: repository.to_owned(),
        ..UploadSpec::default()
    })
}

/// Sends bytes in pieces of uneven sizes.
async fn send(upload: &mut tonnage_engine::upload::Upload, bytes: &Bytes) -> Result<(), Error> {
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(30_011));
        upload.write(piece).await?;
    }
    Ok(())
}

async fn commit(
    store: &Store,
    repository: &str,
    requires: Vec<Require>,
    changes: Vec<Change>,
) -> Result<(), Error> {
    let repository = repository.to_owned();
    let batch = Batch {
        repository,
        create_repository: true,
        requires,
        changes,
        origin: Origin::default(),
    };
    store.commit(batch).await.map(drop)
}
