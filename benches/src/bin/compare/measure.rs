//! The measurements of one registry. Each is a function, timed from before the first request to after the last answer.
//!
//! Owns: the workloads and the meaning of "then fsynced" for a registry that does not sync. Refuses: work of the client
//! in the timed part that can be done before (content, digests).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};

use tonnage_benches::rival::{Kind, Rival};
use tonnage_benches::wire::Wire;

const OCTETS: &str = "Content-Type: application/octet-stream\r\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One timed interval: seconds by the clock, and CPU seconds of the server.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    pub seconds: f64,
    pub cpu: f64,
}

/// A blob ready to be pushed: a prefix that makes it unique, and bytes that all blobs share.
#[derive(Debug, Clone)]
pub struct Blob {
    prefix: [u8; 64],
    rest: Arc<Vec<u8>>,
    pub digest: String,
}

impl Blob {
    /// Creates a blob that is unique for `salt`.
    pub fn new(salt: &str, rest: &Arc<Vec<u8>>) -> Self {
        let mut prefix = [0; 64];
        blake3::Hasher::new()
            .update(salt.as_bytes())
            .finalize_xof()
            .fill(&mut prefix);
        let digest = Sha256::new()
            .chain_update(prefix)
            .chain_update(rest.as_slice())
            .finalize();
        let digest = digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        Self {
            prefix,
            rest: Arc::clone(rest),
            digest: format!("sha256:{digest}"),
        }
    }

    pub fn length(&self) -> u64 {
        (self.prefix.len() + self.rest.len()) as u64
    }

    fn parts(&self) -> [&[u8]; 2] {
        [&self.prefix, &self.rest]
    }
}

/// Returns pseudo-random bytes, the same in every run.
pub fn bytes(length: usize) -> Arc<Vec<u8>> {
    let mut all = vec![0; length];
    blake3::Hasher::new()
        .update(b"compare")
        .finalize_xof()
        .fill(&mut all);
    Arc::new(all)
}

/// Pushes one blob by POST, one PATCH, PUT. For docker-registry the second interval includes the sync of its file.
pub async fn push_large(rival: &Rival, blob: &Blob) -> Result<(Interval, Interval), String> {
    let mut wire = Wire::connect(rival.address).await?;
    let (begin, cpu) = (Instant::now(), rival.cpu_seconds()?);
    let at = open_upload(&mut wire).await?;
    let answer = wire
        .request("PATCH", &at, OCTETS, &blob.parts(), |_| {})
        .await?;
    let at = location(&answer.expect(202, "PATCH")?)?;
    let close = with_digest(&at, &blob.digest);
    wire.request("PUT", &close, OCTETS, &[], |_| {})
        .await?
        .expect(201, "PUT")?;
    let answered = interval(rival, begin, cpu)?;
    sync_if_docker(rival, &blob.digest)?;
    Ok((answered, interval(rival, begin, cpu)?))
}

/// Pushes blobs by POST and PUT over `concurrency` connections; with `synced`, each file of docker-registry is synced
/// before the next push of that connection.
pub async fn push_small(
    rival: &Rival,
    blobs: &[Blob],
    concurrency: usize,
    synced: bool,
) -> Result<Interval, String> {
    let work = move |mut wire: Wire, blob: Blob, rival: Arc<Place>| async move {
        let at = open_upload(&mut wire).await?;
        let close = with_digest(&at, &blob.digest);
        wire.request("PUT", &close, OCTETS, &blob.parts(), |_| {})
            .await?
            .expect(201, "PUT")?;
        if synced && rival.kind == Kind::DockerRegistry {
            let (place, digest) = (Arc::clone(&rival), blob.digest.clone());
            let sync = tokio::task::spawn_blocking(move || place.sync_blob(&digest));
            sync.await.map_err(|e| format!("sync: {e}"))??;
        }
        Ok(wire)
    };
    each(rival, blobs.to_vec(), concurrency, work).await
}

/// Reads a blob over one connection and discards it.
pub async fn pull_large(rival: &Rival, blob: &Blob) -> Result<Interval, String> {
    let mut wire = Wire::connect(rival.address).await?;
    let (begin, cpu) = (Instant::now(), rival.cpu_seconds()?);
    let target = format!("/v2/compare/blobs/{}", blob.digest);
    let answer = wire
        .request("GET", &target, "", &[], |_| {})
        .await?
        .expect(200, "GET")?;
    if answer.length != blob.length() {
        return Err(format!(
            "{} bytes instead of {}",
            answer.length,
            blob.length()
        ));
    }
    interval(rival, begin, cpu)
}

/// Reads a blob and compares its digest; not timed.
pub async fn check(rival: &Rival, blob: &Blob) -> Result<(), String> {
    let mut wire = Wire::connect(rival.address).await?;
    let mut hasher = Sha256::new();
    let target = format!("/v2/compare/blobs/{}", blob.digest);
    let see = |piece: &[u8]| hasher.update(piece);
    wire.request("GET", &target, "", &[], see)
        .await?
        .expect(200, "GET")?;
    let found = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    if blob.digest.ends_with(&found) {
        return Ok(());
    }
    Err(format!(
        "{} served {found} as {}",
        rival.kind.name(),
        blob.digest
    ))
}

