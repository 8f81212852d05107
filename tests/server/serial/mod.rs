//! Fifty concurrent clients on the same tags and repositories. Every answer must be explained by some serial order.
//!
//! Owns: the tests. The file `repository` defines what a repository may answer, `clients` what the clients do, and
//! `tonnage_tests::linear` searches for an order.
//! Refuses: choices that cannot be replayed. The seed is printed, and `TONNAGE_TEST_SEED` sets it. The machine decides
//! how requests overlap, so a replay may need several runs.

mod clients;
mod repository;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tonnage_tests::linear::{Call, Object as _, explain};
use tonnage_tests::registry::TestRegistry;
use tonnage_tests::say;

use clients::{Client, Clock, Names, REPOSITORIES};
use repository::{Condition, Repository, Set, Step};

const CLIENTS: u64 = 50;
/// Requests of each client before it moves to the next repository.
const REQUESTS: u64 = 20;
/// Moves of each client in the short form.
const ROUNDS: usize = 3;
/// Duration of the full form.
const FULL: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    match std::env::var("TONNAGE_TEST_SEED") {
        Ok(text) => text.parse().expect("TONNAGE_TEST_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    }
}

/// Clause: spec, "Content Management" and "Push" (the effect of an answered request is visible to the next one); RFC 9110
/// section 13.
/// Guards: concurrent pushes and deletions of tags, manifests and blobs, some with conditions, are answered as in some
/// serial order. After a restart the state is the one after the last of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_clients_are_answered_in_some_order() {
    let seed = seed();
    say::print_line(&format!("fifty clients: TONNAGE_TEST_SEED={seed}"));
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let (clock, names) = (Clock::default(), Arc::new(Names::new()));
    let mut last = Client::connect(address, seed, &clock, &names)
        .await
        .unwrap();
    last.prepare().await.unwrap();

    let began = Instant::now();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let seed = seed.wrapping_mul(CLIENTS).wrapping_add(number + 1);
        clients.push(
            Client::connect(address, seed, &clock, &names)
                .await
                .unwrap(),
        );
    }
    let mut round = 0;
    while if say::full() {
        began.elapsed() < FULL
    } else {
        round < ROUNDS
    } {
        let mut running = tokio::task::JoinSet::new();
        for (number, mut client) in clients.drain(..).enumerate() {
            let home = (number + round) % REPOSITORIES;
            running.spawn(async move {
                for _ in 0..REQUESTS {
                    client.act(home).await?;
                }
                Ok::<_, String>(client)
            });
        }
        for ended in running.join_all().await {
            let client = ended.unwrap_or_else(|why| panic!("TONNAGE_TEST_SEED={seed}: {why}"));
            clients.push(client);
        }
        round += 1;
    }
    let mut calls: Vec<Vec<Call<Step>>> = (0..REPOSITORIES).map(|_| Vec::new()).collect();
    let mut add = |more: Vec<Vec<Call<Step>>>| {
        for (all, more) in calls.iter_mut().zip(more) {
            all.extend(more);
        }
    };
    for client in clients {
        add(client.calls);
    }
    last.read_all().await.unwrap();
    add(last.calls);
    let registry = registry.restart().await;
    let address = registry.client().address();
    let mut after = Client::connect(address, seed, &clock, &names)
        .await
        .unwrap();
    after.read_all().await.unwrap();
    add(after.calls);

    for (number, calls) in calls.iter().enumerate() {
        let changes = calls
            .iter()
            .filter(|call| !Repository::only_reads(&call.step))
            .count();
        match explain(Repository::default(), calls) {
            Ok(explained) => {
                say::print_line(&format!(
                    "fifty clients: r{number}: {} of {} answers, {changes} of these to changes, \
                     have an order; at most {} states at once",
                    explained.checked,
                    calls.len(),
                    explained.widest
                ));
                assert_eq!(
                    explained.checked,
                    calls.len(),
                    "TONNAGE_TEST_SEED={seed}: r{number}: \
                     there were too many possible orders to search all of them; run it again"
                );
            }
            Err(found) => {
                let mut all: Vec<_> = calls.iter().collect();
                all.sort_by_key(|call| call.begin);
                let text: String = all.iter().map(|call| format!("{call:?}\n")).collect();
                let name = format!("tonnage-fifty-clients-{seed}-r{number}");
                let path = std::env::temp_dir().join(name);
                std::fs::write(&path, text).unwrap();
                let path = path.display();
                panic!("TONNAGE_TEST_SEED={seed}: r{number}: {found}; all answers are in {path}")
            }
        }
        assert!(
            changes * 5 > calls.len(),
            "too few requests changed anything to show much"
        );
    }
}

