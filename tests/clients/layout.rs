//! OCI image layouts on disk: one made from a real directory tree, and comparisons of two.
//!
//! Owns: [`write_image`], [`push_layout`], [`same_layout`], [`same_content`]. Refuses: trust in file names; every
//! digest is computed from bytes.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tonnage_tests::content::{digest_of, digest_of_bytes, same_bytes};
use tonnage_tests::http::{self, Upload};
use tonnage_tests::push::Pusher;
use tonnage_tests::say;

use crate::lane::read;
use crate::program::Programs;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Directory trees of this machine, whether their layer is compressed, and whether only full runs use them.
const TREES: [(&str, bool, bool); 4] = [
    ("usr/sbin", true, false),
    ("usr/share/zoneinfo", false, false),
    ("usr/lib/locale", true, false),
    ("usr/bin", false, true),
];

/// How the layers of an image are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// Some plain, some compressed, according to [`TREES`].
    Mixed,
    /// All compressed, because `crane validate` requires gzip for every layer.
    Compressed,
}

/// Writes an image of this machine's own directories, tagged `v1`. Returns its manifest's digest.
pub fn write_image(programs: &Programs, layout: &Path, kind: Layers) -> Result<String, String> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|e| format!("create {}: {e}", blobs.display()))?;
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (tree, compressed, large) in TREES {
        if !Path::new("/").join(tree).is_dir() || (large && !say::full()) {
            continue;
        }
        let tar = layout.join("layer.tar");
        let call = programs
            .other("tar")
            .args(["--create", "--ignore-failed-read", "--file"]);
        call.arg(&tar).args(["--directory", "/", tree]).run()?;
        diff_ids.push(digest_of_file(&tar)?.0);
        let (file, media_type) = if compressed || kind == Layers::Compressed {
            programs.other("gzip").args(["-n", "-1"]).arg(&tar).run()?;
            (layout.join("layer.tar.gz"), format!("{LAYER}+gzip"))
        } else {
            (tar, LAYER.to_owned())
        };
        let (digest, size) = digest_of_file(&file)?;
        let to = blob(layout, &digest);
        fs::rename(&file, &to).map_err(|e| format!("name {}: {e}", to.display()))?;
        layers.push(json!({"mediaType": media_type, "digest": digest, "size": size}));
    }
    if layers.is_empty() {
        return Err("this machine has none of the directories that images are made of".into());
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": diff_ids.iter().map(|_| json!({"created_by": "tar"})).collect::<Vec<_>>(),
    });
    let (config, config_size) = put(layout, &config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": config_size},
        "layers": layers,
    });
    let (digest, size) = put(layout, &manifest)?;
    let entry = json!({
        "mediaType": MANIFEST, "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    });
    write(
        &layout.join("index.json"),
        &json!({"schemaVersion": 2, "manifests": [entry]}),
    )?;
    write(
        &layout.join("oci-layout"),
        &json!({"imageLayoutVersion": "1.0.0"}),
    )?;
    Ok(digest)
}

/// Pushes the image `manifest` of `layout` as `v1`, with the tests' own client.
pub fn push_layout(
    address: SocketAddr,
    name: &str,
    layout: &Path,
    manifest: &str,
) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    runtime.block_on(async {
        let mut pusher = Pusher::new(http::Connection::connect(address).await?, name);
        let path = blob(layout, manifest);
        for digest in parts(&parse(&path)?)? {
            let at = pusher.open_upload().await?;
            let body = Upload::bytes(read(&blob(layout, &digest))?);
            pusher.close_upload(&at, &digest, body).await?;
        }
        pusher.put_manifest("v1", &read(&path)?).await
    })
}

/// Checks that every byte of the image `manifest` in `pulled` is as in `source`. Returns the number of bytes.
pub fn same_layout(source: &Path, pulled: &Path, manifest: &str) -> Result<u64, String> {
    let mut total = same_blob(source, pulled, manifest)?;
    for digest in parts(&parse(&blob(source, manifest))?)? {
        total += same_blob(source, pulled, &digest)?;
    }
    Ok(total)
}

