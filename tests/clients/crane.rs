//! Operations of crane besides push and pull: list, validate, copy, change, make indexes, delete.
//!
//! Owns: the tests of crane alone. Refuses: trust in its exit code where the registry itself can be checked.

use crate::checks::{json, refused, same, small_image};
use crate::lane::Lane;
use crate::program::Client;

/// Guards: catalog, list, digest, copy with mount, tag, validate and delete of crane.
pub fn verbs(lane: &Lane) -> Result<(), String> {
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
    same("tags", listed.trim(), "v1")?;
    let address = registry.address.to_string();
    let catalog = run("list repositories", "catalog", &[&address])?;
    if !catalog.lines().any(|line| line == name) {
        return Err(format!("the catalog lacks {name}: {catalog}"));
    }
    let digest = run("digest (HEAD)", "digest", &[&first])?;
    same("digest", digest.trim(), manifest.as_str())?;
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
    let gone = lane.programs.call(Client::Crane)?;
    let gone = gone.args(["manifest", "--insecure", &first]);
    refused("a deleted image still has a manifest", gone)
}

/// Guards: an image that crane changes in the registry, and an index of two that it makes there, are valid.
pub fn changes(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Crane, "mutate and index")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "crane-index")?;
    let image = registry.image(&name);
    let run = |operation: &str, verbs: &[&str], rest: &[&str]| {
        lane.run(Client::Crane, operation, |call| {
            call.args(verbs).arg("--insecure").args(rest)
        })
    };
    let [first, second, both] = ["v1", "v2", "both"].map(|tag| format!("{image}:{tag}"));
    let source = registry.path("source").display().to_string();
    run("push", &["push"], &[&source, &first])?;
    let change = ["--label", "changed=yes", "-t", &second, &first];
    run("mutate an image", &["mutate"], &change)?;
    let config = json(&run("config", &["config"], &[&second])?)?;
    same(
        "label",
        config["config"]["Labels"]["changed"].clone(),
        "yes",
    )?;
    run("validate --remote", &["validate"], &["--remote", &second])?;
    let append = ["-m", &first, "-m", &second, "-t", &both];
    run("index append", &["index", "append"], &append)?;
    let index = json(&run("manifest of an index", &["manifest"], &[&both])?)?;
    let listed = index["manifests"].as_array().map_or(0, Vec::len);
    same("manifests in the index", listed, 2)?;
    same(
        "the first of them",
        index["manifests"][0]["digest"].clone(),
        manifest,
    )?;
    run("validate an index", &["validate"], &["--remote", &both])?;
    let copy = format!("{}:v1", registry.image(&lane.repository("crane-both")));
    run("copy an index", &["copy"], &[&both, &copy])?;
    run("validate an index", &["validate"], &["--remote", &copy])?;
    Ok(())
}
