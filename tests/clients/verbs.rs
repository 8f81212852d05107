//! Everything clients do besides push and pull: list, inspect, copy, mount, delete, validate, attach, discover.

use std::fs;

use serde_json::Value;

use crate::lane::{Lane, Registry};
use crate::layout::{Layers, write_image};
use crate::program::Client;

/// Guards: listing tags, inspecting, copying within the registry, and deleting, as skopeo does them.
pub fn skopeo(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Skopeo, "verbs")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "skopeo")?;
    let image = format!("docker://{}", registry.image(&name));
    push_layout(lane, &registry, &format!("{image}:v1"))?;
    push_layout(lane, &registry, &format!("{image}:v2"))?;
    let tags = lane.run(Client::Skopeo, "list tags", |call| {
        call.args(["list-tags", "--tls-verify=false", &image])
    })?;
    same(
        "tags",
        &json(&tags)?["Tags"],
        &serde_json::json!(["v1", "v2"]),
    )?;
    let seen = lane.run(Client::Skopeo, "inspect", |call| {
        call.args(["inspect", "--tls-verify=false", &format!("{image}:v1")])
    })?;
    same("digest", &json(&seen)?["Digest"], &Value::from(manifest))?;
    let copy = format!(
        "docker://{}:copied",
        registry.image(&lane.repository("skopeo-copy"))
    );
    lane.run(Client::Skopeo, "copy to another repository", |call| {
        let call = call.args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        call.args([&format!("{image}:v1"), &copy])
    })?;
    lane.run(Client::Skopeo, "inspect the copy", |call| {
        call.args(["inspect", "--tls-verify=false", &copy])
    })?;
    lane.run(Client::Skopeo, "delete", |call| {
        call.args(["delete", "--tls-verify=false", &format!("{image}:v1")])
    })?;
    let gone = lane.programs.call(Client::Skopeo)?;
    let gone = gone
        .args(["inspect", "--tls-verify=false", &format!("{image}:v1")])
        .run();
    match gone {
        Ok(_) => Err("a deleted image can still be inspected".into()),
        Err(_) => Ok(()),
    }
}

/// Guards: catalog, list, digest, copy with mount, tag, validate and delete, as crane does them.
pub fn crane(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Crane, "verbs")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "crane")?;
    let image = registry.image(&name);
    let run = |operation: &str, verb: &str, rest: &[&str]| {
        lane.run(Client::Crane, operation, |call| {
            call.args([verb, "--insecure"]).args(rest)
        })
    };
    let first = format!("{image}:v1");
    let source = registry.path("source").display().to_string();
    run("push", "push", &[&source, &first])?;
    let listed = run("list tags", "ls", &[&image])?;
    same("tags", &Value::from(listed.trim()), &Value::from("v1"))?;
    let catalog = run(
        "list repositories",
        "catalog",
        &[&registry.address.to_string()],
    )?;
    if !catalog.lines().any(|line| line == name) {
        return Err(format!("the catalog lacks {name}: {catalog}"));
    }
    let digest = run("digest (HEAD)", "digest", &[&first])?;
    same(
        "digest",
        &Value::from(digest.trim()),
        &Value::from(manifest.as_str()),
    )?;
    run("manifest", "manifest", &[&first])?;
    run("validate --remote", "validate", &["--remote", &first])?;
    run("tag", "tag", &[&first, "v2"])?;
    let copy = format!("{}:v1", registry.image(&lane.repository("crane-copy")));
    run(
        "copy to another repository (mount)",
        "copy",
        &[&first, &copy],
    )?;
    run("validate the copy", "validate", &["--remote", &copy])?;
    run(
        "delete by digest",
        "delete",
        &[&format!("{image}@{manifest}")],
    )?;
    match lane
        .programs
        .call(Client::Crane)?
        .args(["manifest", "--insecure", &first])
        .run()
    {
        Ok(_) => Err("a deleted image still has a manifest".into()),
        Err(_) => Ok(()),
    }
}

