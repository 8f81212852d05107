//! Leases and pins of answers: what an answer promises is leased before its last check (DESIGN, "An answer is a
//! lease").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonnage_engine::{
    Algorithm, Batch, Change, ClientId, Digest, Options, Origin, Store, UntaggedPolicy,
    UploadClaim, UploadId, UploadSpec,
};
use tonnage_server::ServerOptions;
use tonnage_server::registry::Result;
use tonnage_server::registry::ports::{
    Blob, BlobStore, Condition, Pinned, ReadAccount, Staged, StoredBlob, Upload,
};
use tonnage_tests::registry::TestRegistry;

use crate::{push_blob, push_image, put_manifest, sha256};

/// A blob store in which a blob is deleted from these repositories before each lease. It notes whether `watched` was
/// leased or pinned when a manifest's bytes were stored, and may say that all blobs are damaged.
#[derive(Debug)]
pub(crate) struct Interfered {
    pub(crate) real: Arc<dyn BlobStore>,
    pub(crate) store: Store,
    pub(crate) deleting: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) watched: Digest,
    pub(crate) held: Arc<Mutex<Vec<bool>>>,
    pub(crate) damaged: Arc<AtomicBool>,
}

impl BlobStore for Interfered {
    fn lease(&self, digest: Digest) -> BoxFuture<'_, Result<()>> {
        for repository in self.deleting.lock().drain(..) {
            let batch = Batch {
                repository: repository.to_owned(),
                create_repository: false,
                requires: Vec::new(),
                staged: Vec::new(),
                changes: vec![Change::Unlink(digest)],
                origin: Origin::default(),
            };
            let delete = self.store.commit(batch);
            tokio::task::block_in_place(|| Handle::current().block_on(delete)).expect("a delete");
        }
        self.real.lease(digest)
    }

    fn lease_manifest(&self, digest: Digest) -> BoxFuture<'_, Result<()>> {
        self.real.lease_manifest(digest)
    }
    fn open<'a>(
        &'a self,
        found: &'a StoredBlob,
        client: ClientId,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Blob>>>> {
        self.real.open(found, client)
    }
    fn begin(&self, spec: UploadSpec) -> BoxFuture<'_, Result<UploadId>> {
        self.real.begin(spec)
    }
    fn uploader<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>>> {
        self.real.uploader(id, repository)
    }

    fn offset<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<u64>> {
        self.real.offset(id, repository)
    }
    fn resume<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
        claim: UploadClaim,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>>> {
        self.real.resume(id, repository, claim)
    }
    fn finished<'a>(
        &'a self,
        id: UploadId,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>>> {
        self.real.finished(id, repository)
    }
    fn cancel<'a>(&'a self, id: UploadId, repository: &'a str) -> BoxFuture<'a, Result<()>> {
        self.real.cancel(id, repository)
    }
    fn put_small(
        &self,
        content: bytes::Bytes,
        algorithm: Algorithm,
    ) -> BoxFuture<'_, Result<Staged>> {
        self.held.lock().push(self.store.is_leased(&self.watched));
        self.real.put_small(content, algorithm)
    }
    fn pin<'a>(&'a self, digests: &'a [Digest]) -> BoxFuture<'a, Result<Pinned>> {
        self.real.pin(digests)
    }
    fn read_account(&self) -> Arc<dyn ReadAccount> {
        self.real.read_account()
    }
    fn may_be_damaged(&self, digest: &Digest) -> bool {
        self.damaged.load(Ordering::SeqCst) || self.real.may_be_damaged(digest)
    }

    fn is_damaged(&self, digest: Digest) -> BoxFuture<'_, Result<bool>> {
        if self.damaged.load(Ordering::SeqCst) {
            return Box::pin(async { Ok(true) });
        }
        self.real.is_damaged(digest)
    }
    fn condition(&self) -> BoxFuture<'_, Condition> {
        self.real.condition()
    }
}

