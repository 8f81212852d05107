//! Charts pushed and pulled by helm.
//!
//! Owns: the test of helm. Refuses: a chart with dependencies.

use std::fs;

use crate::checks::{same, write};
use crate::lane::Lane;
use crate::layout::same_files;
use crate::program::Client;

/// Guards: a chart is packed, pushed, pulled with the same bytes, and rendered directly from the registry, by its
/// version (with a `+`, which a tag cannot have) and as the newest of two.
pub fn charts(lane: &Lane) -> Result<(), String> {
    if !lane.has(Client::Helm, "charts")? {
        return Ok(());
    }
    let registry = lane.registry()?;
    let chart = registry.path("ship");
    fs::create_dir_all(chart.join("templates")).map_err(|e| format!("create a chart: {e}"))?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n\
        data:\n  cargo: {{ .Values.cargo | quote }}\n";
    write(&chart.join("templates/cargo.yaml"), template)?;
    write(&chart.join("values.yaml"), "cargo: iron\n")?;
    let run = |operation: &str, rest: &[&str]| {
        lane.run(Client::Helm, operation, |call| {
            call.args(rest).folder(registry.folder.path())
        })
    };
    let base = lane.repository("charts");
    let remote = format!("oci://{}", registry.image(&base));
    let versions = ["1.0.0", "1.1.0+build.7"];
    for version in versions {
        let about = format!("apiVersion: v2\nname: ship\nversion: {version}\n");
        write(&chart.join("Chart.yaml"), about)?;
        run("package", &["package", "ship"])?;
        let packed = format!("ship-{version}.tgz");
        run("push", &["push", "--plain-http", &packed, &remote])?;
    }
    let ship = format!("{remote}/ship");
    for version in versions {
        let to = registry.path(&format!("pulled-{}", &version[..5]));
        fs::create_dir(&to).map_err(|e| format!("create {}: {e}", to.display()))?;
        let packed = format!("ship-{version}.tgz");
        lane.step(Client::Helm, "pull, compare", || {
            let call = lane.programs.call(Client::Helm)?;
            let call = call.args(["pull", "--plain-http", "--version", version]);
            call.args([&ship, "--destination"]).arg(&to).run()?;
            same_files(&registry.path(&packed), &to.join(&packed))
        })?;
    }
    let template = ["template", "steamer", &ship, "--plain-http"];
    let seen = run("template from the registry", &template)?;
    same("rendered", seen.contains("cargo: \"iron\""), true)?;
    let show = ["show", "chart", &ship, "--plain-http"];
    let seen = run("show chart (newest version)", &show)?;
    same("the newest", seen.contains(versions[1]), true)
}