/// Steps with their times of beginning and end.
type History = Vec<(u64, u64, Step)>;

fn find_order(steps: &[(u64, u64, Step)]) -> Result<(), String> {
    let calls = steps
        .iter()
        .map(|&(begin, end, step)| Call { begin, end, step });
    explain(Repository::default(), &calls.collect::<Vec<_>>())
        .map(drop)
        .map_err(|found| found.to_string())
}

fn put(manifest: u8, tag: u8) -> Step {
    Step::PutManifest {
        manifest,
        tags: Set::of([tag]),
        when: None,
    }
}

/// Clause: spec, "Content Management"; RFC 9110 section 13.1.
/// Guards: the search itself: histories in which a registry breaks a rule have no order.
#[test]
fn broken_registries_are_found() {
    // Manifest 0 has the blobs 0 and 1.
    let ready = [
        (1, 2, Step::PushedBlob(0)),
        (3, 4, Step::PushedBlob(1)),
        (5, 6, put(0, 0)),
    ];
    let saw = |manifest| Step::SawTag { tag: 0, manifest };
    let deleted = Step::DeletedManifest {
        manifest: 0,
        done: true,
    };
    let refused = Step::Refused {
        tag: 0,
        when: Condition::Absent,
    };
    let first = |when| Step::PutManifest {
        manifest: 0,
        tags: Set::of([1]),
        when: Some((1, when)),
    };
    let cases: [(&str, History); 8] = [
        ("answered before it is visible", vec![(7, 8, saw(None))]),
        (
            "a tag that outlives its manifest",
            vec![(7, 8, deleted), (9, 10, saw(Some(0)))],
        ),
        (
            "a tag list that shows what is deleted",
            vec![(7, 8, deleted), (9, 10, Step::ListedTags(Set::of([0])))],
        ),
        (
            "a manifest without its blobs",
            vec![
                (
                    7,
                    8,
                    Step::DeletedBlob {
                        blob: 1,
                        done: true,
                    },
                ),
                (9, 10, put(0, 1)),
            ],
        ),
        (
            "two that both create a tag",
            vec![
                (7, 10, first(Condition::Absent)),
                (8, 9, first(Condition::Absent)),
            ],
        ),
        (
            "a condition that holds and is refused",
            vec![(7, 8, deleted), (9, 10, refused)],
        ),
        (
            "a missing blob that is there",
            vec![(
                7,
                8,
                Step::LackedBlobs {
                    manifest: 0,
                    missing: Set::of([1]),
                },
            )],
        ),
        (
            "a list that never was true: one tag from before, one from after",
            vec![
                (7, 20, put(0, 1)),
                (
                    8,
                    21,
                    Step::DeletedTag {
                        tag: 0,
                        only: None,
                        done: true,
                    },
                ),
                (
                    9,
                    10,
                    Step::SawTag {
                        tag: 1,
                        manifest: Some(0),
                    },
                ),
                (11, 12, saw(None)),
                (13, 14, Step::ListedTags(Set::of([0, 1]))),
            ],
        ),
    ];
    for (what, steps) in cases {
        let all: Vec<_> = ready.iter().copied().chain(steps).collect();
        assert!(find_order(&all).is_err(), "{what} has an order");
    }
    let fine = [
        (7, 20, deleted),
        (8, 9, saw(Some(0))),
        (10, 11, saw(None)),
        (12, 13, Step::ListedTags(Set::default())),
    ];
    let all: Vec<_> = ready.iter().copied().chain(fine).collect();
    find_order(&all).unwrap();
}
