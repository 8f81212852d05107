//! What the stores of the criterion benches hold, and how it is pushed.
//!
//! Owns: contents and their digests, images and large blobs. Refuses: opening stores.
//!
//! Blob `n` has 8 bytes. Ten blobs are an image: nine that a manifest lists, and that manifest. An image is one commit
//! with ten links, a manifest and a tag, and all images are in one repository.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::JoinSet;
use tonnage_engine::{
    Algorithm, Batch, Change, Digest, FinishedBlob, ManifestEntry, Origin, Repository, Result,
    Store, UploadClaim, UploadSpec, View,
};

/// The repository of all images.
pub const REPOSITORY: &str = "bench/images";
/// Blobs of an image, its manifest included.
pub const IMAGE_BLOBS: u64 = 10;
/// Images that are pushed at the same time.
const WRITERS: u64 = 16;
/// Piece in which a request's body arrives, in bytes.
const PIECE: usize = 64 << 10;

/// Returns the `n`th value of a fixed sequence that looks random (splitmix64).
pub fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns `length` bytes that look random.
pub fn random(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length.div_ceil(8) as u64)
        .flat_map(|n| mixed(n).to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

/// Returns the content of blob `n`.
pub fn content(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

/// Returns the digest of blob `n`.
pub fn digest(n: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &content(n))
}

/// Returns the digest of the manifest of image `number`.
pub fn manifest(number: u64) -> Digest {
    digest(number * IMAGE_BLOBS + IMAGE_BLOBS - 1)
}

/// Returns the tag of image `number`. Tags are listed in the order of their numbers.
pub fn tag(number: u64) -> String {
    format!("v{number:010}")
}

/// Returns the repository of all images.
pub fn images(view: &View) -> Result<Repository<'_>> {
    Ok(view.repository(REPOSITORY)?.expect("the store has images"))
}

/// Returns a batch without preconditions on the repository of all images.
pub fn batch<S>(staged: Vec<S>, changes: Vec<Change>) -> Batch<S> {
    Batch {
        repository: REPOSITORY.to_owned(),
        create_repository: true,
        requires: Vec::new(),
        staged,
        changes,
        origin: Origin::default(),
    }
}

/// Pushes a range of images.
pub async fn push_images(store: &Store, images: Range<u64>) {
    let next = Arc::new(AtomicU64::new(images.start));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, next) = (store.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= images.end {
                    return;
                }
                push_image(&store, number).await;
            }
        });
    }
    writers.join_all().await;
}

/// Pushes one image.
async fn push_image(store: &Store, number: u64) {
    let first = number * IMAGE_BLOBS;
    let mut puts = JoinSet::new();
    for n in first..first + IMAGE_BLOBS {
        let store = store.clone();
        puts.spawn(async move { store.put_small(content(n), Algorithm::Sha256).await });
    }
    let staged = puts.join_all().await.into_iter();
    let staged = staged.collect::<Result<Vec<_>>>().expect("blobs");
    let children: Vec<Digest> = (first..first + IMAGE_BLOBS - 1).map(digest).collect();
    let manifest = manifest(number);
    let links = children.iter().chain([&manifest]).copied();
    let mut changes: Vec<Change> = links.map(Change::Link).collect();
    changes.push(Change::PutManifest(ManifestEntry {
        digest: manifest,
        size: 8,
        children,
        subject: None,
        attributes: Bytes::from_static(b"application/vnd.oci.image.manifest.v1+json"),
    }));
    changes.push(Change::SetTag {
        tag: tag(number),
        digest: manifest,
    });
    let committed = store.commit(batch(staged, changes)).await;
    committed.expect("a commit");
}

/// Uploads a large content as a request does, in pieces. Returns it synced; no commit names it yet.
pub async fn upload(store: &Store, content: &Bytes, digest: Digest) -> FinishedBlob {
    let spec = UploadSpec {
        repository: REPOSITORY.to_owned(),
        length_hint: Some(content.len() as u64),
        unlisted: true,
        ..UploadSpec::default()
    };
    let id = store.begin_upload(spec).expect("an upload");
    let opening = store.open_upload(id, REPOSITORY, UploadClaim::default());
    let mut upload = opening.await.expect("an upload");
    let mut rest = content.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        upload.write(piece).await.expect("a write");
    }
    upload.finish(digest, None).await.expect("a sync")
}
