//! Manifests that nothing keeps, on the simulated machine: where a policy removes untagged manifests they go after their
//! time, referrers follow their subject everywhere, and nothing else goes.

use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Change, CollectionReport, CollectionRequest, Digest, ManifestEntry, Options, Store,
    UntaggedPolicy,
};
use tonnage_tests::batch_of;
use tonnage_tests::by_name::ByName as _;
use tonnage_tests::machine::{Machine, Outcome, Policy};

use super::check;
use super::collection::{GRACE, commit, delete, is_stored, on_a_store, open, push};

/// A repository that removes untagged manifests after [`STAYS`].
const REMOVES: &str = "removes";
/// A repository that keeps them.
const KEEPS: &str = "keeps";
const STAYS: Duration = Duration::from_hours(2);

fn options() -> Options {
    Options {
        collection_grace: GRACE,
        collection_manual: true,
        untagged: UntaggedPolicy::new(|name| (name == REMOVES).then_some(STAYS)),
        ..check::options()
    }
}

/// Returns the bytes of a manifest.
fn text(salt: u8) -> Bytes {
    Bytes::from(vec![salt; 200])
}

fn named(salt: u8) -> Digest {
    Digest::of(Algorithm::Sha256, &text(salt))
}

/// A manifest to be put.
#[derive(Default)]
struct Put<'a> {
    salt: u8,
    lists: &'a [Digest],
    subject: Option<Digest>,
    tag: Option<&'a str>,
}

impl Put<'_> {
    async fn into(self, store: &Store, name: &str) -> Digest {
        let blob = store.put_small(text(self.salt), Algorithm::Sha256).await;
        let blob = blob.expect("stored");
        let digest = blob.digest();
        let entry = ManifestEntry {
            digest,
            size: 200,
            children: self.lists.to_vec(),
            subject: self.subject,
            attributes: Bytes::new(),
        };
        let mut changes = vec![Change::PutManifest(entry)];
        changes.extend(self.tag.map(|tag| set_tag(tag, digest)));
        commit(store, name, vec![blob], changes).await;
        digest
    }
}

fn set_tag(tag: &str, digest: Digest) -> Change {
    Change::SetTag {
        tag: tag.to_owned(),
        digest,
    }
}

async fn untag(store: &Store, name: &str, tag: &str) {
    let change = Change::DeleteTag(tag.to_owned());
    commit(store, name, vec![], vec![change]).await;
}

async fn run(store: &Store, dry_run: bool) -> CollectionReport {
    let request = CollectionRequest {
        dry_run,
        list_max: 100,
        ..CollectionRequest::default()
    };
    store.collect(request).await.expect("collected")
}

/// Collects what a dry run said before. Returns the removed manifests.
async fn collect(store: &Store) -> Vec<Digest> {
    let previewed = run(store, true).await;
    let done = run(store, false).await;
    assert_eq!(previewed.listed_manifests, done.listed_manifests);
    assert_eq!(done.manifests, done.listed_manifests.len() as u64);
    let gone = done.listed_manifests.iter().map(|one| one.digest);
    gone.collect()
}

/// Lets `time` pass. Grace begins at a look of the store.
async fn pass(machine: &Machine, store: &Store, time: Duration) -> Vec<Digest> {
    assert_eq!(collect(store).await, [], "it went too early");
    machine.env.clock.sleep(time).await;
    collect(store).await
}

async fn has(store: &Store, name: &str, digest: Digest) -> bool {
    let view = store.view();
    let found = view.read(|view| match view.repository(name)? {
        Some(repository) => Ok(repository.manifest(&digest)?.is_some()),
        None => Ok(false),
    });
    found.await.expect("rows are readable")
}

/// Guards: an untagged manifest goes only where the policy says so, after its time, which starts with the loss of its
/// last tag. Its blobs follow one grace later.
#[test]
fn untagged_manifests_go_where_the_policy_says() {
    on_a_store(&options(), async |machine, store| {
        let layer = push(store, REMOVES, 1).await;
        for name in [REMOVES, KEEPS] {
            Put {
                salt: 2,
                ..Put::default()
            }
            .into(store, name)
            .await;
        }
        let tagged = Put {
            salt: 3,
            lists: &[layer],
            tag: Some("t"),
            ..Put::default()
        };
        let tagged = tagged.into(store, REMOVES).await;
        assert_eq!(pass(machine, store, STAYS / 2).await, []);
        assert_eq!(pass(machine, store, STAYS).await, [named(2)]);
        assert!(has(store, KEEPS, named(2)).await);
        Put {
            salt: 4,
            tag: Some("t"),
            ..Put::default()
        }
        .into(store, REMOVES)
        .await;
        assert_eq!(pass(machine, store, STAYS / 2).await, []);
        assert_eq!(pass(machine, store, STAYS).await, [tagged]);
        assert!(is_stored(store, &layer).await, "its grace starts now");
        assert_eq!(pass(machine, store, 2 * GRACE).await, []);
        assert!(!is_stored(store, &layer).await && !is_stored(store, &tagged).await);
        untag(store, REMOVES, "t").await;
        assert_eq!(pass(machine, store, 2 * STAYS).await, [named(4)]);
    });
}

