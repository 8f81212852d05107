//! Operations of oras besides push and pull of artifacts: attach, discover, single manifests and blobs, delete.
//!
//! Owns: the tests of oras alone. Refuses: trust in its exit code where the registry itself can be checked.

use std::fs;

use tonnage_tests::content::digest_of_bytes;

use crate::checks::{json, refused, same, write};
use crate::lane::{Lane, Registry};
use crate::program::Client;

const SBOM: &str = "application/vnd.tonnage.test.sbom";

/// Runs `oras VERB... --plain-http REST...` in the test's directory.
fn run(
    (lane, registry): (&Lane, &Registry),
    operation: &str,
    verb: &[&str],
    rest: &[&str],
) -> Result<String, String> {
    lane.run(Client::Oras, operation, |call| {
        let call = call.args(verb).arg("--plain-http").args(rest);
        call.folder(registry.folder.path())
    })
}

/// Guards: oras finds the referrers that it attached to an image, and copies them with it. It lists repositories and
/// tags, and deletes.
pub fn verbs(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Oras, "verbs")? {
        return Ok(());
    }
    let registry = lane.registry()?;
    let (with, image) = ((lane, &registry), registry.image(&lane.repository("oras")));
    let tagged = format!("{image}:v1");
    write(&registry.path("a.txt"), "subject")?;
    write(&registry.path("sbom.json"), "{\"sbom\": true}")?;
    run(
        with,
        "push a file",
        &["push"],
        &[&tagged, "a.txt:text/plain"],
    )?;
    let attach = ["--artifact-type", SBOM, &tagged, "sbom.json"];
    run(with, "attach", &["attach"], &attach)?;
    discovers(with, "discover", &tagged)?;
    let copy = format!("{}:v1", registry.image(&lane.repository("oras-copy")));
    lane.run(Client::Oras, "copy with referrers (cp -r)", |call| {
        let call = call.args(["cp", "-r", "--from-plain-http", "--to-plain-http"]);
        call.args([&tagged, &copy])
    })?;
    discovers(with, "discover what was copied", &copy)?;
    lane.step(Client::Oras, "pull a file, compare", || {
        let call = lane.programs.call(Client::Oras)?;
        let call = call.args(["pull", "--plain-http", "--output"]);
        call.arg(registry.path("pulled")).arg(&copy).run()?;
        let pulled = fs::read_to_string(registry.path("pulled/a.txt"));
        let pulled = pulled.map_err(|e| format!("read a.txt: {e}"))?;
        same("a.txt", pulled, "subject")
    })?;
    run(with, "list tags", &["repo", "tags"], &[&image])?;
    let address = registry.address.to_string();
    run(with, "list repositories", &["repo", "ls"], &[&address])?;
    run(
        with,
        "delete",
        &["manifest", "delete"],
        &["--force", &tagged],
    )?;
    let fetch = lane.programs.call(Client::Oras)?;
    let fetch = fetch.args(["manifest", "fetch", "--plain-http", &tagged]);
    refused("a deleted manifest can still be fetched", fetch)
}

fn discovers(with: (&Lane, &Registry), operation: &str, image: &str) -> Result<(), String> {
    let found = run(with, operation, &["discover"], &["--format", "json", image])?;
    let found = json(&found)?;
    // Older and newer releases name the list differently.
    let list = if found["referrers"].is_array() {
        &found["referrers"]
    } else {
        &found["manifests"]
    };
    let kind = list[0]["artifactType"].clone();
    same("type of the referrer", kind, SBOM)
}

/// Guards: oras pushes, fetches, tags and deletes single blobs and manifests.
pub fn parts(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Oras, "single blobs and manifests")? {
        return Ok(());
    }
    let registry = lane.registry()?;
    let (with, image) = ((lane, &registry), registry.image(&lane.repository("parts")));
    for (file, text) in [("blob", "a blob"), ("config", "{}")] {
        write(&registry.path(file), text)?;
        let operation = "push a blob (blob push)";
        run(
            with,
            operation,
            &["blob", "push"],
            &["--no-tty", &image, file],
        )?;
    }
    let blob = format!("{image}@{}", digest_of_bytes(b"a blob"));
    let fetch = ["blob", "fetch"];
    let fetched = run(
        with,
        "fetch a blob (blob fetch)",
        &fetch,
        &["--output", "-", &blob],
    )?;
    same("blob", fetched, "a blob")?;
    let seen = run(
        with,
        "descriptor of a blob",
        &fetch,
        &["--descriptor", &blob],
    )?;
    same("size", json(&seen)?["size"].clone(), 6)?;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": SBOM,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of_bytes(b"{}"), "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": digest_of_bytes(b"a blob"), "size": 6}],
    });
    let manifest = manifest.to_string();
    write(&registry.path("manifest.json"), &manifest)?;
    let tagged = format!("{image}:v1");
    let push = ["manifest", "push"];
    run(
        with,
        "push a manifest (manifest push)",
        &push,
        &[&tagged, "manifest.json"],
    )?;
    let fetch = ["manifest", "fetch"];
    let fetched = run(
        with,
        "fetch a manifest (manifest fetch)",
        &fetch,
        &[&tagged],
    )?;
    same("manifest", fetched, manifest)?;
    let config = ["manifest", "fetch-config"];
    let fetched = run(
        with,
        "fetch a config (manifest fetch-config)",
        &config,
        &[&tagged],
    )?;
    same("config", fetched, "{}")?;
    run(with, "tag", &["tag"], &[&tagged, "v2"])?;
    let resolved = run(
        with,
        "resolve a tag",
        &["resolve"],
        &[&format!("{image}:v2")],
    )?;
    let digest = digest_of_bytes(&fs::read(registry.path("manifest.json")).unwrap_or_default());
    same("digest", resolved.trim(), digest.as_str())?;
    let index = ["manifest", "index", "create"];
    let both = format!("{image}:both");
    run(
        with,
        "make an index (manifest index create)",
        &index,
        &[&both, "v1"],
    )?;
    for reference in [both, format!("{image}@{digest}")] {
        let operation = "delete (manifest delete)";
        run(
            with,
            operation,
            &["manifest", "delete"],
            &["--force", &reference],
        )?;
    }
    let operation = "delete a blob (blob delete)";
    run(with, operation, &["blob", "delete"], &["--force", &blob])?;
    let gone = lane.programs.call(Client::Oras)?;
    let gone = gone.args(["blob", "fetch", "--plain-http", "--output", "-", &blob]);
    refused("a deleted blob can still be fetched", gone)
}
