//! The operations of a pusher on its repository, and how it records them.
//!
//! Owns: [`operation`], used by the tests of this folder. Refuses: operations whose right answer depends on another
//! pusher; each pusher has its own repository.

use hyper::{Method, StatusCode};
use tonnage_tests::content::{Content, Seeded, digest_of_bytes};
use tonnage_tests::http::Upload;
use tonnage_tests::push::{Pusher, Shape};

use crate::ledger::{Ledger, has_manifest, mount_target};

/// The kind of a test's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Some blobs are larger than an upload checkpoint (64 MiB). Otherwise the largest are just large enough for a
    /// dedicated segment.
    pub huge: bool,
    /// Reads fail. A blob that could not be read counts as damaged until the next start or the next push: a HEAD, a
    /// mount, and a manifest that names it do not find it.
    pub unreadable: bool,
}

/// Carries out one operation. Before it, the ledger records what may happen; after its answer, what did.
pub async fn operation(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
    kind: Kind,
) -> Result<(), String> {
    match choices.between(0, 100) {
        0..38 => push_blob(pusher, ledger, choices, kind).await,
        38..57 => push_manifest(pusher, ledger, choices).await,
        57..67 => move_tag(pusher, ledger, choices).await,
        67..74 => delete_tag(pusher, ledger, choices).await,
        74..80 => delete_manifest(pusher, ledger, choices).await,
        80..86 => delete_blob(pusher, ledger, choices).await,
        86..90 => mount(pusher, ledger, choices, kind).await,
        _ => pull(pusher, ledger, choices, kind).await,
    }
}

async fn push_blob(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
    kind: Kind,
) -> Result<(), String> {
    let length = match choices.between(0, 64) {
        0 if kind.huge => choices.between(65 << 20, 80 << 20),
        0 => choices.between(8 << 20, 12 << 20),
        1..6 if kind.huge => choices.between(8 << 20, 12 << 20),
        1..12 => choices.between(60_000, 1 << 20),
        // The status of an upload has the same Range for one byte and for none.
        _ => choices.between(16, 20_000),
    };
    let shape = match choices.between(0, 3) {
        0 => Shape::Monolithic,
        1 => Shape::Streamed,
        _ => Shape::Chunked(choices.between(length / 5 + 2, length + 3)),
    };
    let content = Content::new(choices.bits(), length);
    let digest = content.digest();
    let at = pusher.open_upload().await?;
    let (at, _) = ledger.unfinished.insert((at, content));
    pusher.send_blob(at, content, &digest, shape).await?;
    ledger.unfinished = None;
    ledger.blobs.push((content, digest));
    Ok(())
}

async fn push_manifest(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let layers: Vec<_> = (0..choices.between(0, 4))
        .filter_map(|_| pick(&ledger.blobs, choices))
        .map(|(content, digest)| (digest.clone(), content.length))
        .collect();
    let digests = layers.iter().map(|(digest, _)| digest.clone());
    ledger.named.extend(digests);
    let bytes = Pusher::manifest(&layers, choices.bits());
    let digest = digest_of_bytes(&bytes);
    ledger.doubtful.push(bytes.clone());
    let loose = |(layer, _): &(String, u64)| ledger.may_be_gone(layer);
    let may_be_unknown = layers.iter().any(loose);
    let pushed = if choices.between(0, 3) == 0 {
        pusher.put_manifest(&digest, &bytes).await
    } else {
        put_tag(pusher, ledger, choices, &bytes).await
    };
    if let Err(why) = &pushed
        && may_be_unknown
        && why.contains("MANIFEST_BLOB_UNKNOWN")
    {
        // It was not written, and some of its layers are collected.
        ledger.doubtful.pop();
        for tag in &mut ledger.tags {
            tag.in_doubt.retain(|at| at.as_ref() != Some(&digest));
        }
        return Ok(());
    }
    pushed?;
    ledger.doubtful.pop();
    ledger.manifests.push(bytes);
    Ok(())
}

async fn move_tag(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let Some(bytes) = pick(&ledger.manifests, choices).cloned() else {
        return Ok(());
    };
    put_tag(pusher, ledger, choices, &bytes).await
}

async fn put_tag(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
    bytes: &[u8],
) -> Result<(), String> {
    let digest = Some(digest_of_bytes(bytes));
    let tag = ledger.tag(&tag_name(choices));
    tag.in_doubt.push(digest.clone());
    pusher.put_manifest(&tag.name, bytes).await?;
    tag.settle(digest);
    Ok(())
}

async fn delete_tag(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let tag = ledger.tag(&tag_name(choices));
    if tag.settled.is_none() {
        return Ok(());
    }
    let may_be_gone = tag.may_be(None);
    tag.in_doubt.push(None);
    let answer = pusher.delete_manifest(&tag.name).await?;
    if !(may_be_gone && answer.status == StatusCode::NOT_FOUND) {
        answer.wanted(StatusCode::ACCEPTED, &format!("DELETE of tag {}", tag.name))?;
    }
    tag.settle(None);
    Ok(())
}