/// Guards: a blob deleted between the first check and the lease is not promised: HEAD and GET are 404, a mount opens an
/// upload (spec, "Checking if content exists" and "Mounting a blob from another repository").
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blob_deleted_before_the_lease_is_not_promised() {
    let deleting = Arc::new(Mutex::new(Vec::new()));
    let meanwhile = Arc::clone(&deleting);
    let registry = TestRegistry::wrapped(move |store, real| {
        let store = store.clone();
        Arc::new(Interfered {
            real,
            store,
            deleting: meanwhile,
            watched: sha256(b""),
            held: Arc::default(),
            damaged: Arc::default(),
        })
    })
    .await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let path = format!("/v2/a/blobs/{digest}");
    for _ in 0..2 {
        client.head(&path).await.expect(200);
        deleting.lock().push("a");
        client.head(&path).await.expect(404);
        push_blob(&client, "a", b"content").await;
        deleting.lock().push("a");
        client.get(&path).await.expect(404);
        push_blob(&client, "a", b"content").await;
    }
    let mount = format!("/v2/a/blobs/uploads/?mount={digest}");
    client.post(&mount).await.expect(201);
    deleting.lock().push("a");
    client.post(&mount).await.expect(202);
    push_blob(&client, "a", b"content").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    deleting.lock().push("a");
    client.post(&mount).await.expect(202);
    push_blob(&client, "a", b"content").await;
    client.post(&mount).await.expect(201);
}

/// Guards: a finished upload is leased, like a blob that a check found, until a manifest references it. After that,
/// checks take no lease. A manifest's children are pinned from its check to its commit, although nothing else protects
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leases_begin_with_the_answer_and_end_with_a_reference() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&held);
    let layer = b"layer";
    let registry = TestRegistry::wrapped(move |store, real| {
        Arc::new(Interfered {
            real,
            store: store.clone(),
            deleting: Arc::default(),
            watched: sha256(layer),
            held: noted,
            damaged: Arc::default(),
        })
    })
    .await;
    let client = registry.client();
    let digest = push_blob(&client, "a", layer).await;
    assert!(
        registry.store.is_leased(&digest),
        "a finished upload has no lease"
    );
    let path = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    client.post(&path).await.expect(201);
    push_image(&client, "a", "first", layer).await;
    for _ in 0..2 {
        assert!(
            !registry.store.is_leased(&digest),
            "a referenced blob has a lease"
        );
        client
            .head(&format!("/v2/a/blobs/{digest}"))
            .await
            .expect(200);
    }
    // Its lease ended with the first manifest; only the pin of the second one protects it.
    held.lock().clear();
    let manifest = client.get("/v2/a/manifests/first").await.expect(200).json();
    put_manifest(&client, "a", "second", &with_annotation(manifest)).await;
    assert_eq!(*held.lock(), [true]);
    assert!(
        !registry.store.is_leased(&digest),
        "the pin outlived the push"
    );
}

fn with_annotation(mut manifest: serde_json::Value) -> serde_json::Value {
    manifest["annotations"] = serde_json::json!({ "a": "b" });
    manifest
}

/// Guards: GET and HEAD lease a manifest that its repository's policy may remove, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn manifests_that_may_go_are_leased() {
    let untagged = UntaggedPolicy::new(|name| (name == "a").then_some(Duration::from_hours(2)));
    let options = Options {
        untagged,
        ..Options::default()
    };
    let registry = TestRegistry::with_store(ServerOptions::default(), options).await;
    let client = registry.client();
    for (name, leased) in [("b", false), ("a", true)] {
        push_image(&client, name, "t", b"layer").await;
        let manifest = client
            .get(&format!("/v2/{name}/manifests/t"))
            .await
            .expect(200)
            .body;
        let digest = sha256(&manifest);
        let path = format!("/v2/{name}/manifests/{digest}");
        client.head(&path).await.expect(200);
        assert!(!registry.store.is_leased(&digest), "it is tagged");
        client
            .delete(&format!("/v2/{name}/manifests/t"))
            .await
            .expect(202);
        client.head(&path).await.expect(200);
        assert_eq!(registry.store.is_leased(&digest), leased, "{name}");
    }
}
