//! containerd 2.x, used through its `ctr`: pulls that fetch each layer by several concurrent requests, and pushes.
//!
//! Owns: the test of containerd and the daemon that it starts. Refuses: to call a pull parallel because it is
//! configured so; its requests are recorded.

use std::fs;
use std::path::Path;

use tonnage_tests::content::digest_of;

use crate::call::{Call, Running};
use crate::checks::{json, same, write};
use crate::lane::{Lane, read};
use crate::layout::{Layers, push_layout, write_image};
use crate::program::{Client, locate};
use crate::recorder::Recorder;

/// The size of a piece, so small that layers of a few MiB are fetched in pieces. Users usually set 8 MiB or more.
const BUFFER: usize = 256 << 10;

/// Guards: an image is pulled whole with several concurrent open-ended ranges that are closed early. It is also pulled
/// in one stream, pushed to another repository, and pulled from there.
pub fn pulls_and_pushes(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Ctr, "pulls and pushes")? {
        return Ok(());
    }
    let registry = lane.registry()?;
    let source = registry.path("source");
    let manifest = write_image(&lane.programs, &source, Layers::Mixed)?;
    let name = lane.repository("containerd");
    push_layout(registry.address, &name, &source, &manifest)?;
    // A socket's path may have 108 bytes, so its folder is not below the sources.
    let folder = tempfile::tempdir().map_err(|e| format!("create a folder: {e}"))?;
    let recorder = Recorder::start(registry.address)?;

    let daemon = start(lane, folder.path(), "parallel", BUFFER)?;
    let image = format!("{}/{name}:v1", recorder.address());
    let ctr = |daemon: &Daemon, operation: &str, rest: &[&str]| {
        lane.step(Client::Ctr, operation, || {
            daemon.ctr(lane)?.args(rest).run()
        })
    };
    let pull = [
        "images",
        "pull",
        "--plain-http",
        "--snapshotter=native",
        &image,
    ];
    ctr(&daemon, "pull with parallel layer fetch", &pull)?;
    let operation = "pulled layers have their digests";
    lane.step(Client::Ctr, operation, || {
        check_blobs(lane, &daemon, &source, &manifest)
    })?;
    let ranges = recorder.heads_with("\r\nrange: bytes=");
    let later = ranges
        .iter()
        .filter(|head| !head.contains("\r\nrange: bytes=0-\r\n"))
        .count();
    if later < 2 || ranges.iter().any(|head| !head.contains("-\r\n")) {
        return Err(format!(
            "open-ended ranges after the first: {later}; heads: {ranges:?}"
        ));
    }
    drop(daemon);

    let daemon = start(lane, folder.path(), "plain", 0)?;
    let image = format!("{}/{name}:v1", registry.address);
    let copy = format!("{}:v1", registry.image(&lane.repository("ctr-copy")));
    let pull = |image| {
        [
            "images",
            "pull",
            "--plain-http",
            "--snapshotter=native",
            image,
        ]
    };
    ctr(&daemon, "pull in one stream", &pull(&image))?;
    ctr(&daemon, "tag", &["images", "tag", &image, &copy])?;
    let push = ["images", "push", "--plain-http", &copy];
    ctr(&daemon, "push to another repository (mount)", &push)?;
    drop(daemon);

    let daemon = start(lane, folder.path(), "copy", 0)?;
    ctr(&daemon, "pull what was pushed", &pull(&copy))?;
    lane.step(Client::Ctr, operation, || {
        check_blobs(lane, &daemon, &source, &manifest)
    })
}

/// Checks every blob of the image in the daemon's store.
fn check_blobs(lane: &Lane, daemon: &Daemon, source: &Path, manifest: &str) -> Result<(), String> {
    let path = source.join("blobs").join(manifest.replace(':', "/"));
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    let text = json(&text)?;
    let layers = text["layers"].as_array().ok_or("no layers")?;
    let all = std::iter::once(&text["config"]).chain(layers);
    for digest in all.filter_map(|part| part["digest"].as_str()) {
        let get = daemon.ctr(lane)?.args(["content", "get", digest]);
        let found = get.stream(|bytes| digest_of(bytes).map_err(|e| format!("read: {e}")))?;
        same("digest", found.0, digest)?;
    }
    Ok(())
}

/// A daemon with its own store, killed when this value is dropped.
pub struct Daemon {
    socket: String,
    _process: Running,
}

impl Daemon {
    pub fn ctr(&self, lane: &Lane) -> Result<Call, String> {
        let call = lane.programs.call(Client::Ctr)?;
        Ok(call.args(["--address", &self.socket]))
    }
}

pub fn start(lane: &Lane, folder: &Path, name: &str, buffer: usize) -> Result<Daemon, String> {
    let own = folder.join(name);
    fs::create_dir(&own).map_err(|e| format!("create {}: {e}", own.display()))?;
    let at = own.display();
    let socket = format!("{at}/socket");
    let config = format!(
        r#"version = 3
root = "{at}/root"
state = "{at}/state"
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.transfer.v1.local"]
max_concurrent_downloads = 4
concurrent_layer_fetch_buffer = {buffer}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "native"
"#
    );
    write(&own.join("config.toml"), config)?;
    let call = lane.programs.other(&locate("containerd").to_string_lossy());
    let call = call
        .args(["--log-level=debug", "--config"])
        .arg(own.join("config.toml"));
    let mut process = call.spawn()?;
    let ctr = || -> Result<Call, String> {
        let call = lane.programs.call(Client::Ctr)?;
        Ok(call.args(["--address", &socket]))
    };
    process.until(|| ctr()?.arg("version").run().map(drop))?;
    Ok(Daemon {
        socket,
        _process: process,
    })
}
