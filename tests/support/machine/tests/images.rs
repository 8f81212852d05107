//! The images that a stop leaves: everything durable is present, and nothing else is certain.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use super::*;

/// Guards: unsynced data is absent from the durable image and present in the live one.
#[test]
fn unsynced_data_is_lost_in_the_durable_image_only() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        let file = durable(&env, "a", b"old").await;
        write(&file, 0, b"new and longer").await;
    });
    assert_eq!(content(&disk.durable_image(), "a").unwrap(), b"old");
    assert_eq!(content(&disk.live_image(), "a").unwrap(), b"new and longer");
    let images = disk.crash_images(&Policy::coarse(1));
    assert_eq!(content(&images[0].image, "a").unwrap(), b"old");
    assert_eq!(content(&images[1].image, "a").unwrap(), b"new and longer");
}

/// Guards: synced data under an unsynced name is unreachable, and so is everything below such a directory. An unsynced
/// removal may be undone.
#[test]
fn unsynced_entries_are_lost_with_all_below() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        durable(&env, "gone", b"x").await;
        env.io.unlink(CALL, &path("gone")).await.unwrap();
        create(&env, "a").await.sync_data(CALL).await.unwrap();
        env.io.create_dir(CALL, &path("d")).await.unwrap();
        create(&env, "d/b").await.sync_data(CALL).await.unwrap();
        exact::sync_dir(&*env.io, CALL, &path("d")).await.unwrap();
    });
    let image = disk.durable_image();
    assert_eq!(image.files.keys().collect::<Vec<_>>(), [&path("gone")]);
    assert!(!image.dirs.contains(&path("d")));
    executor.block_on(async {
        exact::sync_dir(&*env.io, CALL, Path::new(DIR))
            .await
            .unwrap()
    });
    let image = disk.durable_image();
    assert_eq!(
        image.files.keys().collect::<Vec<_>>(),
        [&path("a"), &path("d/b")]
    );
    assert_eq!(image, disk.live_image());
    assert_eq!(
        disk.crash_images(&Policy::thorough(1)).len(),
        1,
        "nothing is left open"
    );
}

/// Guards: unsynced names are lost independently, in any combination.
#[test]
fn unsynced_entries_are_lost_independently() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        create(&env, "a").await;
        create(&env, "b").await;
    });
    let images = disk.crash_images(&Policy::thorough(1));
    let seen: BTreeSet<(bool, bool)> = images
        .iter()
        .map(|crash| {
            (
                content(&crash.image, "a").is_some(),
                content(&crash.image, "b").is_some(),
            )
        })
        .collect();
    assert_eq!(seen.len(), 4);
}

/// Guards: a sync covers the effects that were complete when it was called, and none between its call and its end.
#[test]
fn a_sync_covers_only_what_was_completed_before_it() {
    let mut later_write_first = 0;
    for seed in 0..20 {
        let Machine {
            executor,
            disk,
            env,
        } = machine(seed);
        executor.block_on(async {
            let file = durable(&env, "a", b"----").await;
            write(&file, 0, b"1").await;
            let sync = file.sync_data(CALL);
            let write = file.write_at(CALL, 1, vec![Bytes::from_static(b"2")]);
            write.await.unwrap();
            sync.await.unwrap();
        });
        assert_eq!(
            content(&disk.durable_image(), "a").unwrap(),
            b"1---",
            "seed {seed}"
        );
        let log = disk.log();
        let kinds: Vec<OpKind> = log.iter().rev().take(2).map(|record| record.kind).collect();
        later_write_first += usize::from(kinds == [OpKind::SyncData, OpKind::Write]);
    }
    assert!(
        later_write_first > 0,
        "no seed let the write overtake the sync"
    );
}

/// Guards: a sync of a directory or of a file makes no other file durable, and no write that was in progress.
#[test]
fn a_sync_covers_one_file() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        let (a, b) = (durable(&env, "a", b"").await, durable(&env, "b", b"").await);
        write(&a, 0, b"x").await;
        write(&b, 0, b"y").await;
        b.sync_data(CALL).await.unwrap();
        exact::sync_dir(&*env.io, CALL, Path::new(DIR))
            .await
            .unwrap();
    });
    assert_eq!(content(&disk.durable_image(), "a").unwrap(), b"");
    assert_eq!(content(&disk.durable_image(), "b").unwrap(), b"y");
}

