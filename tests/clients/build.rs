//! Images that podman and buildah build from scratch, push, and pull again.
//!
//! Owns: the tests of podman and buildah alone. Refuses: a build that fetches anything.

use std::path::PathBuf;

use crate::checks::{same, write};
use crate::lane::{Lane, Registry};
use crate::program::Client;

/// Guards: an image built from scratch by podman is pushed, removed locally, and pulled again with the same content.
pub fn podman(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Podman, "verbs")? {
        return Ok(());
    }
    let (registry, context, image) = prepare(lane, Client::Podman)?;
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Podman, operation, |call| {
            call.args(rest).folder(&context)
        })
    };
    let build = ["build", "--isolation=chroot", "-t", &image, "."];
    if let Err(why) = run("build from scratch", &build) {
        let why = format!("it cannot build on this machine: {why}");
        return lane.skip(Client::Podman, "verbs", &why);
    }
    let id = ["image", "inspect", "--format", "{{.Id}}", &image];
    let before = run("image id", &id)?;
    run("push", &["push", "--tls-verify=false", &image])?;
    run("remove the local image", &["rmi", "--force", &image])?;
    let policy = lane.programs.policy().display().to_string();
    let pull = ["pull", "--tls-verify=false", "--signature-policy", &policy];
    run("pull", &[&pull[..], &[&image]].concat())?;
    let after = run("image id", &id)?;
    same("image id", after.trim(), before.trim())?;
    let seen = run(
        "search tags",
        &[
            "search",
            "--tls-verify=false",
            "--list-tags",
            "--format",
            "{{.Tag}}",
            image.trim_end_matches(":v1"),
        ],
    )?;
    drop(registry);
    // This release prints a heading even if a format was requested.
    same("tags", seen.split_whitespace().last(), Some("v1"))
}

/// Guards: an image that buildah builds, from a file and step by step, is pushed, removed locally, and pulled again
/// with the same content.
pub fn buildah(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Buildah, "verbs")? {
        return Ok(());
    }
    let (registry, context, image) = prepare(lane, Client::Buildah)?;
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Buildah, operation, |call| {
            call.args(rest).folder(&context)
        })
    };
    let policy = lane.programs.policy().display().to_string();
    let policy = ["--signature-policy", policy.as_str()];
    let build = [
        "bud",
        "--isolation=chroot",
        "-t",
        &image,
        policy[0],
        policy[1],
        ".",
    ];
    if let Err(why) = run("build from scratch (bud)", &build) {
        let why = format!("it cannot build on this machine: {why}");
        return lane.skip(Client::Buildah, "verbs", &why);
    }
    let stepped = format!("{}:v2", image.trim_end_matches(":v1"));
    let container = run("from scratch", &["from", policy[0], policy[1], "scratch"])?;
    let container = container.trim();
    run("copy a file", &["copy", container, "hello", "/hello"])?;
    run("config", &["config", "--cmd", "/hello", container])?;
    let commit = ["commit", "--rm", policy[0], policy[1], container, &stepped];
    run("commit", &commit)?;
    for image in [&image, &stepped] {
        let id = ["images", "--no-trunc", "--quiet", image];
        let before = run("image id", &id)?;
        let push = ["push", "--tls-verify=false", policy[0], policy[1], image];
        run("push", &push)?;
        run("remove the local image", &["rmi", "--force", image])?;
        let pull = ["pull", "--tls-verify=false", policy[0], policy[1], image];
        run("pull", &pull)?;
        let after = run("image id", &id)?;
        same("image id", after.trim(), before.trim())?;
    }
    drop(registry);
    Ok(())
}

/// Starts a registry and writes the build context. Returns both, with the image's name.
fn prepare(lane: &Lane, client: Client) -> Result<(Registry, PathBuf, String), String> {
    let registry = lane.registry()?;
    let context = registry.path("context");
    std::fs::create_dir(&context).map_err(|e| format!("create the context: {e}"))?;
    write(
        &context.join("hello"),
        format!("hello from {}", client.name()),
    )?;
    let file = "FROM scratch\nCOPY hello /hello\nCMD [\"/hello\"]\n";
    write(&context.join("Containerfile"), file)?;
    let image = format!("{}:v1", registry.image(&lane.repository(client.name())));
    Ok((registry, context, image))
}
