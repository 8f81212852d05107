//! Pushes of clients that are not installed, request by request: docker with its own image store, buildkit and
//! containerd.
//!
//! Owns: the requests, and each client's checks of the answers. Refuses: to be more lenient than the client.

use std::net::SocketAddr;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tonnage_tests::content::{Content, digest_of_bytes};
use tonnage_tests::http::{Answer, Connection, Upload};

use crate::checks::same;
use crate::lane::Lane;

pub const DOCKER: (&str, &str) = ("docker, graphdriver store", "2026-08");
const BUILDKIT: (&str, &str) = ("buildkit", "2026-08");
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CACHE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A connection, and the repository to which it pushes.
pub struct Session {
    pub client: Connection,
    pub name: String,
    /// What is sent as `Authorization`.
    pub authorization: Option<String>,
}

impl Session {
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Upload,
        wanted: StatusCode,
    ) -> Result<Answer, String> {
        let target = if path.starts_with('/') || path.starts_with("http://") {
            path.to_owned()
        } else {
            format!("/v2/{}/{path}", self.name)
        };
        let doing = format!("{method} {target}");
        let authorization = self.authorization.as_deref();
        let authorization = authorization.map(|value| ("authorization", value));
        let headers: Vec<_> = headers.iter().copied().chain(authorization).collect();
        let answer = self.client.send(method, &target, &headers, body).await?;
        answer.wanted(wanted, &doing)
    }

    async fn head(&mut self, path: &str, wanted: StatusCode) -> Result<Answer, String> {
        let headers = [("accept", "application/vnd.oci.image.manifest.v1+json, */*")];
        let empty = Upload::empty();
        self.send(Method::HEAD, path, &headers, empty, wanted).await
    }

    async fn post(&mut self, path: &str, wanted: StatusCode) -> Result<String, String> {
        let answer = self.send(Method::POST, path, &[], Upload::empty(), wanted);
        header(&answer.await?, "location")
    }

    /// Puts a manifest. Checks that the answer has its digest.
    pub async fn manifest(&mut self, at: &str, kind: &str, text: &Value) -> Result<Answer, String> {
        let text = text.to_string();
        let (path, headers) = (format!("manifests/{at}"), [("content-type", kind)]);
        let body = Upload::bytes(text.clone());
        let answer = self.send(Method::PUT, &path, &headers, body, StatusCode::CREATED);
        let answer = answer.await?;
        let digest = header(&answer, "docker-content-digest")?;
        same(
            "digest of the manifest",
            digest,
            digest_of_bytes(text.as_bytes()),
        )?;
        Ok(answer)
    }
}

pub fn header(answer: &Answer, name: &str) -> Result<String, String> {
    let value = answer.find(name).map(str::to_owned);
    value.ok_or_else(|| format!("an answer without {name}: {:?}", answer.headers))
}

pub fn run<F: Future<Output = Result<(), String>>>(
    address: SocketAddr,
    name: &str,
    work: impl FnOnce(Session) -> F,
) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    runtime.block_on(async {
        let session = Session {
            client: Connection::connect(address).await?,
            name: name.to_owned(),
            authorization: None,
        };
        work(session).await
    })
}

pub fn descriptor(kind: &str, content: Content) -> Value {
    json!({"mediaType": kind, "digest": content.digest(), "size": content.length})
}

fn described(kind: &str, text: &Value) -> Value {
    let text = text.to_string();
    json!({"mediaType": kind, "digest": digest_of_bytes(text.as_bytes()), "size": text.len()})
}

/// Guards: a push of docker with its own image store. Docker derives a layer's size from `Range` in the answer to its
/// PATCH, requires `Content-Length` of the HEAD after the upload, and the digest in the answer to its manifest.
pub fn docker(lane: &Lane) -> Result<(), String> {
    let registry = lane.registry()?;
    let [config, first, second] = contents();
    let name = lane.repository("docker");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(DOCKER_CONFIG, config),
        "layers": [descriptor(DOCKER_LAYER, first), descriptor(DOCKER_LAYER, second)],
    });
    let operation = "push: HEAD, POST, PATCH in chunks, empty PUT, HEAD; manifest";
    lane.replay(DOCKER, operation, || {
        run(registry.address, &name, async |mut docker| {
            docker.get_v2().await?;
            for blob in [first, second, config] {
                docker_blob(&mut docker, blob).await?;
            }
            docker
                .manifest("latest", DOCKER_MANIFEST, &manifest)
                .await
                .map(drop)
        })
    })?;
    let copy = lane.repository("docker-mount");
    lane.replay(DOCKER, "push: POST with mount and from; manifest", || {
        run(registry.address, &copy, async |mut docker| {
            for blob in [first, second, config] {
                let digest = blob.digest();
                let mount = format!("blobs/uploads/?from={name}&mount={digest}");
                docker.post(&mount, StatusCode::CREATED).await?;
                docker
                    .head(&format!("blobs/{digest}"), StatusCode::OK)
                    .await?;
            }
            docker
                .manifest("latest", DOCKER_MANIFEST, &manifest)
                .await
                .map(drop)
        })
    })
}

pub fn contents() -> [Content; 3] {
    // Longer than what a server keeps in memory, and a config of a usual size.
    [(1, 1_733), (2, 5 << 20), (3, (3 << 20) + 17)].map(|(seed, length)| Content::new(seed, length))
}

impl Session {
    async fn get_v2(&mut self) -> Result<(), String> {
        let answer = self.send(Method::GET, "/v2/", &[], Upload::empty(), StatusCode::OK);
        answer.await.map(drop)
    }
}

