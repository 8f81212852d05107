//! Commit and publish: group commit, preconditions, rejections, and the states that readers see meanwhile.

use shuttle::future::block_on;
use tonnage_engine::{Change, Digest, Error, Lsn, Require, Store};
use tonnage_races::disk::Disk;
use tonnage_races::explore::explore;
use tonnage_races::world::{
    Notes, World, batch, digest, is_linked, link, manifest, options, push, thread,
};

/// Acknowledged commits, which readers must see from then on.
type Answers = Notes<(Lsn, &'static str)>;

/// Reads again and again. A reader never sees an older state than before, a state that is not durable, or one without
/// an acknowledged commit.
async fn read(store: Store, disk: Disk, answers: Answers, linked: Digest) {
    let mut last = Lsn(0);
    for _ in 0..4 {
        let answered = answers.all();
        let view = store.view();
        let seen = view.lsn();
        assert!(seen >= last, "a reader went back from {last} to {seen}");
        assert!(
            seen <= disk.durable(),
            "a reader saw {seen}, which is not durable"
        );
        for (lsn, repository) in answered {
            assert!(seen >= lsn, "{lsn} was acknowledged, a reader sees {seen}");
            let there = is_linked(&view, repository, &linked);
            assert!(there, "{lsn} was acknowledged and its row is missing");
        }
        last = seen;
    }
}

/// Points a tag that must not exist at a manifest. A rejected caller can see the tag.
async fn create_tag(store: Store, disk: Disk, text: &'static str) -> bool {
    let free = Require::Tag {
        tag: "t".to_owned(),
        digest: None,
    };
    let set = Change::SetTag {
        tag: "t".to_owned(),
        digest: digest(text),
    };
    let changes = vec![manifest(text), set];
    match store.commit(batch("r", vec![free], changes)).await {
        Ok(committed) => {
            assert!(
                store.view().lsn() >= committed.lsn,
                "acknowledged before it is visible"
            );
            assert!(
                disk.durable() >= committed.lsn,
                "acknowledged before it is durable"
            );
            true
        }
        Err(Error::Unmet(unmet)) => {
            assert_eq!(unmet.len(), 1);
            let tag = store
                .view()
                .read(|view| view.repository("r")?.map_or(Ok(None), |r| r.tag("t")))
                .await
                .expect("rows are readable");
            assert!(tag.is_some(), "rejected for a tag that is not visible");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

fn body() {
    let world = World::default();
    let store = world.open(options());
    let disk = &world.disk;
    let blobs = async {
        push(&store, "r", "a").await?;
        push(&store, "r", "b").await
    };
    block_on(blobs).expect("a push before any fault");
    let answers = Answers::default();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, disk) = (store.clone(), disk.clone());
            thread(read(store, disk, answers.clone(), digest("a")))
        })
        .collect();
    let taggers = ["a", "b"].map(|text| thread(create_tag(store.clone(), disk.clone(), text)));
    let writers = [["w1", "w2"], ["w3", "w4"]].map(|repositories| {
        let (store, answers) = (store.clone(), answers.clone());
        thread(async move {
            for repository in repositories {
                let committed = link(&store, repository, "a").await;
                let lsn = committed.expect("a link to a blob that is there").lsn;
                answers.add((lsn, repository));
            }
        })
    });
    let won = taggers
        .into_iter()
        .map(|tagger| tagger.join().expect("a tagger ends"))
        .filter(|won| *won)
        .count();
    assert_eq!(won, 1, "one creates the tag, the other is rejected");
    for thread in readers.into_iter().chain(writers) {
        thread.join().expect("a thread ends");
    }
    let lsns: std::collections::BTreeSet<_> =
        answers.all().into_iter().map(|(lsn, _)| lsn).collect();
    assert_eq!(lsns.len(), 4, "each transaction has an LSN of its own");
    block_on(store.close()).expect("a clean stop");
}

/// Guards: whatever the order of threads, readers see only durable states, in order, with every acknowledged commit. Of
/// two threads that create the same tag one succeeds, and the other is rejected once it can see the tag.
#[test]
fn commits() {
    explore("commits", 60, body);
}
