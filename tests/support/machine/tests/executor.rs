//! The executor: deadlocks, time, and tasks that outlive a run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// Guards: a deadlock ends the test and names the waiting tasks and the seed.
#[test]
fn a_deadlock_is_reported() {
    let Machine {
        executor,
        disk: _disk,
        env,
    } = machine(11);
    env.spawn
        .spawn("stuck task", Box::pin(std::future::pending()));
    let stuck = || executor.block_on(std::future::pending::<()>());
    let panic = catch_unwind(AssertUnwindSafe(stuck)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(
        text.contains("deadlock") && text.contains("stuck task"),
        "{text}"
    );
    assert!(text.contains("seed 11"), "{text}");
}

/// Guards: time advances only if nothing else can happen, and in the order of the timers.
#[test]
fn time_advances_only_when_idle() {
    let Machine {
        executor,
        disk: _disk,
        env,
    } = machine(1);
    let clock = Arc::clone(&env.clock);
    let start = clock.monotonic();
    executor.block_on(async {
        let (long, short) = (
            clock.sleep(Duration::from_secs(60)),
            clock.sleep(Duration::from_secs(5)),
        );
        create(&env, "a").await;
        env.compute(|| ()).await.unwrap();
        assert_eq!(clock.monotonic(), start);
        short.await;
        assert_eq!(clock.monotonic(), start + Duration::from_secs(5));
        long.await;
        assert_eq!(clock.monotonic(), start + Duration::from_secs(60));
    });
}

/// Guards: tasks that a run leaves behind continue in the next run, and are dropped with the executor.
#[test]
fn remaining_tasks_continue_and_end_with_the_executor() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    let held = Arc::new(());
    let (owned, inner) = (Arc::clone(&held), env.clone());
    let task = async move {
        create(&inner, "a").await;
        create(&inner, "b").await;
        std::future::pending::<()>().await;
        drop(owned);
    };
    executor.block_on(async { env.spawn.spawn("left behind", Box::pin(task)) });
    executor.settle();
    assert_eq!(disk.live_image().files.len(), 2);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(executor);
    assert_eq!(Arc::strong_count(&held), 1);
}