/// Guards: a kept index keeps its children, and a manifest that is tagged or pushed again meanwhile stays.
#[test]
fn what_is_kept_stays() {
    on_a_store(&options(), async |machine, store| {
        let child = Put {
            salt: 1,
            ..Put::default()
        }
        .into(store, REMOVES)
        .await;
        let index = Put {
            salt: 2,
            lists: &[child],
            tag: Some("t"),
            ..Put::default()
        };
        let index = index.into(store, REMOVES).await;
        assert_eq!(pass(machine, store, 2 * STAYS).await, []);
        untag(store, REMOVES, "t").await;
        assert_eq!(pass(machine, store, STAYS - GRACE).await, []);
        Put {
            salt: 2,
            lists: &[child],
            ..Put::default()
        }
        .into(store, REMOVES)
        .await;
        assert_eq!(
            pass(machine, store, STAYS - GRACE).await,
            [],
            "pushed again"
        );
        commit(store, REMOVES, vec![], vec![set_tag("u", child)]).await;
        assert_eq!(pass(machine, store, STAYS).await, [index]);
        assert_eq!(
            pass(machine, store, 2 * STAYS).await,
            [],
            "the child is tagged"
        );
        untag(store, REMOVES, "u").await;
        assert_eq!(pass(machine, store, 2 * STAYS).await, [child]);
    });
}