/// Guards: referrers: what oras attaches to an image, it discovers; repository and tag lists; delete.
pub fn oras(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Oras, "verbs")? {
        return Ok(());
    }
    let registry = lane.registry()?;
    let image = registry.image(&lane.repository("oras"));
    let tagged = format!("{image}:v1");
    for (file, text) in [("a.txt", "subject"), ("sbom.json", "{\"sbom\": true}")] {
        fs::write(registry.path(file), text).map_err(|e| format!("write {file}: {e}"))?;
    }
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Oras, operation, |call| {
            call.args(rest).folder(registry.folder.path())
        })
    };
    run(
        "push a file",
        &["push", "--plain-http", &tagged, "a.txt:text/plain"],
    )?;
    let kind = "application/vnd.tonnage.test.sbom";
    let attach = [
        "attach",
        "--plain-http",
        "--artifact-type",
        kind,
        &tagged,
        "sbom.json",
    ];
    run("attach", &attach)?;
    let found = run(
        "discover",
        &["discover", "--plain-http", "--format", "json", &tagged],
    )?;
    let found = json(&found)?;
    // Older and newer releases name the list differently.
    let list = if found["referrers"].is_array() {
        &found["referrers"]
    } else {
        &found["manifests"]
    };
    same(
        "type of the referrer",
        &list[0]["artifactType"],
        &Value::from(kind),
    )?;
    run(
        "copy with referrers",
        &[
            "cp",
            "-r",
            "--from-plain-http",
            "--to-plain-http",
            &tagged,
            &format!("{}:v1", registry.image(&lane.repository("oras-copy"))),
        ],
    )?;
    run("list tags", &["repo", "tags", "--plain-http", &image])?;
    run(
        "list repositories",
        &["repo", "ls", "--plain-http", &registry.address.to_string()],
    )?;
    run(
        "fetch a manifest",
        &["manifest", "fetch", "--plain-http", &tagged],
    )?;
    run(
        "delete",
        &["manifest", "delete", "--plain-http", "--force", &tagged],
    )?;
    let fetch = lane.programs.call(Client::Oras)?;
    match fetch
        .args(["manifest", "fetch", "--plain-http", &tagged])
        .run()
    {
        Ok(_) => Err("a deleted manifest can still be fetched".into()),
        Err(_) => Ok(()),
    }
}

/// Guards: an image built from scratch by podman is pushed, removed locally, and pulled again with the same content.
pub fn podman(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Podman, "verbs")? {
        return Ok(());
    }
    let registry = lane.registry()?;
    let context = registry.path("context");
    fs::create_dir(&context).map_err(|e| format!("create the context: {e}"))?;
    let file = "FROM scratch\nCOPY hello /hello\nCMD [\"/hello\"]\n";
    for (name, text) in [("hello", "hello from podman"), ("Containerfile", file)] {
        fs::write(context.join(name), text).map_err(|e| format!("write {name}: {e}"))?;
    }
    let image = format!("{}:v1", registry.image(&lane.repository("podman")));
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Podman, operation, |call| {
            call.args(rest).folder(&context)
        })
    };
    if let Err(why) = run(
        "build from scratch",
        &["build", "--isolation=chroot", "-t", &image, "."],
    ) {
        return lane.skip(
            Client::Podman,
            "verbs",
            &format!("it cannot build here: {why}"),
        );
    }
    let before = run(
        "image id",
        &["image", "inspect", "--format", "{{.Id}}", &image],
    )?;
    run("push", &["push", "--tls-verify=false", &image])?;
    run("remove the local image", &["rmi", "--force", &image])?;
    let policy = lane.programs.policy().display().to_string();
    run(
        "pull",
        &[
            "pull",
            "--tls-verify=false",
            "--signature-policy",
            &policy,
            &image,
        ],
    )?;
    let after = run(
        "image id",
        &["image", "inspect", "--format", "{{.Id}}", &image],
    )?;
    same(
        "image id",
        &Value::from(after.trim()),
        &Value::from(before.trim()),
    )?;
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
    // This release prints a heading even where a format was asked for.
    same(
        "tags",
        &Value::from(seen.split_whitespace().last()),
        &Value::from("v1"),
    )
}

fn small_image(lane: &Lane, purpose: &str) -> Result<(Registry, String, String), String> {
    let registry = lane.registry()?;
    let manifest = write_image(&lane.programs, &registry.path("source"), Layers::Compressed)?;
    Ok((registry, lane.repository(purpose), manifest))
}

fn push_layout(lane: &Lane, registry: &Registry, image: &str) -> Result<(), String> {
    let layout = format!("oci:{}:v1", registry.path("source").display());
    lane.run(Client::Skopeo, "push", |call| {
        call.args([
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &layout,
            image,
        ])
    })
    .map(drop)
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("parse {text}: {e}"))
}

fn same(what: &str, found: &Value, wanted: &Value) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {found} instead of {wanted}"))
    }
}
