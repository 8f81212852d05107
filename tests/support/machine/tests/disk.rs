//! A running disk: full, faulty, noisy, locked.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use tonnage_engine::io::Buffer;
use tonnage_engine::io::{LockAttempt, exact};

use super::*;

/// Guards: a full disk accepts what fits, then returns ENOSPC, and has space again after a removal. A file that is
/// still open keeps its space.
#[test]
fn a_full_disk_returns_enospc() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    disk.set_capacity(Some(1000));
    executor.block_on(async {
        let file = create(&env, "a").await;
        let count = file
            .write_at(CALL, 0, vec![Bytes::from(vec![1; 1500])])
            .await
            .unwrap();
        assert_eq!(count, 1000);
        let full = file
            .write_at(CALL, 1000, vec![Bytes::from_static(b"x")])
            .await
            .unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(
            file.allocate(CALL, 0, 1001)
                .await
                .unwrap_err()
                .cause()
                .raw_os_error(),
            Some(ENOSPC)
        );
        file.write_at(CALL, 0, vec![Bytes::from(vec![2; 1000])])
            .await
            .unwrap();
        let space = env.io.space(CALL, Path::new(DIR)).await.unwrap();
        assert_eq!((space.total_bytes, space.available_bytes), (1000, 0));
        env.io.unlink(CALL, &path("a")).await.unwrap();
        assert_eq!(disk.used_bytes(), 1000);
        drop(file);
        assert_eq!(disk.used_bytes(), 0);
        create(&env, "b")
            .await
            .allocate(CALL, 0, 1000)
            .await
            .unwrap();
    });
}

/// Guards: a fault affects the operation, path and time for which it is set, and no others.
#[test]
fn faults_affect_the_chosen_operations() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    executor.block_on(async {
        let (a, b) = (create(&env, "a").await, create(&env, "b").await);
        disk.add_fault(Fault::nth(OpKind::Write, 2).on("/b").with_errno(ENOSPC));
        let byte = || vec![Bytes::from_static(b"x")];
        for _ in 0..3 {
            a.write_at(CALL, 0, byte()).await.unwrap();
        }
        b.write_at(CALL, 0, byte()).await.unwrap();
        assert_eq!(
            b.write_at(CALL, 0, byte()).await.unwrap_err().kind(),
            ErrorKind::StorageFull
        );
        b.write_at(CALL, 0, byte()).await.unwrap();
        disk.add_fault(Fault::percent(OpKind::Read, 100));
        let read = || a.read_at(CALL, 0, Buffer::unpooled(1));
        let failed = read().await.unwrap_err();
        assert_eq!(failed.cause().raw_os_error(), Some(EIO));
        disk.clear_faults();
        assert_eq!(read().await.unwrap().0.filled(), b"x");
    });
}

/// Guards: the noise shortens transfers and cached reads, and the loops above still transfer everything.
#[test]
fn noise_shortens_transfers_and_empties_the_cache() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    disk.set_noise(Noise {
        short: 100,
        would_block: 50,
        stall: 0,
    });
    executor.block_on(async {
        let file = create(&env, "a").await;
        let bytes: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        write(&file, 100, &bytes).await;
        let read = exact::read_exact(&*file, CALL, 100, Buffer::unpooled(20_000))
            .await
            .unwrap();
        assert_eq!(read.filled(), bytes);
        let log = disk.log();
        assert!(
            log.iter()
                .filter(|record| record.kind == OpKind::Write)
                .count()
                > 1
        );
        assert!(
            log.iter()
                .filter(|record| record.kind == OpKind::Read)
                .count()
                > 1
        );
        let cached = |_| file.read_cached(CALL, 100, &mut Buffer::unpooled(50));
        let (found, absent): (Vec<_>, Vec<_>) = (0..40).map(cached).partition(Result::is_ok);
        assert!(!found.is_empty() && !absent.is_empty());
        assert!(absent.iter().flatten().next().is_none());
    });
}

/// Guards: the lock is granted once, again after its release, and to a new machine after a crash.
#[test]
fn the_lock_is_released_by_drop_and_by_a_crash() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    let lock = Path::new(DIR);
    executor.block_on(async {
        let LockAttempt::Held(guard) = env.io.lock(CALL, lock).await.unwrap() else {
            panic!("free")
        };
        let second = env.io.lock(CALL, lock).await.unwrap();
        assert!(matches!(second, LockAttempt::Taken(Some(SIM_PID))));
        drop(guard);
        let LockAttempt::Held(guard) = env.io.lock(CALL, lock).await.unwrap() else {
            panic!("free")
        };
        std::mem::forget(guard);
    });
    let next = Machine::new(2, &disk.live_image());
    let attempt = next
        .executor
        .block_on(next.env.io.lock(CALL, lock))
        .unwrap();
    assert!(matches!(attempt, LockAttempt::Held(_)));
}
