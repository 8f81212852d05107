//! Untagged manifests, on the simulated machine: where a policy removes them they go after their time, and nothing else
//! goes.

use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Change, CollectionReport, CollectionRequest, Digest, ManifestEntry, Options, Store,
    UntaggedPolicy,
};
use tonnage_tests::batch_of;
use tonnage_tests::by_name::ByName as _;
use tonnage_tests::machine::Machine;

use super::check;
use super::collection::{GRACE, commit, is_stored, on_a_store, push};

/// A repository that removes untagged manifests after [`STAYS`].
pub(super) const REMOVES: &str = "removes";
/// A repository that keeps them.
pub(super) const KEEPS: &str = "keeps";
pub(super) const STAYS: Duration = Duration::from_hours(2);

pub(super) fn options() -> Options {
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

pub(super) fn named(salt: u8) -> Digest {
    Digest::of(Algorithm::Sha256, &text(salt))
}

/// A manifest to be put.
pub(super) struct Put<'a> {
    pub(super) salt: u8,
    pub(super) lists: &'a [Digest],
    pub(super) subject: Option<Digest>,
    pub(super) tag: Option<&'a str>,
}

impl Put<'_> {
    /// Returns one that lists nothing, and has no subject and no tag.
    pub(super) fn new(salt: u8) -> Self {
        Self {
            salt,
            lists: &[],
            subject: None,
            tag: None,
        }
    }

    pub(super) async fn into(self, store: &Store, name: &str) -> Digest {
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

pub(super) fn set_tag(tag: &str, digest: Digest) -> Change {
    Change::SetTag {
        tag: tag.to_owned(),
        digest,
    }
}

pub(super) async fn untag(store: &Store, name: &str, tag: &str) {
    let change = Change::DeleteTag(tag.to_owned());
    commit(store, name, vec![], vec![change]).await;
}

pub(super) async fn run(store: &Store, dry_run: bool) -> CollectionReport {
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
pub(super) async fn pass(machine: &Machine, store: &Store, time: Duration) -> Vec<Digest> {
    assert_eq!(collect(store).await, [], "it went too early");
    machine.env.clock.sleep(time).await;
    collect(store).await
}

pub(super) async fn has(store: &Store, name: &str, digest: Digest) -> bool {
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
            Put::new(2).into(store, name).await;
        }
        let tagged = Put {
            lists: &[layer],
            tag: Some("t"),
            ..Put::new(3)
        };
        let tagged = tagged.into(store, REMOVES).await;
        assert_eq!(pass(machine, store, STAYS / 2).await, []);
        assert_eq!(pass(machine, store, STAYS).await, [named(2)]);
        assert!(has(store, KEEPS, named(2)).await);
        Put {
            tag: Some("t"),
            ..Put::new(4)
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
        let child = Put::new(1).into(store, REMOVES).await;
        let index = Put {
            lists: &[child],
            tag: Some("t"),
            ..Put::new(2)
        };
        let index = index.into(store, REMOVES).await;
        commit(store, REMOVES, vec![], vec![set_tag("u", child)]).await;
        untag(store, REMOVES, "u").await;
        assert_eq!(
            pass(machine, store, 2 * STAYS).await,
            [],
            "its index is tagged"
        );
        untag(store, REMOVES, "t").await;
        assert_eq!(pass(machine, store, STAYS - GRACE).await, []);
        Put {
            lists: &[child],
            ..Put::new(2)
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

/// Guards: a manifest that an answer promised stays for its grace, and so do all that are dead with it.
#[test]
fn a_lease_keeps_a_manifest() {
    on_a_store(&options(), async |machine, store| {
        let manifest = Put::new(1).into(store, REMOVES).await;
        assert_eq!(pass(machine, store, STAYS - GRACE).await, []);
        let needs_lease = |policy: &UntaggedPolicy| {
            let view = store.view();
            let found = view.repository(REMOVES).expect("readable").expect("there");
            found.manifest_needs_lease(&manifest, policy)
        };
        assert!(needs_lease(store.untagged_policy()).expect("readable"));
        assert!(!needs_lease(&UntaggedPolicy::default()).expect("readable"));
        machine.env.clock.sleep(2 * GRACE).await;
        store.lease_manifest(&manifest).await.expect("leased");
        assert_eq!(collect(store).await, []);
        machine.env.clock.sleep(GRACE).await;
        assert_eq!(collect(store).await, [manifest]);
    });
}

/// Guards: a push that lists a manifest in another repository keeps its bytes, and does not end the lease that keeps it
/// in its own.
#[test]
fn a_push_elsewhere_does_not_end_a_lease() {
    on_a_store(&options(), async |machine, store| {
        let manifest = Put::new(1).into(store, REMOVES).await;
        assert_eq!(pass(machine, store, STAYS - GRACE).await, []);
        machine.env.clock.sleep(2 * GRACE).await;
        store.lease_manifest(&manifest).await.expect("leased");
        let index = Put {
            lists: &[manifest],
            ..Put::new(2)
        };
        index.into(store, KEEPS).await;
        assert_eq!(collect(store).await, [], "it is promised");
        machine.env.clock.sleep(GRACE).await;
        assert_eq!(collect(store).await, [manifest]);
        assert_eq!(pass(machine, store, 2 * GRACE).await, []);
        assert!(is_stored(store, &manifest).await, "the index lists it");
    });
}

/// Guards: a repository that is deleted and created again has its own manifests, whose time begins with their push.
#[test]
fn a_repository_created_again_begins_anew() {
    on_a_store(&options(), async |machine, store| {
        let put = async || {
            let child = Put::new(1);
            let child = child.into(store, REMOVES).await;
            let index = Put {
                lists: &[child],
                tag: Some("t"),
                ..Put::new(2)
            };
            index.into(store, REMOVES).await;
            untag(store, REMOVES, "t").await;
            child
        };
        let child = put().await;
        assert_eq!(pass(machine, store, STAYS - GRACE).await, []);
        commit(store, REMOVES, vec![], vec![Change::DeleteRepository]).await;
        put().await;
        assert_eq!(pass(machine, store, 2 * GRACE).await, []);
        assert!(has(store, REMOVES, child).await);
        assert_eq!(pass(machine, store, STAYS).await, [named(2)]);
        commit(store, REMOVES, vec![], vec![Change::DeleteRepository]).await;
        assert_eq!(pass(machine, store, 2 * STAYS).await, []);
        assert!(!is_stored(store, &child).await);
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
        let manifest = Put::new(1).into(store, REMOVES).await;
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

/// Guards: DURABILITY.md, "Remove a manifest that nothing keeps": after a stop anywhere, a circle of manifests is there
/// or gone as a whole, and what is tagged is there.
#[test]
fn a_stop_in_a_removal_loses_nothing() {
    let scene = async |machine: &Machine, begun: &dyn Fn()| {
        let opened = Store::open(machine.env.clone(), &check::store_path(), options()).await;
        let store = opened?.0;
        Put {
            tag: Some("k"),
            ..Put::new(9)
        }
        .into(&store, REMOVES)
        .await;
        let subject = Put::new(1).into(&store, REMOVES).await;
        let index = Put {
            lists: &[subject],
            subject: Some(subject),
            ..Put::new(2)
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
    let mut seen = std::collections::BTreeSet::new();
    check::at_every_stop(&options(), scene, async |store, stop| {
        assert!(has(store, REMOVES, named(9)).await, "stop {stop}");
        let left = [
            has(store, REMOVES, named(1)).await,
            has(store, REMOVES, named(2)).await,
        ];
        assert_eq!(left[0], left[1], "stop {stop}");
        assert!(is_stored(store, &named(1)).await, "stop {stop}");
        seen.insert(left[0]);
    });
    assert_eq!(seen, [false, true].into(), "states that were left");
}

/// Guards: a tag that is set to a manifest after its removal is refused, and one that is set before keeps it.
#[test]
fn a_tag_never_points_at_nothing() {
    on_a_store(&options(), async |machine, store| {
        let manifest = Put::new(1).into(store, REMOVES).await;
        assert_eq!(pass(machine, store, STAYS).await, [manifest]);
        let tag = batch_of(REMOVES, vec![], vec![set_tag("t", manifest)]);
        assert!(store.commit(tag).await.is_err(), "it is gone");
        let tag = store.view().read(|view| view.tag(REMOVES, "t")).await;
        assert!(tag.expect("readable").is_none());
    });
}
