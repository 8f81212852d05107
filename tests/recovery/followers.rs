//! Manifests that keep each other, on the simulated machine: referrers follow their subject everywhere, circles go as a
//! whole, and so do manifests with many edges.

use std::time::Duration;

use tonnage_engine::{Algorithm, Digest};

use super::collection::{GRACE, commit, delete, is_stored, on_a_store};
use super::untagged::{KEEPS, Put, REMOVES, STAYS, has, named, options, pass, run, set_tag, untag};

/// Guards: referrers follow their deleted subject after grace, also where untagged manifests are kept, and their own
/// referrers follow them. One whose subject returns stays, as does a tagged one and one whose subject was never there.
#[test]
fn referrers_follow_their_subject() {
    for name in [KEEPS, REMOVES] {
        on_a_store(&options(), async |machine, store| {
            let subject = Put {
                tag: Some("t"),
                ..Put::new(1)
            };
            let subject = subject.into(store, name).await;
            let refer = |salt, subject| Put {
                subject: Some(subject),
                ..Put::new(salt)
            };
            let first = refer(2, subject).into(store, name).await;
            let second = refer(3, first).into(store, name).await;
            let tagged = Put {
                tag: Some("s"),
                ..refer(4, subject)
            };
            let tagged = tagged.into(store, name).await;
            let early = Put {
                tag: (name == REMOVES).then_some("e"),
                ..refer(5, named(99))
            };
            early.into(store, name).await;
            assert_eq!(pass(machine, store, 2 * STAYS).await, []);
            delete(store, name, subject).await;
            assert_eq!(pass(machine, store, GRACE / 2).await, []);
            Put {
                tag: Some("t"),
                ..Put::new(1)
            }
            .into(store, name)
            .await;
            assert_eq!(pass(machine, store, 2 * STAYS).await, [], "it came back");
            delete(store, name, subject).await;
            assert_eq!(
                pass(machine, store, 2 * GRACE).await,
                [first],
                "the other is tagged"
            );
            assert_eq!(pass(machine, store, 2 * GRACE).await, [second]);
            assert_eq!(pass(machine, store, 2 * STAYS).await, [], "it is tagged");
            untag(store, name, "s").await;
            assert_eq!(pass(machine, store, 2 * GRACE).await, [tagged]);
            assert!(has(store, name, named(5)).await);
        });
    }
}

/// Guards: an index that lists its own subject, directly or through a child, keeps it while something keeps the index.
/// Then the circle goes at once, after the grace of each of its manifests.
#[test]
fn circles_go_at_once() {
    for through_a_child in [false, true] {
        on_a_store(&options(), async |machine, store| {
            let subject = Put {
                tag: Some("t"),
                ..Put::new(1)
            };
            let subject = subject.into(store, REMOVES).await;
            let mut dead = vec![subject];
            let mut lists = subject;
            if through_a_child {
                let child = Put {
                    lists: &[subject],
                    ..Put::new(2)
                };
                lists = child.into(store, REMOVES).await;
                dead.push(lists);
            }
            let index = Put {
                salt: 3,
                lists: &[lists],
                subject: Some(subject),
                tag: Some("i"),
            };
            dead.push(index.into(store, REMOVES).await);
            dead.sort();
            untag(store, REMOVES, "t").await;
            assert_eq!(
                pass(machine, store, 2 * STAYS).await,
                [],
                "the index is tagged"
            );
            commit(store, REMOVES, vec![], vec![set_tag("t", subject)]).await;
            untag(store, REMOVES, "i").await;
            assert_eq!(
                pass(machine, store, 2 * STAYS).await,
                [],
                "the subject is tagged"
            );
            untag(store, REMOVES, "t").await;
            // The others become suspects when the first one's time is over.
            assert_eq!(pass(machine, store, STAYS).await, []);
            let mut gone = pass(machine, store, 2 * STAYS).await;
            gone.sort();
            assert_eq!(gone, dead, "through a child: {through_a_child}");
            assert_eq!(pass(machine, store, 2 * GRACE).await, []);
            assert!(!is_stored(store, &subject).await);
        });
    }
}

/// Guards: a manifest with more edges than one transaction removes is removed as a whole. What is dead with it follows
/// once its edges are removed. If a client deletes it, its referrers follow.
#[test]
fn large_manifests_go() {
    on_a_store(&options(), async |machine, store| {
        let many: Vec<_> = (0..2000_u32)
            .map(|number| Digest::of(Algorithm::Sha256, &number.to_le_bytes()))
            .collect();
        let put = async |name| {
            let child = Put::new(9).into(store, name).await;
            let lists = [&many[..], &[child]].concat();
            let large = Put {
                lists: &lists,
                ..Put::new(1)
            };
            let large = large.into(store, name).await;
            let refers = Put {
                subject: Some(large),
                ..Put::new(2)
            };
            let refers = refers.into(store, name).await;
            (child, large, refers)
        };
        let (child, large, refers) = put(REMOVES).await;
        let mut gone = Vec::new();
        for _ in 0..4 {
            let done = run(store, false).await;
            gone.extend(done.listed_manifests.iter().map(|one| one.digest));
            machine.env.clock.sleep(STAYS).await;
        }
        gone.sort();
        let mut dead = [child, large, refers];
        dead.sort();
        assert_eq!(gone, dead);
        let (_, large, refers) = put(KEEPS).await;
        delete(store, KEEPS, large).await;
        machine.env.clock.sleep(Duration::from_mins(1)).await;
        assert_eq!(pass(machine, store, 2 * GRACE).await, [refers]);
    });
}
