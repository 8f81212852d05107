//! An image of a real root file system, pushed by each client and pulled by every client.

use std::path::Path;

use crate::lane::{Lane, Registry};
use crate::layout::{Layers, same_content, same_layout, write_image};
use crate::program::Client;

const CLIENTS: [Client; 5] = [
    Client::Skopeo,
    Client::Crane,
    Client::Oras,
    Client::Podman,
    Client::Regctl,
];

/// Guards: every client pulls what any client pushed, byte for byte, and a second push of the same blobs succeeds.
pub fn round_trips(lane: &Lane) -> Result<(), String> {
    let registry = lane.registry()?;
    let source = registry.path("source");
    let manifest = write_image(&lane.programs, &source, Layers::Mixed)?;
    for pusher in CLIENTS {
        if !lane.has(pusher, "image")? {
            continue;
        }
        let image = format!("{}:v1", registry.image(&lane.repository(pusher.name())));
        push(lane, pusher, &source, &image)?;
        for puller in CLIENTS {
            if puller == pusher || !lane.has(puller, "image")? {
                continue;
            }
            pull_and_compare(
                lane,
                &registry,
                (pusher, puller),
                &source,
                &manifest,
                &image,
            )?;
        }
    }
    Ok(())
}

fn push(lane: &Lane, client: Client, source: &Path, image: &str) -> Result<(), String> {
    let layout = format!("oci:{}:v1", source.display());
    let tagged = format!("{}:v1", source.display());
    let operation = "push an image of a root file system";
    match client {
        Client::Skopeo => lane.run(client, operation, |call| {
            let to = format!("docker://{image}");
            call.args([
                "copy",
                "--preserve-digests",
                "--dest-tls-verify=false",
                &layout,
                &to,
            ])
        })?,
        Client::Crane => lane.run(client, operation, |call| {
            call.args(["push", "--insecure"]).arg(source).arg(image)
        })?,
        Client::Oras => lane.run(client, operation, |call| {
            call.args(["cp", "--from-oci-layout", "--to-plain-http", &tagged, image])
        })?,
        // Podman unpacks the layers and packs them again: the files stay the same, the compressed bytes do not.
        Client::Podman => lane.step(client, operation, || {
            let archive = source.with_extension("tar");
            let tar = lane
                .programs
                .other("tar")
                .args(["--create", "--file"])
                .arg(&archive);
            tar.arg("--directory").arg(source).arg(".").run()?;
            let call = lane
                .programs
                .call(client)?
                .args(["load", "--quiet", "--signature-policy"]);
            let loaded = call
                .arg(lane.programs.policy())
                .arg("--input")
                .arg(&archive)
                .run()?;
            let name = loaded
                .split_whitespace()
                .last()
                .ok_or("podman loaded nothing")?;
            let call = lane
                .programs
                .call(client)?
                .args(["push", "--tls-verify=false", name]);
            let pushed = call.arg(image).run();
            lane.programs
                .call(client)?
                .args(["rmi", "--force", name])
                .run()?;
            pushed
        })?,
        Client::Regctl => lane.run(client, operation, |call| {
            let call = call.args(["--host", &plain_http(image), "image", "copy"]);
            call.arg(format!("ocidir://{tagged}")).arg(image)
        })?,
        other => return Err(format!("{} cannot push a layout", other.name())),
    };
    Ok(())
}

fn pull_and_compare(
    lane: &Lane,
    registry: &Registry,
    (pusher, puller): (Client, Client),
    source: &Path,
    manifest: &str,
    image: &str,
) -> Result<(), String> {
    let pulled = registry.path(&format!("{}-{}", pusher.name(), puller.name()));
    lane.step(
        puller,
        &format!("pull the image that {} pushed, compare", pusher.name()),
        || {
            pull(lane, puller, image, &pulled)?;
            // Podman packs its copies again; every other client must return the same bytes.
            if pusher == Client::Podman || puller == Client::Podman {
                return same_content(&lane.programs, source, manifest, &pulled);
            }
            same_layout(source, &pulled, manifest)
        },
    )?;
    std::fs::remove_dir_all(&pulled).map_err(|e| format!("remove {}: {e}", pulled.display()))
}

fn pull(lane: &Lane, client: Client, image: &str, to: &Path) -> Result<String, String> {
    let call = lane.programs.call(client)?;
    let layout = format!("oci:{}:v1", to.display());
    let tagged = format!("{}:v1", to.display());
    match client {
        Client::Skopeo => {
            let from = format!("docker://{image}");
            call.args([
                "copy",
                "--preserve-digests",
                "--src-tls-verify=false",
                &from,
                &layout,
            ])
            .run()
        }
        Client::Crane => call
            .args(["pull", "--insecure", "--format=oci", image])
            .arg(to)
            .run(),
        Client::Oras => call
            .args(["cp", "--from-plain-http", "--to-oci-layout", image, &tagged])
            .run(),
        Client::Podman => {
            let call = call.args([
                "pull",
                "--quiet",
                "--tls-verify=false",
                "--signature-policy",
            ]);
            let id = call.arg(lane.programs.policy()).arg(image).run()?;
            let call = lane
                .programs
                .call(client)?
                .args(["save", "--quiet", "--format=oci-dir"]);
            let saved = call.arg("--output").arg(to).arg(id.trim()).run();
            lane.programs
                .call(client)?
                .args(["rmi", "--force", id.trim()])
                .run()?;
            saved
        }
        Client::Regctl => call
            .args(["--host", &plain_http(image), "image", "copy", image])
            .arg(format!("ocidir://{tagged}"))
            .run(),
        other => Err(format!("{} cannot pull a layout", other.name())),
    }
}

/// Returns the configuration of regctl for the registry of `image`.
fn plain_http(image: &str) -> String {
    let address = image.split('/').next().unwrap_or(image);
    format!("reg={address},tls=disabled")
}