/// Checks that the image in `pulled` has the diff ids of the image `manifest` in `source`: the same files, whatever
/// compression a client used. Returns the number of uncompressed bytes of its layers.
pub fn same_content(
    programs: &Programs,
    source: &Path,
    manifest: &str,
    pulled: &Path,
) -> Result<u64, String> {
    let wanted = parse(&blob(
        source,
        text(&parse(&blob(source, manifest))?["config"]["digest"])?,
    ))?;
    let index = parse(&pulled.join("index.json"))?;
    let manifest = parse(&blob(pulled, text(&index["manifests"][0]["digest"])?))?;
    for digest in parts(&manifest)? {
        let (found, _) = digest_of_file(&blob(pulled, &digest))?;
        if found != digest {
            return Err(format!("the pulled file named {digest} is {found}"));
        }
    }
    let layers = manifest["layers"]
        .as_array()
        .ok_or("a manifest without layers")?;
    let diff_ids = wanted["rootfs"]["diff_ids"]
        .as_array()
        .ok_or("a config without diff ids")?;
    if layers.len() != diff_ids.len() {
        return Err(format!(
            "{} layers instead of {}",
            layers.len(),
            diff_ids.len()
        ));
    }
    let mut total = 0;
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let path = blob(pulled, text(&layer["digest"])?);
        let (found, size) = if text(&layer["mediaType"])?.ends_with("gzip") {
            let call = programs
                .other("gzip")
                .args(["--decompress", "--stdout"])
                .arg(&path);
            call.stream(|bytes| digest_of(bytes).map_err(|e| format!("gunzip: {e}")))?
        } else {
            digest_of_file(&path)?
        };
        if found != text(diff_id)? {
            return Err(format!("layer {found} instead of {diff_id}"));
        }
        total += size;
    }
    Ok(total)
}

fn same_blob(source: &Path, pulled: &Path, digest: &str) -> Result<u64, String> {
    let (found, _) = digest_of_file(&blob(pulled, digest))?;
    if found != digest {
        return Err(format!("the pulled file named {digest} is {found}"));
    }
    same_files(&blob(source, digest), &blob(pulled, digest))
}

/// Compares two files byte for byte. Returns their length.
pub fn same_files(left: &Path, right: &Path) -> Result<u64, String> {
    let same = same_bytes(open(left)?, open(right)?);
    same.map_err(|why| format!("{} and {}: {why}", left.display(), right.display()))
}

/// Returns digest and length of a file, from its bytes.
pub fn digest_of_file(path: &Path) -> Result<(String, u64), String> {
    digest_of(open(path)?).map_err(|e| format!("read {}: {e}", path.display()))
}

/// Returns the digests of config and layers of a manifest.
fn parts(manifest: &Value) -> Result<Vec<String>, String> {
    let layers = manifest["layers"]
        .as_array()
        .ok_or("a manifest without layers")?;
    let all = std::iter::once(&manifest["config"]).chain(layers);
    all.map(|part| text(&part["digest"]).map(str::to_owned))
        .collect()
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn put(layout: &Path, value: &Value) -> Result<(String, usize), String> {
    let bytes = value.to_string().into_bytes();
    let digest = digest_of_bytes(&bytes);
    let path = blob(layout, &digest);
    fs::write(&path, &bytes).map_err(|e| format!("write {}: {e}", path.display()))?;
    Ok((digest, bytes.len()))
}

fn write(path: &Path, value: &Value) -> Result<(), String> {
    fs::write(path, value.to_string()).map_err(|e| format!("write {}: {e}", path.display()))
}

fn parse(path: &Path) -> Result<Value, String> {
    serde_json::from_slice(&read(path)?).map_err(|e| format!("parse {}: {e}", path.display()))
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{value} instead of a string"))
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|e| format!("open {}: {e}", path.display()))
}
