//! Concurrent requests on uploads: one writer at a time, one end, one stored copy of a digest.

use bytes::Bytes;
use shuttle::future::block_on;
use tonnage_engine::{
    ClientId, Error, Options, Store, Upload, UploadClaim, UploadId, UploadPosition, UploadSpec,
};
use tonnage_races::explore::explore;
use tonnage_races::world::{World, digest, options, push_batch, thread};

fn begin(store: &Store) -> tonnage_engine::Result<UploadId> {
    store.begin_upload(UploadSpec {
        repository: "r".to_owned(),
        ..UploadSpec::default()
    })
}

/// Opens the session, writes and finishes. Returns whether it made the blob. It stays in memory if small, else it has a
/// file.
async fn write(store: Store, id: UploadId, text: Bytes) -> bool {
    let name = digest(std::str::from_utf8(&text).expect("text"));
    let mut upload = match store.open_upload(id, "r", UploadClaim::default()).await {
        Ok(upload) => upload,
        Err(Error::UploadBusy | Error::UnknownUpload) => return false,
        Err(other) => panic!("{other}"),
    };
    if upload.offset() == 0 {
        match upload.write(text).await {
            Ok(()) => {}
            Err(Error::UnknownUpload) => return false,
            Err(other) => panic!("{other}"),
        }
    }
    let finished = match upload.finish(name, None).await {
        Ok(finished) => finished,
        Err(Error::UnknownUpload) => return false,
        Err(other) => panic!("{other}"),
    };
    let committed = store.commit(push_batch("r", finished)).await;
    committed.expect("a disk without faults");
    true
}

async fn check_content(store: &Store, text: &str) {
    let name = digest(text);
    let found = store.view().blob(&name).expect("rows are readable");
    let found = found.expect("a blob that was committed");
    let opened = store.open_found(&name, &found, ClientId::default()).await;
    let reader = opened
        .expect("a disk without faults")
        .expect("the blob is stored");
    assert_eq!(reader.len(), text.len() as u64);
}

/// Opens the same session from two threads, while a third cancels it.
fn same_session() {
    let world = World::default();
    let store = world.open(options());
    let id = begin(&store).expect("room for one");
    let writers = [0, 1].map(|_| thread(write(store.clone(), id, Bytes::from_static(b"a"))));
    let cancel = {
        let store = store.clone();
        thread(async move { store.cancel_upload(id, "r") })
    };
    let made = writers
        .map(|writer| writer.join().expect("a writer ends"))
        .iter()
        .filter(|made| **made)
        .count();
    let cancelled = cancel.join().expect("a cancel ends").is_ok();
    assert!(
        made + usize::from(cancelled) <= 1,
        "an upload ended twice: {made} blobs, cancelled: {cancelled}"
    );
    assert!(
        made + usize::from(cancelled) == 1 || store.upload_status(id, "r").is_some(),
        "an upload was lost"
    );
    if made == 1 {
        block_on(check_content(&store, "a"));
    }
    block_on(store.close()).expect("a clean stop");
}

/// Guards: a session that two requests open has one writer, and ends once, as a blob or cancelled.
#[test]
fn one_session_taken_twice() {
    explore("one_session_taken_twice", 60, same_session);
}

