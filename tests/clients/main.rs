//! Real clients on a running registry: what one client pushes, copies and deletes, every other client must see.
//!
//! Owns: the list of tests. Refuses: to skip a missing client silently. `TONNAGE_TEST_CLIENTS=require` makes a missing
//! client a failure if it is quick to build, `=all` for all. `TONNAGE_TEST_REGISTRY=http://127.0.0.1:PORT` uses a
//! running registry; otherwise each test starts its own `tonnage`. `TONNAGE_TEST_WRITE_TABLE=1` writes the table.

mod build;
mod call;
mod checks;
mod containerd;
mod crane;
mod helm;
mod image;
mod lane;
mod layer;
mod layout;
mod login;
mod login_certificate;
mod login_charts;
mod login_containerd;
mod model;
mod oras;
mod program;
mod recorder;
mod regctl;
mod replay_login;
mod replay_pull;
mod replay_push;
mod sign;
mod skopeo;
mod table;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::lane::Lane;

type Test = fn(&Lane) -> Result<(), String>;

const TESTS: [(&str, Test); 23] = [
    (
        "an_image_of_a_root_file_system_round_trips_between_clients",
        image::round_trips,
    ),
    ("a_model_round_trips_between_clients", model::round_trips),
    (
        "a_layer_of_random_bytes_round_trips_between_clients",
        layer::round_trips,
    ),
    ("skopeo_lists_inspects_copies_and_deletes", skopeo::verbs),
    ("skopeo_syncs", skopeo::sync),
    ("crane_lists_validates_mounts_and_deletes", crane::verbs),
    ("crane_changes_images_and_makes_indexes", crane::changes),
    ("oras_attaches_discovers_and_deletes", oras::verbs),
    ("oras_handles_single_blobs_and_manifests", oras::parts),
    ("podman_builds_pushes_and_pulls", build::podman),
    ("buildah_builds_pushes_and_pulls", build::buildah),
    (
        "regctl_copies_with_referrers_and_digest_tags",
        regctl::copies,
    ),
    ("regctl_handles_indexes_blobs_and_manifests", regctl::parts),
    ("helm_pushes_pulls_and_renders_charts", helm::charts),
    ("notation_signs_and_verifies", sign::notation),
    ("cosign_signs_verifies_and_attaches", sign::cosign),
    (
        "containerd_pulls_in_parallel_and_pushes",
        containerd::pulls_and_pushes,
    ),
    ("clients_log_in_by_tls", login::over_tls),
    ("replayed_docker_push", replay_push::docker),
    ("replayed_docker_login", replay_login::docker),
    (
        "replayed_buildkit_and_containerd_push",
        replay_push::buildkit,
    ),
    ("replayed_zstd_chunked_pull", replay_pull::zstd_chunked),
    ("the_table_of_clients_is_current", table::is_current),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One at a time, because rates and times are printed, and tests that share the drive would distort them.
    arguments.test_threads.get_or_insert(1);
    let lane = if arguments.list {
        None
    } else {
        Some(Lane::new())
    };
    let lane = match lane.transpose() {
        Ok(lane) => lane,
        Err(why) => {
            tonnage_tests::say::print_line(&format!("the tests with clients cannot start: {why}"));
            return ExitCode::FAILURE;
        }
    };
    let trials = TESTS.map(|(name, test)| {
        let lane = lane.as_ref().map(|lane| lane.of_test(name));
        Trial::test(name, move || match &lane {
            Some(lane) => test(lane).map_err(Into::into),
            None => Ok(()),
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    if let Some(lane) = &lane {
        let rows = lane.rows();
        table::print(&rows);
        if let Err(why) = table::write(&rows, &conclusion) {
            tonnage_tests::say::print_line(&why);
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}
