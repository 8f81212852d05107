//! The compute threads that a commit uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tonnage_engine::io::{Spawn, TaskFuture};
use tonnage_engine::{Algorithm, Batch, Change, Options, Origin, Require, Store};

use crate::run;

/// A spawner that counts the computations given to it that have not ended.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Spawn>,
    outstanding: Arc<AtomicUsize>,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Spawn for Counted {
    fn spawn(&self, name: &'static str, task: TaskFuture) {
        self.inner.spawn(name, task);
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) {
        let outstanding = Arc::clone(&self.outstanding);
        let now = outstanding.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.all.fetch_add(1, Ordering::SeqCst);
        self.inner.compute(Box::new(move || {
            outstanding.fetch_sub(1, Ordering::SeqCst);
            job();
        }));
    }
}

/// Guards: manifests with very many children use at most one compute thread, and release it between pieces.
#[test]
fn large_batches_leave_threads_to_others() {
    run(|dir| async move {
        let mut env = tonnage_server::runtime::env().unwrap();
        let counted = Arc::new(Counted {
            inner: Arc::clone(&env.spawn),
            outstanding: Arc::default(),
            most: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
        });
        env.spawn = Arc::<Counted>::clone(&counted);
        let path = dir.path().join("store");
        let (store, _) = Store::open(env, &path, Options::default()).await.unwrap();
        let blob = store.put_small("content".into(), Algorithm::Sha256).await;
        let blob = blob.unwrap();
        let digest = blob.digest();
        let batch = |requires, staged, changes| Batch {
            repository: "a".to_owned(),
            create_repository: true,
            requires,
            staged,
            changes,
            origin: Origin::default(),
        };
        let first = batch(Vec::new(), vec![blob], vec![Change::Link(digest)]);
        store.commit(first).await.unwrap();
        counted.all.store(0, Ordering::SeqCst);
        counted.most.store(0, Ordering::SeqCst);
        let large = || {
            let requires = vec![Require::Linked(digest); 10_000];
            store.commit(batch(requires, Vec::new(), vec![Change::Link(digest)]))
        };
        for committed in join_all((0..4).map(|_| large())).await {
            committed.unwrap();
        }
        assert_eq!(counted.most.load(Ordering::SeqCst), 1);
        assert!(counted.all.load(Ordering::SeqCst) >= 4 * 10);
        store.close().await.unwrap();
    });
}
