//! Scripted steps of one repository and their progress, for tests that need to know which call a fault hits.
//!
//! The calls, their bytes and their effects are those of the reference model (tests/support/model).

use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::io::Env;
use tonnage_engine::{Error, Store};
use tonnage_tests::model::drive;
use tonnage_tests::model::operation::{Call, How, Operation};
use tonnage_tests::model::state::{Model, Repository};

/// The progress of a script: steps begun and steps acknowledged.
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
    pub steps: Vec<Operation>,
}

impl Script {
    /// Returns the repository after the first `count` steps.
    pub fn after(&self, count: usize) -> Repository {
        let mut model = Model::default();
        for step in self.steps.iter().take(count) {
            // Unfinished uploads and checkpoints are no transactions; every other step was accepted.
            drop(model.apply(&self.call(step)));
        }
        model
            .repositories
            .remove(self.repository)
            .unwrap_or_default()
    }

    fn call(&self, step: &Operation) -> Call {
        Call {
            repository: self.repository.to_owned(),
            operation: step.clone(),
        }
    }

    /// Takes one step.
    pub async fn take(&self, store: &Store, env: &Env, step: &Operation) -> Result<(), Error> {
        drive::take(store, env, &self.call(step)).await
    }

    /// Takes all steps. Records in `progress` when one begins and when it is acknowledged. Ends at the first error.
    pub async fn run(
        &self,
        store: Store,
        env: Env,
        progress: Arc<Mutex<Progress>>,
    ) -> Result<(), Error> {
        for step in &self.steps {
            progress.lock().begun += 1;
            self.take(&store, &env, step).await?;
            progress.lock().done += 1;
        }
        Ok(())
    }
}

/// Returns a step that uploads a content and links it.
pub fn push(content: u32) -> Operation {
    Operation::Push {
        content,
        how: How::default(),
    }
}

/// Returns a step that puts a manifest over contents pushed before, and tags it.
pub fn manifest(number: u32, children: &[u32], tag: &str) -> Operation {
    Operation::Manifest {
        number,
        children: children.to_vec(),
        manifests: Vec::new(),
        subject: None,
        tag: Some(tag.to_owned()),
    }
}

/// Returns a step that puts a manifest that refers to another.
pub fn refer(number: u32, subject: u32) -> Operation {
    Operation::Manifest {
        number,
        children: Vec::new(),
        manifests: Vec::new(),
        subject: Some(subject),
        tag: None,
    }
}

/// Returns a step that moves a tag to an existing manifest.
pub fn tag(tag: &str, number: u32) -> Operation {
    Operation::Tag {
        tag: tag.to_owned(),
        number,
        old: None,
    }
}

/// Returns a step that removes a tag.
pub fn untag(tag: &str) -> Operation {
    Operation::Untag(tag.to_owned())
}

/// Returns a step that sends half of a content and leaves the upload open.
pub fn leave(content: u32) -> Operation {
    Operation::Leave {
        content,
        percent: 50,
    }
}

/// Returns two repositories that share contents, with every kind of step, a checkpoint in the middle of each, and
/// uploads left open.
pub fn scripts() -> Vec<Script> {
    use Operation::{Checkpoint, DeleteManifest, Unlink};
    vec![
        Script {
            repository: "library/a",
            steps: vec![
                push(1),
                push(7),
                manifest(100, &[1, 7], "latest"),
                leave(9),
                push(9),
                manifest(101, &[9], "latest"),
                Checkpoint,
                refer(102, 101),
                tag("old", 100),
                untag("latest"),
                push(0),
                DeleteManifest(100),
                Unlink(7),
                manifest(103, &[0, 1], "latest"),
            ],
        },
        Script {
            repository: "b",
            steps: vec![
                push(2),
                push(1),
                manifest(100, &[1, 2], "v1"),
                push(5),
                push(6),
                Checkpoint,
                manifest(201, &[5, 6], "v2"),
                DeleteManifest(201),
                leave(9),
                push(8),
                tag("v3", 100),
            ],
        },
    ]
}
