//! Operations of skopeo besides push and pull: list, inspect, copy, sync, delete.
//!
//! Owns: the tests of skopeo alone. Refuses: trust in its exit code where the registry itself can be checked.

use serde_json::json;

use crate::checks::{json, refused, same, small_image};
use crate::lane::{Lane, Registry};
use crate::layout::same_layout;
use crate::program::Client;

const BOTH: [&str; 2] = ["--src-tls-verify=false", "--dest-tls-verify=false"];

/// Guards: skopeo lists tags, inspects, copies within the registry, and deletes.
pub fn verbs(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Skopeo, "verbs")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "skopeo")?;
    let image = format!("docker://{}", registry.image(&name));
    let first = format!("{image}:v1");
    push_layout(lane, &registry, &first)?;
    push_layout(lane, &registry, &format!("{image}:v2"))?;
    let tags = lane.run(Client::Skopeo, "list tags", |call| {
        call.args(["list-tags", "--tls-verify=false", &image])
    })?;
    same("tags", json(&tags)?["Tags"].clone(), json!(["v1", "v2"]))?;
    let inspect = |operation: &str, image: &str| {
        lane.run(Client::Skopeo, operation, |call| {
            call.args(["inspect", "--tls-verify=false", image])
        })
    };
    let seen = inspect("inspect", &first)?;
    same("digest", json(&seen)?["Digest"].clone(), manifest)?;
    let copy = registry.image(&lane.repository("skopeo-copy"));
    let copy = format!("docker://{copy}:copied");
    lane.run(Client::Skopeo, "copy to another repository", |call| {
        call.arg("copy").args(BOTH).args([&first, &copy])
    })?;
    inspect("inspect the copy", &copy)?;
    lane.run(Client::Skopeo, "delete", |call| {
        call.args(["delete", "--tls-verify=false", &first])
    })?;
    let gone = lane.programs.call(Client::Skopeo)?;
    let gone = gone.args(["inspect", "--tls-verify=false", &first]);
    refused("a deleted image can still be inspected", gone)
}

/// Guards: skopeo copies a repository with all its tags to a directory, and from there to another repository, with the
/// same bytes.
pub fn sync(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Skopeo, "sync")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "sync")?;
    for tag in ["v1", "v2"] {
        let image = registry.image(&name);
        push_layout(lane, &registry, &format!("docker://{image}:{tag}"))?;
    }
    let (base, below) = (lane.repository("synced"), registry.path("folder"));
    let below = below.display().to_string();
    lane.run(Client::Skopeo, "sync a repository to a folder", |call| {
        let call = call.args(["sync", "--preserve-digests", BOTH[0], "--src=docker"]);
        call.args(["--dest=dir", &registry.image(&name), &below])
    })?;
    let to = registry.image(&base);
    lane.run(
        Client::Skopeo,
        "sync a folder to another repository",
        |call| {
            let call = call.args(["sync", "--preserve-digests", BOTH[1], "--src=dir"]);
            call.args(["--dest=docker", &below, &to])
        },
    )?;
    let last = name.rsplit('/').next().unwrap_or(&name);
    for tag in ["v1", "v2"] {
        let pulled = registry.path(&format!("pulled-{tag}"));
        lane.step(Client::Skopeo, "pull what was synced, compare", || {
            let call = lane.programs.call(Client::Skopeo)?;
            let call = call.args(["copy", "--preserve-digests", BOTH[0]]);
            let layout = format!("oci:{}:v1", pulled.display());
            call.args([&format!("docker://{to}/{last}:{tag}"), &layout])
                .run()?;
            same_layout(&registry.path("source"), &pulled, &manifest)
        })?;
    }
    Ok(())
}

fn push_layout(lane: &Lane, registry: &Registry, image: &str) -> Result<(), String> {
    let layout = format!("oci:{}:v1", registry.path("source").display());
    let pushed = lane.run(Client::Skopeo, "push", |call| {
        call.args(["copy", "--preserve-digests", BOTH[1], &layout, image])
    });
    pushed.map(drop)
}
