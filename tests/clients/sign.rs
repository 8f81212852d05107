//! Signatures and SBOMs of an image: notation and cosign, with their own keys and without an external service.
//!
//! Owns: the tests of notation and cosign. Refuses: a verification that cannot fail; each one also checks an unsigned
//! image.

use crate::checks::{json, refused, same, small_image, write};
use crate::lane::{Lane, Registry};
use crate::layout::push_layout;
use crate::program::Client;

/// Guards: notation finds and verifies what it signed with its own key (a referrer), and nothing else.
pub fn notation(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Notation, "sign and verify")? {
        return Ok(());
    }
    let (registry, [signed, unsigned]) = two_images(lane, "notation")?;
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Notation, operation, |call| {
            call.args(rest).folder(registry.folder.path())
        })
    };
    let key = lane.repository("key").replace('/', "-");
    let make = ["certificate", "generate-test", &key];
    run("make a key (certificate generate-test)", &make)?;
    let policy = serde_json::json!({"version": "1.0", "trustPolicies": [{
        "name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
        "trustStores": [format!("ca:{key}")], "trustedIdentities": ["*"],
    }]});
    write(&registry.path("policy.json"), policy.to_string())?;
    let import = ["policy", "import", "--force", "policy.json"];
    run("policy import", &import)?;
    for (format, operation) in [("jws", "sign (JWS)"), ("cose", "sign (COSE)")] {
        let options = ["--insecure-registry", "--key", &key];
        let sign = [
            &["sign", "--signature-format", format],
            &options[..],
            &[&signed],
        ]
        .concat();
        run(operation, &sign)?;
    }
    let seen = run("ls", &["ls", "--insecure-registry", &signed])?;
    same("signatures", seen.matches("sha256:").count(), 3)?;
    run("inspect", &["inspect", "--insecure-registry", &signed])?;
    run("verify", &["verify", "--insecure-registry", &signed])?;
    let other = lane.programs.call(Client::Notation)?;
    let other = other.args(["verify", "--insecure-registry", &unsigned]);
    refused("an image without a signature is verified", other)
}

/// Guards: cosign verifies what it signed with its own key, and nothing else: as a tag made from the digest, and as a
/// referrer (the form of its release 3). It downloads an SBOM that it attached.
pub fn cosign(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Cosign, "sign and verify")? {
        return Ok(());
    }
    let (registry, [signed, unsigned]) = two_images(lane, "cosign")?;
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Cosign, operation, |call| {
            call.args(rest).folder(registry.folder.path())
        })
    };
    run("make keys (generate-key-pair)", &["generate-key-pair"])?;
    // With a key no other trust is needed; without this file cosign would ask an external service.
    let nobody = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
    write(&registry.path("nobody.json"), nobody)?;
    let (bundle, trust) = ("--new-bundle-format", "--trusted-root=nobody.json");
    let shapes: [(&str, &[&str], &[&str]); 2] = [
        ("a tag", &[], &[]),
        ("a referrer", &[bundle], &[bundle, trust]),
    ];
    for (shape, to_sign, to_verify) in shapes {
        let common = ["--allow-http-registry", "--key"];
        let sign = ["sign", "--yes", "--tlog-upload=false"];
        let sign = [&sign[..], to_sign, &common, &["cosign.key", &signed]].concat();
        run(&format!("sign ({shape})"), &sign)?;
        let verify = ["verify", "--insecure-ignore-tlog"];
        let verify = [&verify[..], to_verify, &common, &["cosign.pub"]].concat();
        let operation = format!("verify ({shape})");
        run(&operation, &[&verify[..], &[&signed]].concat())?;
        let other = lane.programs.call(Client::Cosign)?.args(&verify);
        let other = other.arg(&unsigned).folder(registry.folder.path());
        refused("an image without a signature is verified", other)?;
    }
    run("tree", &["tree", "--allow-http-registry", &signed])?;
    let text = r#"{"spdxVersion":"SPDX-2.3","name":"cargo"}"#;
    write(&registry.path("sbom.json"), text)?;
    let attach = ["attach", "sbom", "--allow-http-registry", "--type=spdx"];
    let attach = [
        &attach[..],
        &["--input-format=json", "--sbom=sbom.json", &signed],
    ]
    .concat();
    run("attach an SBOM", &attach)?;
    let download = ["download", "sbom", "--allow-http-registry", &signed];
    let seen = run("download an SBOM", &download)?;
    same("SBOM", json(&seen)?, json(text)?)
}

/// Pushes two images to two repositories. Returns the registry and the images, by digest.
fn two_images(lane: &Lane, purpose: &str) -> Result<(Registry, [String; 2]), String> {
    let (registry, name, manifest) = small_image(lane, purpose)?;
    let mut images = Vec::new();
    for name in [name, lane.repository("unsigned")] {
        let image = registry.image(&name);
        push_layout(registry.address, &name, &registry.path("source"), &manifest)?;
        images.push(format!("{image}@{manifest}"));
    }
    let images = images.try_into().map_err(|_| "two images")?;
    Ok((registry, images))
}
