//! Operations of regctl: copies with referrers and digest tags, artifacts, indexes, single blobs and manifests, delete.
//!
//! Owns: the tests of regctl alone. Refuses: trust in its exit code where the registry itself can be checked.

use tonnage_tests::content::digest_of_bytes;

use crate::checks::{json, refused, same, small_image, write};
use crate::lane::{Lane, Registry};
use crate::program::Client;

const SBOM: &str = "application/vnd.tonnage.test.sbom";

fn run(
    (lane, registry): (&Lane, &Registry),
    operation: &str,
    rest: &[&str],
) -> Result<String, String> {
    lane.run(Client::Regctl, operation, |call| {
        let host = format!("reg={},tls=disabled", registry.address);
        let call = call.args(["--host", &host]).args(rest);
        call.folder(registry.folder.path())
    })
}

/// Guards: `image copy` copies an image to another repository with its referrers and digest tags, and they are found
/// there.
pub fn copies(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Regctl, "copies")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "regctl")?;
    let with = (lane, &registry);
    let image = registry.image(&name);
    let first = format!("{image}:v1");
    let source = format!("ocidir://{}:v1", registry.path("source").display());
    run(
        with,
        "push (image copy)",
        &["image", "copy", &source, &first],
    )?;
    let digest = run(with, "image digest", &["image", "digest", &first])?;
    same("digest", digest.trim(), manifest.as_str())?;
    write(&registry.path("sbom.json"), "{\"sbom\": true}")?;
    let put = [
        "artifact",
        "put",
        "--artifact-type",
        SBOM,
        "--file",
        "sbom.json",
    ];
    let subject = [&put[..], &["--subject", &first]].concat();
    run(with, "attach (artifact put --subject)", &subject)?;
    // A tag derived from the image's digest, as cosign wrote before it used referrers.
    let digest_tag = manifest.replace(':', "-") + ".sbom";
    let digest_tagged = format!("{image}:{digest_tag}");
    let tagged = [&put[..], &[&digest_tagged]].concat();
    run(with, "artifact put", &tagged)?;
    let copy = registry.image(&lane.repository("regctl-copy"));
    let copied = format!("{copy}:v1");
    let options = ["image", "copy", "--referrers", "--digest-tags"];
    let operation = "image copy --referrers --digest-tags";
    run(
        with,
        operation,
        &[&options[..], &[&first, &copied]].concat(),
    )?;
    for image in [&first, &copied] {
        let list = ["artifact", "list", "--format", "{{jsonPretty .}}", image];
        let found = json(&run(with, "artifact list", &list)?)?;
        let found = &found["descriptors"];
        same(
            "type of the referrer",
            found[0]["artifactType"].clone(),
            SBOM,
        )?;
        let get = [
            "artifact",
            "get",
            "--filter-artifact-type",
            SBOM,
            "--subject",
        ];
        let sbom = run(with, "artifact get", &[&get[..], &[image]].concat())?;
        same("the artifact", sbom, "{\"sbom\": true}")?;
    }
    let tags = run(with, "tag ls", &["tag", "ls", &copy])?;
    same("tags", tags.trim(), format!("{digest_tag}\nv1"))?;
    let registry_of = ["ref", "--format", "{{.Registry}}", &first];
    let part = run(with, "ref", &registry_of)?;
    same("registry", part.trim(), registry.address.to_string())
}

/// Guards: indexes, single blobs and manifests, and deletions of tags and manifests by regctl.
pub fn parts(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Regctl, "parts")? {
        return Ok(());
    }
    let (registry, name, manifest) = small_image(lane, "regctl-parts")?;
    let with = (lane, &registry);
    let image = registry.image(&name);
    let [first, second, both] = ["v1", "v2", "both"].map(|tag| format!("{image}:{tag}"));
    let source = format!("ocidir://{}:v1", registry.path("source").display());
    run(
        with,
        "push (image copy)",
        &["image", "copy", &source, &first],
    )?;
    let change = [
        "image",
        "mod",
        "--label",
        "changed=yes",
        "--create",
        &second,
        &first,
    ];
    run(with, "image mod", &change)?;
    let create = ["index", "create", "--ref", &first, "--ref", &second, &both];
    run(with, "index create", &create)?;
    let raw = ["manifest", "get", "--format", "raw-body", &both];
    let index = json(&run(with, "manifest get", &raw)?)?;
    let listed = index["manifests"].as_array().map_or(0, Vec::len);
    same("manifests in the index", listed, 2)?;
    write(&registry.path("blob"), "a blob")?;
    let digest = digest_of_bytes(b"a blob");
    lane.step(Client::Regctl, "blob put", || {
        let host = format!("reg={},tls=disabled", registry.address);
        let call = lane.programs.call(Client::Regctl)?.args(["--host", &host]);
        let call = call.args(["blob", "put", &image]);
        let put = call.input(&registry.path("blob"))?.run()?;
        same("digest", put.trim(), digest.as_str())
    })?;
    let blob = run(with, "blob get", &["blob", "get", &image, &digest])?;
    same("blob", blob, "a blob")?;
    run(with, "blob delete", &["blob", "delete", &image, &digest])?;
    run(with, "tag delete", &["tag", "delete", &both])?;
    let tags = run(with, "tag ls", &["tag", "ls", &image])?;
    same("tags", tags.trim(), "v1\nv2")?;
    let all = run(
        with,
        "repo ls",
        &["repo", "ls", &registry.address.to_string()],
    )?;
    if !all.lines().any(|line| line == name) {
        return Err(format!("the list of repositories lacks {name}: {all}"));
    }
    let by_digest = format!("{image}@{manifest}");
    run(with, "manifest delete", &["manifest", "delete", &by_digest])?;
    let host = format!("reg={},tls=disabled", registry.address);
    let gone = lane.programs.call(Client::Regctl)?.args(["--host", &host]);
    let gone = gone.args(["manifest", "head", &first]);
    refused("a deleted manifest is still there", gone)
}