/// Guards: a failed sync makes nothing durable, and a later sync does not either for what the failed one covered.
#[test]
fn a_later_sync_does_not_repair_a_failed_one() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        let file = durable(&env, "a", b"----").await;
        write(&file, 0, b"1").await;
        disk.add_fault(Fault::nth(OpKind::SyncData, 1).on("store/a"));
        assert_eq!(
            file.sync_data(CALL)
                .await
                .unwrap_err()
                .cause()
                .raw_os_error(),
            Some(EIO)
        );
        write(&file, 1, b"2").await;
        file.sync_data(CALL).await.unwrap();
    });
    assert_eq!(content(&disk.durable_image(), "a").unwrap(), b"-2--");
    let expected = BTreeSet::from([Some(b"-2--".to_vec()), Some(b"12--".to_vec())]);
    assert_eq!(outcomes(&disk, "a"), expected);
}

/// Guards: kept effects are applied in the order in which they happened, so the newest kept write counts.
#[test]
fn effects_on_one_region_keep_their_order() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        let file = durable(&env, "a", b"0").await;
        write(&file, 0, b"1").await;
        write(&file, 0, b"2").await;
        file.set_len(CALL, 0).await.unwrap();
        write(&file, 1, b"3").await;
    });
    let images = disk.crash_images(&Policy::thorough(1));
    let found = |label: &str| {
        let crash = images.iter().find(|crash| crash.label.starts_with(label));
        content(
            &crash.unwrap_or_else(|| panic!("no image {label}")).image,
            "a",
        )
        .unwrap()
    };
    assert_eq!(found("the first 1 of 4"), b"1");
    assert_eq!(found("the first 2 of 4"), b"2");
    assert_eq!(found("the first 3 of 4"), b"");
    assert_eq!(found("everything"), b"\x003");
    assert_eq!(found("without effect 3 of 4"), b"23");
}

/// Guards: the last write reaches the disk in part, cut at sectors and with sectors missing. The rest reads as the old
/// bytes or zeros.
#[test]
fn a_torn_write_tears_at_sectors() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        let file = durable(&env, "a", &[b'o'; 1024]).await;
        write(&file, 256, &[b'n'; 2048]).await;
    });
    let outcomes: Vec<Vec<u8>> = outcomes(&disk, "a").into_iter().flatten().collect();
    let cut = |len: usize| {
        let mut bytes = vec![b'o'; 1024.max(len)];
        bytes[256..len].fill(b'n');
        bytes
    };
    for len in [512, 1024, 1536, 2048] {
        assert!(outcomes.contains(&cut(len)), "cut off at {len}");
    }
    assert!(
        !outcomes.contains(&cut(300)),
        "no sector is written in part"
    );
    let hole = |bytes: &Vec<u8>| bytes[512..1024] == [b'o'; 512] && bytes[1024..].contains(&b'n');
    assert!(
        outcomes.iter().any(hole),
        "a missing sector reads as the old bytes"
    );
    let zeros = |bytes: &Vec<u8>| bytes.len() == 2304 && bytes[1024..].contains(&0);
    assert!(
        outcomes.iter().any(zeros),
        "a missing sector after the old end reads as zeros"
    );
    let size_only = |bytes: &Vec<u8>| bytes.len() == 2304 && bytes[2048..] == [0; 256];
    assert!(
        outcomes.iter().any(size_only),
        "the size may be kept without the last sector"
    );
    for bytes in &outcomes {
        assert_eq!(
            bytes[..256],
            [b'o'; 256],
            "bytes that were not written are unchanged"
        );
        assert!(bytes.len() <= 2304);
    }
}

/// Guards: contents compare and hash by their bytes, and a cut file has no bytes left after its end.
#[test]
fn contents_are_equal_when_their_bytes_are() {
    let mut image = Image::with_dir(DIR);
    let mut written = Content::from(&[7; 10_000][..]);
    written.set_len(5000);
    written.grow(10_000);
    let mut expected = vec![7; 5000];
    expected.resize(10_000, 0);
    assert_eq!(written.to_vec(), expected);
    image.files.insert(path("a"), written);
    let mut other = Image::with_dir(DIR);
    let mut zeros = Content::from(&[7; 5000][..]);
    zeros.write(5000, &[0; 5000]);
    other.files.insert(path("a"), zeros);
    assert_eq!(image, other);
    assert_eq!(image.stable_hash(), other.stable_hash());
    other.files.get_mut(&path("a")).unwrap().write(9999, b"x");
    assert_ne!(image.stable_hash(), other.stable_hash());
}
