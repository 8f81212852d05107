//! Real clients against a running registry: what each pushes, lists, copies and deletes, every other one must see.
//!
//! Owns: the list of tests and the table at the end. Refuses: a client that is not here without a loud line
//! (`TONNAGE_TEST_CLIENTS=require` makes it a failure). `TONNAGE_TEST_REGISTRY=http://127.0.0.1:PORT` aims the lane
//! at a registry that runs already; otherwise each test starts a `tonnage` of its own.

mod image;
mod lane;
mod layer;
mod layout;
mod model;
mod program;
mod verbs;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::lane::Lane;

type Test = fn(&Lane) -> Result<(), String>;

const TESTS: [(&str, Test); 7] = [
    (
        "an_image_of_a_root_file_system_round_trips_between_clients",
        image::round_trips,
    ),
    ("a_model_round_trips_between_clients", model::round_trips),
    (
        "a_layer_of_random_bytes_round_trips_between_clients",
        layer::round_trips,
    ),
    ("skopeo_lists_inspects_copies_and_deletes", verbs::skopeo),
    ("crane_lists_validates_mounts_and_deletes", verbs::crane),
    ("oras_attaches_discovers_and_deletes", verbs::oras),
    ("podman_builds_pushes_and_pulls", verbs::podman),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rates and times are printed: tests that share the drive would print each other's.
    arguments.test_threads.get_or_insert(1);
    let lane = if arguments.list {
        None
    } else {
        Some(Lane::new())
    };
    let lane = match lane.transpose() {
        Ok(lane) => lane.map(Arc::new),
        Err(why) => {
            tonnage_tests::say::aloud(&format!("the lane of clients cannot start: {why}"));
            return ExitCode::FAILURE;
        }
    };
    let trials = TESTS.map(|(name, test)| {
        let lane = lane.clone();
        Trial::test(name, move || match &lane {
            Some(lane) => test(lane).map_err(Into::into),
            None => Ok(()),
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    if let Some(lane) = &lane {
        lane.print_table();
    }
    conclusion.exit_code()
}