/// Sends `count` GETs of `targets`, in turn, over `concurrency` connections.
pub async fn gets(
    rival: &Rival,
    targets: &[String],
    count: usize,
    concurrency: usize,
) -> Result<Interval, String> {
    let all = targets.iter().cycle().take(count).cloned().collect();
    let accept = format!("Accept: {MANIFEST}\r\n");
    let work = move |mut wire: Wire, target: String, _| {
        let accept = accept.clone();
        async move {
            wire.request("GET", &target, &accept, &[], |_| {})
                .await?
                .expect(200, "GET")?;
            Ok(wire)
        }
    };
    each(rival, all, concurrency, work).await
}

/// Pushes the targets of the GETs: blobs of 4 KiB, and a tagged manifest for each. Returns the paths of both.
pub async fn prepare_gets(
    rival: &Rival,
    blobs: &[Blob],
) -> Result<(Vec<String>, Vec<String>), String> {
    push_small(rival, blobs, 4, false).await?;
    let config = Blob::new("config", &bytes(64));
    push_small(rival, std::slice::from_ref(&config), 1, false).await?;
    let mut wire = Wire::connect(rival.address).await?;
    let (mut blob_paths, mut manifest_paths) = (Vec::new(), Vec::new());
    for (number, blob) in blobs.iter().enumerate() {
        let descriptor = |blob: &Blob| serde_json::json!({"mediaType": "application/octet-stream", "digest": blob.digest, "size": blob.length()});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(&config), "layers": [descriptor(blob)],
        });
        let path = format!("/v2/compare/manifests/t{number}");
        let body = manifest.to_string();
        let headers = format!("Content-Type: {MANIFEST}\r\n");
        let answer = wire
            .request("PUT", &path, &headers, &[body.as_bytes()], |_| {})
            .await?;
        answer.expect(201, "PUT of a manifest")?;
        blob_paths.push(format!("/v2/compare/blobs/{}", blob.digest));
        manifest_paths.push(path);
    }
    Ok((blob_paths, manifest_paths))
}

/// What a task needs to know of a registry, without owning its process.
#[derive(Debug)]
struct Place {
    kind: Kind,
    folder: std::path::PathBuf,
}

impl Place {
    fn sync_blob(&self, digest: &str) -> Result<(), String> {
        sync_with_folder(&Rival::docker_blob(&self.folder, digest))
    }
}

/// Does `work` on each item, with the items distributed over `concurrency` connections, and times all of it.
async fn each<T, W, F>(
    rival: &Rival,
    items: Vec<T>,
    concurrency: usize,
    work: W,
) -> Result<Interval, String>
where
    T: Clone + Send + Sync + 'static,
    W: Fn(Wire, T, Arc<Place>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Wire, String>> + Send,
{
    let (items, next) = (Arc::new(items), Arc::new(AtomicU64::new(0)));
    let place = Arc::new(Place {
        kind: rival.kind,
        folder: rival.folder.clone(),
    });
    let mut wires = Vec::new();
    for _ in 0..concurrency {
        wires.push(Wire::connect(rival.address).await?);
    }
    let (begin, cpu) = (Instant::now(), rival.cpu_seconds()?);
    let mut tasks = Vec::new();
    for mut wire in wires {
        let (items, next) = (Arc::clone(&items), Arc::clone(&next));
        let (work, place) = (work.clone(), Arc::clone(&place));
        tasks.push(tokio::spawn(async move {
            loop {
                let at =
                    usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                let Some(item) = items.get(at) else {
                    return Ok::<(), String>(());
                };
                wire = work(wire, item.clone(), Arc::clone(&place)).await?;
            }
        }));
    }
    for task in tasks {
        task.await
            .map_err(|e| format!("a connection's task: {e}"))??;
    }
    interval(rival, begin, cpu)
}

fn interval(rival: &Rival, begin: Instant, cpu: f64) -> Result<Interval, String> {
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Interval {
        seconds,
        cpu: rival.cpu_seconds()? - cpu,
    })
}

fn sync_if_docker(rival: &Rival, digest: &str) -> Result<(), String> {
    match rival.kind {
        Kind::DockerRegistry => sync_with_folder(&Rival::docker_blob(&rival.folder, digest)),
        Kind::Tonnage => Ok(()),
    }
}

/// Syncs the file and its directory entry, as a durable registry would.
fn sync_with_folder(file: &Path) -> Result<(), String> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(file).map_err(|e| format!("sync {}: {e}", file.display()))?;
    let folder = file.parent().ok_or("a blob in no folder")?;
    sync(folder).map_err(|e| format!("sync {}: {e}", folder.display()))
}

async fn open_upload(wire: &mut Wire) -> Result<String, String> {
    let answer = wire
        .request("POST", "/v2/compare/blobs/uploads/", "", &[], |_| {})
        .await?;
    location(&answer.expect(202, "POST")?)
}

/// Returns path and query of a Location, which one registry sends relative and the other absolute.
fn location(answer: &tonnage_benches::wire::Answer) -> Result<String, String> {
    let location = answer
        .header("location")
        .ok_or("an answer without Location")?;
    match location
        .strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
    {
        Some(path) => Ok(path.to_owned()),
        None => Ok(location.to_owned()),
    }
}

fn with_digest(at: &str, digest: &str) -> String {
    let joint = if at.contains('?') { '&' } else { '?' };
    format!("{at}{joint}digest={digest}")
}