/// Writes piece after piece in one request and finishes, while another request takes the turn and continues.
fn take_over() {
    let world = World::default();
    let store = world.open(options());
    let id = begin(&store).expect("room for one");
    let mut upload = block_on(store.open_upload(id, "r", UploadClaim::default()))
        .expect("no request has the turn");
    let older = {
        let store = store.clone();
        thread(async move {
            for _ in 0..3 {
                match upload.write(Bytes::from_static(b"a")).await {
                    Ok(()) => {}
                    Err(Error::UploadBusy) => return false,
                    Err(other) => panic!("{other}"),
                }
            }
            commit(&store, upload, "aaa").await
        })
    };
    let newer = {
        let store = store.clone();
        thread(async move {
            loop {
                let Some(status) = store.upload_status(id, "r") else {
                    return false;
                };
                let claim = UploadClaim {
                    position: UploadPosition::At(status.offset),
                    ..UploadClaim::default()
                };
                let mut upload = match store.open_upload(id, "r", claim).await {
                    Ok(upload) => upload,
                    Err(Error::OutOfOrder { .. }) => continue,
                    Err(Error::UnknownUpload) => return false,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(upload.offset(), status.offset);
                let before = "a".repeat(usize::try_from(status.offset).expect("small"));
                upload
                    .write(Bytes::from_static(b"b"))
                    .await
                    .expect("the newest request keeps the turn");
                // The digest would differ if the older request had written anything after it lost the turn.
                return commit(&store, upload, &format!("{before}b")).await;
            }
        })
    };
    let made = [older, newer].map(|thread| thread.join().expect("a request ends"));
    assert_ne!(made[0], made[1], "one request makes the blob");
    assert!(store.upload_status(id, "r").is_none(), "an upload was left");
    block_on(store.close()).expect("a clean stop");
}

/// Makes a blob of it, or returns that another request did.
async fn commit(store: &Store, mut upload: Upload, text: &str) -> bool {
    let finished = match upload.finish(digest(text), None).await {
        Ok(finished) => finished,
        Err(Error::UploadBusy) => return upload.outcome().await == Some(digest(text)),
        Err(Error::UnknownUpload) => return false,
        Err(other) => panic!("{other}"),
    };
    let committed = store.commit(push_batch("r", finished)).await;
    committed.expect("a disk without faults");
    true
}

/// Guards: a request that takes the turn has the bytes received before, and none that the older request sends later.
#[test]
fn a_newer_request_takes_over() {
    explore("a_newer_request_takes_over", 60, take_over);
}

/// Closes an upload twice at once.
fn close_twice() {
    let world = World::default();
    let store = world.open(options());
    let id = begin(&store).expect("room for one");
    let closes = [0, 1].map(|_| {
        let store = store.clone();
        thread(async move {
            let claim = UploadClaim {
                position: UploadPosition::End,
                ..UploadClaim::default()
            };
            match store.open_upload(id, "r", claim).await {
                Ok(upload) => commit(&store, upload, "").await,
                Err(Error::UnknownUpload) => store.finished_upload(id, "r") == Some(digest("")),
                Err(other) => panic!("{other}"),
            }
        })
    });
    for close in closes {
        assert!(close.join().expect("a close ends"), "a close was rejected");
    }
    block_on(store.close()).expect("a clean stop");
}

/// Guards: a close that arrives while another one commits returns the result of that one.
#[test]
fn an_upload_closed_twice() {
    explore("an_upload_closed_twice", 60, close_twice);
}

/// Uploads the same content twice, each large enough for a dedicated segment.
fn same_digest() {
    let world = World::default();
    let store = world.open(options());
    let text = "x".repeat(70 << 10);
    let writers = [0, 1].map(|_| {
        let (store, text) = (store.clone(), text.clone());
        thread(async move {
            let id = begin(&store).expect("room for two");
            assert!(
                write(store, id, Bytes::from(text)).await,
                "the upload is not in use"
            );
        })
    });
    for writer in writers {
        writer.join().expect("a writer ends");
    }
    block_on(check_content(&store, &text));
    block_on(store.close()).expect("a clean stop");
    drop(store);
    let store = world.open(options());
    let stats = block_on(store.stats()).expect("a disk without faults");
    assert_eq!(
        (stats.blobs, stats.segments),
        (1, 1),
        "more than one copy of a digest is stored"
    );
    block_on(check_content(&store, &text));
    block_on(store.close()).expect("a clean stop");
}

/// Guards: of two uploads of the same content one is stored; the file of the other is removed without harm to the
/// first.
#[test]
fn one_digest_pushed_twice() {
    explore("one_digest_pushed_twice", 20, same_digest);
}

/// Begins more uploads than allowed.
fn bound() {
    let world = World::default();
    let store = world.open(Options {
        uploads_max: 1,
        ..options()
    });
    let begun = [0, 1].map(|_| {
        let store = store.clone();
        shuttle::thread::spawn(move || begin(&store).is_ok())
    });
    let begun = begun.map(|thread| thread.join().expect("a thread ends"));
    let count = begun.iter().filter(|begun| **begun).count();
    assert_eq!(count, 1, "the number of uploads is bounded");
    block_on(store.close()).expect("a clean stop");
}

/// Guards: concurrent beginnings of uploads are counted one after the other.
#[test]
fn uploads_are_bounded() {
    explore("uploads_are_bounded", 20, bound);
}

/// Opens an upload while an upload of another repository needs its place.
fn evict() {
    let world = World::default();
    let store = world.open(Options {
        uploads_max: 1,
        ..options()
    });
    let id = begin(&store).expect("room for one");
    let writer = {
        let store = store.clone();
        thread(async move {
            let mut upload = match store.open_upload(id, "r", UploadClaim::default()).await {
                Ok(upload) => upload,
                Err(Error::UnknownUpload) => return false,
                Err(other) => panic!("{other}"),
            };
            let written = upload.write(Bytes::from_static(b"a")).await;
            written.expect("an upload in use was evicted");
            commit(&store, upload, "a").await
        })
    };
    let other = {
        let store = store.clone();
        shuttle::thread::spawn(move || {
            let spec = UploadSpec {
                repository: "other".to_owned(),
                ..UploadSpec::default()
            };
            store.begin_upload(spec).is_ok()
        })
    };
    let (made, begun) = (writer.join().expect("a writer ends"), other.join());
    assert!(
        made || begun.expect("a thread ends"),
        "neither upload succeeded"
    );
    block_on(store.close()).expect("a clean stop");
}

/// Guards: an upload that a request has opened is not evicted, however close the two events are.
#[test]
fn an_upload_in_use_is_not_evicted() {
    explore("an_upload_in_use_is_not_evicted", 60, evict);
}