pub async fn docker_blob(docker: &mut Session, blob: Content) -> Result<(), String> {
    let digest = blob.digest();
    let path = format!("blobs/{digest}");
    docker.head(&path, StatusCode::NOT_FOUND).await?;
    let at = docker.post("blobs/uploads/", StatusCode::ACCEPTED).await?;
    let body = Upload::part(blob, 0, blob.length).uncounted();
    let answer = docker
        .send(Method::PATCH, &at, &[], body, StatusCode::ACCEPTED)
        .await?;
    let (range, at) = (header(&answer, "range")?, header(&answer, "location")?);
    same("Range", range, format!("0-{}", blob.length - 1))?;
    let joint = if at.contains('?') { '&' } else { '?' };
    let close = format!("{at}{joint}digest={digest}");
    let empty = Upload::empty();
    docker
        .send(Method::PUT, &close, &[], empty, StatusCode::CREATED)
        .await?;
    let answer = docker.head(&path, StatusCode::OK).await?;
    same(
        "size",
        header(&answer, "content-length")?,
        blob.length.to_string(),
    )?;
    header(&answer, "content-type").map(drop)
}

/// Guards: a push of buildkit and containerd, one PUT for each blob: an attestation before its subject, the image, its
/// index. Build caches, as a manifest and as the older index whose entries are layers.
pub fn buildkit(lane: &Lane) -> Result<(), String> {
    let registry = lane.registry()?;
    let [config, first, second] = contents();
    let name = lane.repository("buildkit");
    let layers = [descriptor(LAYER, first), descriptor(LAYER, second)];
    let image = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config), "layers": layers,
    });
    let attestation = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
        "config": descriptor("application/vnd.oci.empty.v1+json", config),
        "layers": [descriptor("application/vnd.in-toto+json", second)], "subject": described(MANIFEST, &image),
    });
    let mut entries = [
        described(MANIFEST, &image),
        described(MANIFEST, &attestation),
    ];
    entries[0]["platform"] = json!({"architecture": "amd64", "os": "linux"});
    entries[1]["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let operation = "push: HEAD, POST, one PUT; attestation before its subject; index";
    lane.replay(BUILDKIT, operation, || {
        run(registry.address, &name, async |mut buildkit| {
            for blob in [first, second, config] {
                one_put(&mut buildkit, blob).await?;
            }
            for manifest in [&attestation, &image] {
                let digest = digest_of_bytes(manifest.to_string().as_bytes());
                buildkit
                    .head(&format!("manifests/{digest}"), StatusCode::NOT_FOUND)
                    .await?;
                let answer = buildkit.manifest(&digest, MANIFEST, manifest).await?;
                let subject = manifest["subject"]["digest"].as_str();
                same("OCI-Subject", answer.find("oci-subject"), subject)?;
            }
            buildkit
                .head("manifests/latest", StatusCode::NOT_FOUND)
                .await?;
            buildkit.manifest("latest", INDEX, &index).await?;
            let subject = digest_of_bytes(image.to_string().as_bytes());
            let referrers = format!("referrers/{subject}");
            let empty = Upload::empty();
            let answer = buildkit
                .send(Method::GET, &referrers, &[], empty, StatusCode::OK)
                .await?;
            let found = crate::checks::json(&String::from_utf8_lossy(&answer.body))?;
            same(
                "referrer",
                found["manifests"][0]["digest"].clone(),
                entries[1]["digest"].clone(),
            )
        })
    })?;
    let cache_entries = [&layers[..], &[descriptor(CACHE, config)]].concat();
    let old = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": cache_entries});
    let new = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CACHE, config), "layers": layers,
    });
    let caches = [
        ("an index of layers", INDEX, old),
        ("a manifest", MANIFEST, new),
    ];
    for (form, kind, cache) in caches {
        let copy = lane.repository("buildkit-cache");
        let operation = format!("push: POST with mount; a build cache as {form}");
        lane.replay(BUILDKIT, &operation, || {
            run(registry.address, &copy, async |mut buildkit| {
                for blob in [first, second, config] {
                    let digest = blob.digest();
                    buildkit
                        .head(&format!("blobs/{digest}"), StatusCode::NOT_FOUND)
                        .await?;
                    let mount = format!("blobs/uploads/?from={name}&mount={digest}");
                    buildkit.post(&mount, StatusCode::CREATED).await?;
                }
                buildkit.manifest("cache", kind, &cache).await?;
                let empty = Upload::empty();
                let answer =
                    buildkit.send(Method::GET, "manifests/cache", &[], empty, StatusCode::OK);
                let answer = answer.await?;
                same("type", header(&answer, "content-type")?, kind)?;
                same(
                    "bytes",
                    String::from_utf8_lossy(&answer.body),
                    cache.to_string(),
                )
            })
        })?;
    }
    Ok(())
}

async fn one_put(client: &mut Session, blob: Content) -> Result<(), String> {
    let digest = blob.digest();
    client
        .head(&format!("blobs/{digest}"), StatusCode::NOT_FOUND)
        .await?;
    let at = client.post("blobs/uploads/", StatusCode::ACCEPTED).await?;
    let joint = if at.contains('?') { '&' } else { '?' };
    let close = format!("{at}{joint}digest={}", digest.replace(':', "%3A"));
    let headers = [("content-type", "application/octet-stream")];
    let body = Upload::part(blob, 0, blob.length);
    let answer = client
        .send(Method::PUT, &close, &headers, body, StatusCode::CREATED)
        .await?;
    // The header is optional, but it must be right.
    same("digest", header(&answer, "docker-content-digest")?, digest)
}