/// Guards: referrers follow their deleted subject after grace, also where untagged manifests are kept, and their own
/// referrers follow them. One whose subject returns stays, as does a tagged one and one whose subject was never there.
#[test]
fn referrers_follow_their_subject() {
    for name in [KEEPS, REMOVES] {
        on_a_store(&options(), async |machine, store| {
            let subject = Put {
                salt: 1,
                tag: Some("t"),
                ..Put::default()
            };
            let subject = subject.into(store, name).await;
            let refer = |salt, subject| Put {
                salt,
                subject: Some(subject),
                ..Put::default()
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
                salt: 1,
                tag: Some("t"),
                ..Put::default()
            }
            .into(store, name)
            .await;
            assert_eq!(pass(machine, store, 2 * STAYS).await, [], "it came back");
            delete(store, name, subject).await;
            assert_eq!(pass(machine, store, 2 * GRACE).await, [first]);
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
                salt: 1,
                tag: Some("t"),
                ..Put::default()
            };
            let subject = subject.into(store, REMOVES).await;
            let mut dead = vec![subject];
            let mut lists = subject;
            if through_a_child {
                let child = Put {
                    salt: 2,
                    lists: &[subject],
                    ..Put::default()
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

/// Guards: a manifest with more edges than one transaction removes goes as a whole, with the referrers that are dead with
/// it. If a client deletes it, its referrers follow.
#[test]
fn large_manifests_go() {
    on_a_store(&options(), async |machine, store| {
        let many: Vec<_> = (0..2000_u32)
            .map(|number| Digest::of(Algorithm::Sha256, &number.to_le_bytes()))
            .collect();
        let put = async |name| {
            let child = Put {
                salt: 9,
                ..Put::default()
            }
            .into(store, name)
            .await;
            let lists = [&many[..], &[child]].concat();
            let large = Put {
                salt: 1,
                lists: &lists,
                ..Put::default()
            };
            let large = large.into(store, name).await;
            let refers = Put {
                salt: 2,
                subject: Some(large),
                ..Put::default()
            };
            let refers = refers.into(store, name).await;
            (child, large, refers)
        };
        let (child, large, refers) = put(REMOVES).await;
        let mut gone = pass(machine, store, STAYS).await;
        gone.sort();
        let mut dead = [large, refers];
        dead.sort();
        assert_eq!(gone, dead);
        machine.env.clock.sleep(Duration::from_mins(1)).await;
        assert_eq!(pass(machine, store, STAYS).await, [child]);
        let (_, large, refers) = put(KEEPS).await;
        delete(store, KEEPS, large).await;
        machine.env.clock.sleep(Duration::from_mins(1)).await;
        assert_eq!(pass(machine, store, 2 * GRACE).await, [refers]);
    });
}

/// Guards: a manifest that an answer promised stays for its grace, and so do all that are dead with it.
#[test]
fn a_lease_keeps_a_manifest() {
    on_a_store(&options(), async |machine, store| {
        let manifest = Put {
            salt: 1,
            ..Put::default()
        }
        .into(store, REMOVES)
        .await;
        assert_eq!(pass(machine, store, STAYS - GRACE).await, []);
        let needs_lease = |keeps| {
            let view = store.view();
            let found = view.repository(REMOVES).expect("readable").expect("there");
            found.manifest_needs_lease(&manifest, keeps)
        };
        assert!(needs_lease(false).expect("readable") && !needs_lease(true).expect("readable"));
        machine.env.clock.sleep(2 * GRACE).await;
        store.lease_manifest(&manifest).await.expect("leased");
        assert_eq!(collect(store).await, []);
        machine.env.clock.sleep(GRACE).await;
        assert_eq!(collect(store).await, [manifest]);
    });
}

/// Guards: the store removes manifests by itself, when the policy's time is over.
#[test]
fn the_store_does_it_by_itself() {
    let options = Options {
        collection_manual: false,
        ..options()
    };
    on_a_store(&options, async |machine, store| {
        let manifest = Put {
            salt: 1,
            ..Put::default()
        }
        .into(store, REMOVES)
        .await;
        machine.env.clock.sleep(STAYS - GRACE).await;
        assert!(has(store, REMOVES, manifest).await, "it went too early");
        machine.env.clock.sleep(2 * GRACE).await;
        assert!(!has(store, REMOVES, manifest).await);
        assert!(is_stored(store, &manifest).await);
        machine.env.clock.sleep(2 * GRACE).await;
        assert!(!is_stored(store, &manifest).await);
        assert_eq!(store.collection_totals().manifests, 1);
    });
}

/// Guards: DURABILITY.md, "Remove a manifest that nothing keeps": after a stop anywhere, a circle of manifests is there or
/// gone as a whole, and what is tagged is there.
#[test]
fn a_stop_in_a_removal_loses_nothing() {
    let scene = async |machine: &Machine, begun: &dyn Fn()| {
        let opened = Store::open(machine.env.clone(), &check::store_path(), options()).await;
        let store = opened?.0;
        Put {
            salt: 9,
            tag: Some("k"),
            ..Put::default()
        }
        .into(&store, REMOVES)
        .await;
        let subject = Put {
            salt: 1,
            ..Put::default()
        }
        .into(&store, REMOVES)
        .await;
        let index = Put {
            salt: 2,
            lists: &[subject],
            subject: Some(subject),
            ..Put::default()
        };
        index.into(&store, REMOVES).await;
        machine.env.clock.sleep(2 * STAYS).await;
        run(&store, false).await;
        machine.env.clock.sleep(2 * STAYS).await;
        begun();
        let report = store.collect(CollectionRequest::default()).await?;
        assert_eq!(report.manifests, 2, "{report:?}");
        store.close().await
    };
    let machine = Machine::new(5, &check::empty_disk());
    let from = std::cell::Cell::new(0);
    let begun = || from.set(machine.disk.points());
    machine
        .executor
        .block_on(scene(&machine, &begun))
        .expect("a sound disk");
    let (from, to) = (from.get(), machine.disk.points());
    let mut seen = std::collections::BTreeSet::new();
    for stop_after in from..to {
        let machine = Machine::new(5, &check::empty_disk());
        machine.disk.stop_after(stop_after);
        let stopped = machine.executor.run_until_crash(scene(&machine, &|| {}));
        assert!(matches!(stopped, Outcome::Crashed), "stop {stop_after}");
        for image in machine.disk.crash_images(&Policy::coarse(stop_after)) {
            let next = Machine::new(5, &image.image);
            next.executor.block_on(async {
                let store = open(&next, options()).await;
                assert!(has(&store, REMOVES, named(9)).await, "stop {stop_after}");
                let left = [
                    has(&store, REMOVES, named(1)).await,
                    has(&store, REMOVES, named(2)).await,
                ];
                assert_eq!(left[0], left[1], "stop {stop_after}");
                assert!(is_stored(&store, &named(1)).await, "stop {stop_after}");
                seen.insert(left[0]);
                store.close().await.expect("the store closes");
            });
            next.executor.settle();
            let report = check::fsck_image(5, &next.disk.live_image());
            let report = report.unwrap_or_else(|why| panic!("stop {stop_after}: {why}"));
            assert!(report.findings.is_empty(), "stop {stop_after}: {report:?}");
        }
    }
    println!("stopped at points {from} to {to}");
    assert_eq!(seen, [false, true].into(), "states that were left");
}

/// Guards: a tag that is set to a manifest after its removal is refused, and one that is set before keeps it.
#[test]
fn a_tag_never_points_at_nothing() {
    on_a_store(&options(), async |machine, store| {
        let manifest = Put {
            salt: 1,
            ..Put::default()
        }
        .into(store, REMOVES)
        .await;
        assert_eq!(pass(machine, store, STAYS).await, [manifest]);
        let tag = batch_of(REMOVES, vec![], vec![set_tag("t", manifest)]);
        assert!(store.commit(tag).await.is_err(), "it is gone");
        let tag = store.view().read(|view| view.tag(REMOVES, "t")).await;
        assert!(tag.expect("readable").is_none());
    });
}
