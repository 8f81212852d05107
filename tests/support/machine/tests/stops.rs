//! Stops: at the chosen point, with the same history each time, and no effects afterwards.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;

/// Runs a workload of some tasks with all kinds of operations. Returns how it ended.
fn workload(machine: &Machine) -> Outcome<Vec<u8>> {
    let order = Arc::new(Mutex::new(Vec::new()));
    machine.executor.run_until_crash(async {
        let mut ends = Vec::new();
        for number in 0..4u8 {
            let (env, order) = (machine.env.clone(), Arc::clone(&order));
            let (done, end) = tokio::sync::oneshot::channel();
            let task = async move {
                let file = create(&env, &format!("f{number}")).await;
                env.clock
                    .sleep(Duration::from_millis(u64::from(number % 2)))
                    .await;
                let bytes = env.compute(move || vec![number; 3000]).await.unwrap();
                write(&file, 0, &bytes).await;
                file.sync_data(CALL).await.unwrap();
                exact::sync_dir(&*env.io, CALL, Path::new(DIR))
                    .await
                    .unwrap();
                order.lock().push(number);
                done.send(()).unwrap();
            };
            machine.env.spawn.spawn("writer", Box::pin(task));
            ends.push(end);
        }
        for end in ends {
            end.await.unwrap();
        }
        std::mem::take(&mut *order.lock())
    })
}

/// Guards: everything follows from the seed, and other seeds give other histories.
#[test]
fn equal_seeds_give_equal_histories() {
    let run = |seed| {
        let machine = Machine::new(seed, &Image::with_dir(DIR));
        let outcome = workload(&machine);
        let images: Vec<u64> = (machine.disk.crash_images(&Policy::coarse(seed)).iter())
            .map(|crash| crash.image.stable_hash())
            .collect();
        (machine.disk.log_text(), outcome, images)
    };
    assert_eq!(run(7), run(7));
    let orders: BTreeSet<String> = (0..10).map(|seed| run(seed).0).collect();
    assert_eq!(orders.len(), 10);
}

/// Guards: the machine stops after exactly the chosen number of crash points, for every such number, and an
/// acknowledgement given before the stop is durable afterwards.
#[test]
fn the_machine_stops_after_each_crash_point() {
    let whole = machine(3);
    assert!(matches!(workload(&whole), Outcome::Finished(order) if order.len() == 4));
    let points = whole.disk.points();
    assert_eq!(points, 4 * 4);
    for stop in 0..points {
        let machine = machine(3);
        machine.disk.stop_after(stop);
        assert_eq!(workload(&machine), Outcome::Crashed);
        assert_eq!(machine.disk.points(), stop);
        let log: Vec<OpRecord> = machine.disk.log();
        assert_eq!(
            log[..],
            whole.disk.log()[..log.len()],
            "the history up to the stop is the same"
        );
        for CrashImage { label, image, .. } in machine.disk.crash_images(&Policy::coarse(stop)) {
            let again = Machine::new(stop, &image);
            let names = again
                .executor
                .block_on(again.env.io.list_dir(CALL, Path::new(DIR)))
                .unwrap();
            assert_eq!(names.len(), image.files.len(), "{label}");
        }
    }
}

/// Guards: after the stop no operation resolves and no task continues.
#[test]
fn nothing_happens_after_the_stop() {
    let Machine {
        executor,
        disk,
        env,
    } = machine(1);
    let reached = Arc::new(Mutex::new(0));
    let told = Arc::clone(&reached);
    disk.stop_after(1);
    let outcome = executor.run_until_crash(async {
        let file = create(&env, "a").await;
        *told.lock() += 1;
        file.write_at(CALL, 0, vec![Bytes::from_static(b"x")])
            .await
            .unwrap();
        *told.lock() += 1;
    });
    assert_eq!((outcome, *reached.lock()), (Outcome::Crashed, 1));
    assert_eq!(content(&disk.live_image(), "a").unwrap(), b"");
    let after = executor.run_until_crash(async { env.io.list_dir(CALL, Path::new(DIR)).await });
    assert!(matches!(after, Outcome::Crashed));
}