/// Deletes a manifest, and with it its tags.
async fn delete_manifest(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let Some(at) = place(&ledger.manifests, choices) else {
        return Ok(());
    };
    let bytes = ledger.manifests.swap_remove(at);
    let digest = digest_of_bytes(&bytes);
    ledger.doubtful.push(bytes);
    let mut tags: Vec<_> = ledger.tags.iter_mut().collect();
    tags.retain(|tag| tag.may_be(Some(&digest)));
    for tag in &mut tags {
        tag.in_doubt.push(None);
    }
    let answer = pusher.delete_manifest(&digest).await?;
    let what = format!("DELETE of manifest {digest}");
    answer.wanted(StatusCode::ACCEPTED, &what)?;
    for tag in tags {
        tag.in_doubt.pop();
        for one in tag.in_doubt.iter_mut().chain([&mut tag.settled]) {
            one.take_if(|at| *at == digest);
        }
    }
    ledger.doubtful.pop();
    ledger.deleted.push(digest);
    Ok(())
}

/// Deletes a blob that no manifest names, so that nothing else changes.
async fn delete_blob(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
) -> Result<(), String> {
    let Some(at) = place(&ledger.blobs, choices) else {
        return Ok(());
    };
    if ledger.named.contains(&ledger.blobs[at].1) {
        return Ok(());
    }
    let (content, digest) = ledger.blobs.swap_remove(at);
    ledger.doubtful_blobs.push((content, digest.clone()));
    let path = pusher.blob_path(&digest);
    let answer = pusher
        .client
        .send(Method::DELETE, &path, &[], Upload::empty());
    let what = format!("DELETE of {path}");
    let answer = answer.await?;
    if !(ledger.may_be_gone(&digest) && answer.status == StatusCode::NOT_FOUND) {
        answer.wanted(StatusCode::ACCEPTED, &what)?;
    }
    ledger.doubtful_blobs.pop();
    ledger.deleted_blobs.push(digest);
    Ok(())
}

/// Mounts a blob into a second repository, where it outlives its deletion in the first.
async fn mount(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
    kind: Kind,
) -> Result<(), String> {
    let Some((content, digest)) = pick(&ledger.blobs, choices).cloned() else {
        return Ok(());
    };
    let from = pusher.repository();
    let to = mount_target(from);
    let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
    let answer = pusher
        .client
        .send(Method::POST, &target, &[], Upload::empty());
    let answer = answer.await?;
    let may_be_gone = kind.unreadable || ledger.may_be_gone(&digest);
    if may_be_gone && answer.status == StatusCode::ACCEPTED {
        return Ok(());
    }
    answer.wanted(StatusCode::CREATED, "mount a blob")?;
    ledger.mounted.push((content, digest));
    Ok(())
}

/// Pulls acknowledged content, which must be present at any time.
async fn pull(
    pusher: &mut Pusher,
    ledger: &mut Ledger,
    choices: &mut Seeded,
    kind: Kind,
) -> Result<(), String> {
    let what = choices.between(0, 5);
    if what == 0 {
        let name = tag_name(choices);
        return ledger.tag(&name).look(pusher).await;
    }
    if what == 1 {
        let Some(bytes) = pick(&ledger.manifests, choices) else {
            return Ok(());
        };
        return match has_manifest(pusher, bytes).await? {
            true => Ok(()),
            false => Err("an acknowledged manifest is gone".to_owned()),
        };
    }
    let Some((content, digest)) = pick(&ledger.blobs, choices) else {
        return Ok(());
    };
    let path = pusher.blob_path(digest);
    let may_be_gone = ledger.may_be_gone(digest);
    if what == 2 {
        let answer = pusher.head_blob(digest).await?;
        if (kind.unreadable || may_be_gone) && answer.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let answer = answer.wanted(StatusCode::OK, &format!("HEAD of {path}"))?;
        let length = content.length.to_string();
        return match answer.find("content-length") == Some(&length) {
            true => Ok(()),
            false => Err(format!("HEAD of {path} ({content:?}) has another length")),
        };
    }
    if what == 3 {
        let first = choices.between(0, content.length);
        let last = choices.between(first, content.length);
        return pull_range(pusher, &path, *content, (first, last), may_be_gone).await;
    }
    match pusher.client.get_compare(&path, *content).await? {
        true => Ok(()),
        false if may_be_gone => Ok(()),
        false => Err(format!("acknowledged blob {path} ({content:?}) is gone")),
    }
}

async fn pull_range(
    pusher: &mut Pusher,
    path: &str,
    content: Content,
    (first, last): (u64, u64),
    may_be_gone: bool,
) -> Result<(), String> {
    let range = format!("bytes={first}-{last}");
    let headers = [("range", range.as_str())];
    let answer = pusher
        .client
        .send(Method::GET, path, &headers, Upload::empty());
    let what = format!("GET of {path}, {range}");
    let answer = answer.await?;
    if may_be_gone && answer.status == StatusCode::NOT_FOUND {
        return Ok(());
    }
    let answer = answer.wanted(StatusCode::PARTIAL_CONTENT, &what)?;
    let length = usize::try_from(last - first + 1).expect("small content");
    let mut wanted = vec![0; length];
    content.read_at(first, &mut wanted);
    match answer.body == wanted {
        true => Ok(()),
        false => Err(format!("{what}: bytes differ")),
    }
}

fn tag_name(choices: &mut Seeded) -> String {
    format!("t{}", choices.between(0, 5))
}

fn place<T>(from: &[T], choices: &mut Seeded) -> Option<usize> {
    if from.is_empty() {
        return None;
    }
    let at = choices.between(0, from.len() as u64);
    Some(usize::try_from(at).expect("an index"))
}

fn pick<'a, T>(from: &'a [T], choices: &mut Seeded) -> Option<&'a T> {
    place(from, choices).map(|at| &from[at])
}
