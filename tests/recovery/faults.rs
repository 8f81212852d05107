//! Failures of the disk: what each one may cost, and what it must not.
//!
//! A full disk or an error on data fails only that push. A failed sync of a shared file stops writes until the next
//! open. Neither loses anything acknowledged.

use std::path::Path;

use parking_lot::Mutex;
use std::sync::Arc;
use tonnage_engine::io::Env;
use tonnage_engine::{Algorithm, Batch, Change, Error, Options, Origin, Store, UploadSpec};
use tonnage_tests::machine::{EIO, ENOSPC, Fault, Image, Machine, Noise, OpKind, OpRecord, Policy};
use tonnage_tests::model::content;
use tonnage_tests::model::operation::Operation;
use tonnage_tests::whole_blobs::ByDigest as _;

use super::check;
use super::workload::{self, Progress, Script, manifest, push, tag, untag};

const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const REPOSITORY: &str = "library/a";

/// A store with one repository, and the record of what was acknowledged.
struct Scenario {
    store: Store,
    env: Env,
    script: Script,
    progress: Progress,
}

impl Scenario {
    async fn open(machine: &Machine) -> Self {
        let opened = Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
        Self {
            store: opened.expect("the store opens").0,
            env: machine.env.clone(),
            script: Script {
                repository: REPOSITORY,
                steps: Vec::new(),
            },
            progress: Progress::default(),
        }
    }

    /// Takes a step that must succeed.
    async fn succeed(&mut self, step: Operation) {
        let taken = self.attempt(step.clone()).await;
        taken.unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }

    /// Takes a step that leaves no effect if it fails.
    async fn attempt(&mut self, step: Operation) -> Result<(), Error> {
        self.script.take(&self.store, &self.env, &step).await?;
        self.script.steps.push(step);
        (self.progress.begun, self.progress.done) =
            (self.progress.begun + 1, self.progress.done + 1);
        Ok(())
    }

    /// Takes a step that must fail, but may have an effect after the next start.
    async fn lost(&mut self, step: Operation) -> Error {
        let taken = self.script.take(&self.store, &self.env, &step).await;
        self.script.steps.push(step);
        self.progress.begun += 1;
        taken.expect_err("the step fails")
    }

    /// Checks that everything acknowledged is present and readable.
    async fn check_acknowledged(&self) {
        let (scripts, progress) = (std::slice::from_ref(&self.script), [self.progress]);
        let held = check::contract(&self.store, scripts, &progress).await;
        held.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Checks that every image that the disk may have after a stop now recovers everything acknowledged.
    fn recovers(&self, machine: &Machine) {
        let seed = machine.executor.seed();
        let (scripts, progress) = (std::slice::from_ref(&self.script), [self.progress]);
        for crash in machine.disk.crash_images(&Policy::coarse(seed)) {
            check::recovered(seed, &crash.image, scripts, &progress)
                .unwrap_or_else(|why| panic!("image {:?}: {why}", crash.label));
        }
    }
}

fn machine(seed: u64) -> Machine {
    Machine::new(seed, &check::empty_disk())
}

/// Guards: a full disk fails the push that needs space, small or large, with `NoSpace`. Reads and deletes continue,
/// also when the journal needs a new file. The store accepts pushes again once there is space.
#[test]
fn a_full_disk_fails_that_push_alone() {
    for seed in 1..=3 {
        let machine = machine(seed);
        let scenario = machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            scenario.succeed(push(1)).await;
            scenario.succeed(push(7)).await;
            for number in 100..106 {
                scenario.succeed(manifest(number, &[1, 7], "latest")).await;
            }
            machine
                .disk
                .set_capacity(Some(machine.disk.used_bytes() + 5000));
            for number in [4, 9, 5, 8] {
                let failed = scenario.attempt(push(number)).await;
                assert!(matches!(failed, Err(Error::NoSpace { .. })), "{failed:?}");
                scenario.check_acknowledged().await;
            }
            // Frames of 4 KiB in files of 32 KiB: some of these need a new file, whose space comes from the reserve.
            for number in 100..106 {
                scenario.succeed(Operation::DeleteManifest(number)).await;
            }
            scenario.succeed(Operation::Unlink(7)).await;
            scenario.check_acknowledged().await;
            assert!(scenario.store.poisoned().is_none());
            machine.disk.set_capacity(None);
            for number in [4, 9, 5, 8] {
                scenario.succeed(push(number)).await;
            }
            scenario.check_acknowledged().await;
            scenario.store.close().await.expect("the store closes");
            scenario
        });
        scenario.recovers(&machine);
    }
}

/// Guards: without even the reserve, deletes fail with `NoSpace`, change nothing, and succeed once there is space.
#[test]
fn a_journal_without_space_rejects_until_there_is_some() {
    let machine = machine(1);
    let scenario = machine.executor.block_on(async {
        let mut scenario = Scenario::open(&machine).await;
        scenario.succeed(push(1)).await;
        scenario.succeed(manifest(100, &[1], "latest")).await;
        machine.disk.set_capacity(Some(machine.disk.used_bytes()));
        let mut taken = 0;
        let refused = loop {
            match scenario.attempt(tag("other", 100)).await {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
            assert!(taken < 100, "the disk is never full");
        };
        assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
        assert!(taken > 10, "the reserve allowed only {taken} steps");
        scenario.check_acknowledged().await;
        assert!(scenario.store.poisoned().is_none());
        machine.disk.set_capacity(None);
        scenario.succeed(untag("other")).await;
        scenario.succeed(push(9)).await;
        scenario.store.close().await.expect("the store closes");
        scenario
    });
    scenario.recovers(&machine);
}

/// Guards: a store opens on a full disk with the space of its reserve, because reads and deletes are needed then.
#[test]
fn a_store_opens_on_a_full_disk() {
    let first = machine(1);
    let mut scenario = first.executor.block_on(async {
        let mut scenario = Scenario::open(&first).await;
        scenario.succeed(push(9)).await;
        scenario.succeed(manifest(100, &[9], "latest")).await;
        scenario.store.close().await.expect("the store closes");
        scenario
    });
    let second = Machine::new(1, &first.disk.live_image());
    second.disk.set_capacity(Some(second.disk.used_bytes()));
    second.executor.block_on(async {
        scenario.store = Scenario::open(&second).await.store;
        scenario.check_acknowledged().await;
        scenario.succeed(Operation::DeleteManifest(100)).await;
        let failed = scenario.attempt(push(8)).await;
        assert!(matches!(failed, Err(Error::NoSpace { .. })), "{failed:?}");
        scenario.check_acknowledged().await;
    });
    scenario.recovers(&second);
}

/// Guards: an open without a descriptor for the reserve fails, instead of opening a store without one. A reserve of 0
/// bytes means none.
#[test]
fn the_reserve_is_created_unless_it_is_zero() {
    let machine = machine(1);
    let path = check::store_path();
    let open = |reserve_bytes| {
        let options = Options {
            reserve_bytes,
            ..check::options()
        };
        Store::open(machine.env.clone(), &path, options)
    };
    let has_reserve = || {
        let image = machine.disk.live_image();
        image.files.contains_key(&path.join("reserve"))
    };
    machine.executor.block_on(async {
        let create = Fault::nth(OpKind::Create, 1).on("reserve");
        machine.disk.add_fault(create.not_attempted());
        let refused = open(8192).await.map(drop);
        assert!(
            matches!(refused, Err(Error::NotAttempted { .. })),
            "{refused:?}"
        );
        for (bytes, made) in [(8192, true), (0, false)] {
            let (store, _) = open(bytes).await.expect("the store opens");
            assert_eq!(has_reserve(), made, "{bytes} bytes");
            store.close().await.expect("the store closes");
        }
    });
}

/// Guards: an error on data of a dedicated segment, in a write or its sync, fails only that upload, and no file of it
/// remains.
#[test]
fn an_error_on_a_large_push_fails_it_alone() {
    let faults = [
        Fault::nth(OpKind::Write, 1).on(".segment"),
        Fault::nth(OpKind::Write, 3).on(".segment"),
        Fault::nth(OpKind::SyncData, 1).on(".segment"),
        Fault::nth(OpKind::SyncData, 2).on(".segment"),
        Fault::nth(OpKind::SetLen, 1).on(".segment"),
        Fault::nth(OpKind::Create, 1).on(".segment"),
        Fault::nth(OpKind::Write, 2)
            .on(".segment")
            .with_errno(ENOSPC),
    ];
    for (seed, fault) in faults.into_iter().enumerate() {
        let machine = machine(seed as u64);
        let scenario = machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            scenario.succeed(push(1)).await;
            let struck = fault.kind != OpKind::SetLen;
            machine.disk.add_fault(fault.clone());
            let failed = scenario.attempt(push(9)).await;
            assert_eq!(failed.is_err(), struck, "{fault:?}: {failed:?}");
            machine.disk.clear_faults();
            assert!(scenario.store.poisoned().is_none(), "{fault:?}");
            scenario.succeed(push(2)).await;
            scenario.succeed(push(9)).await;
            scenario.check_acknowledged().await;
            scenario.store.close().await.expect("the store closes");
            scenario
        });
        scenario.recovers(&machine);
    }
}

/// Guards: an error on an upload log costs that upload its resumption after a restart, and nothing else.
#[test]
fn an_error_on_an_upload_log_costs_only_the_resumption() {
    for kind in [OpKind::Create, OpKind::Write, OpKind::SyncData] {
        for n in 1..=3 {
            let machine = machine(n);
            let scenario = machine.executor.block_on(async {
                let mut scenario = Scenario::open(&machine).await;
                machine.disk.add_fault(Fault::nth(kind, n).on(".upload"));
                scenario.succeed(push(9)).await;
                scenario.check_acknowledged().await;
                assert!(scenario.store.poisoned().is_none());
                scenario.store.close().await.expect("the store closes");
                scenario
            });
            scenario.recovers(&machine);
        }
    }
}

/// Guards: a failed sync of a shared file (shared segment, directory of segments, journal) or a failed journal write
/// stops all writes with `Poisoned`, also when the disk works again. Reads continue, and the next open has everything
/// acknowledged.
#[test]
fn a_failed_sync_of_what_is_shared_stops_writes_until_the_next_open() {
    // The file that receives frames. The next one may be in preparation, and its failure would cost nothing.
    let journal = "0001.journal";
    let there = [push(1), push(9), manifest(100, &[1, 9], "latest")];
    let segments = Fault::nth(OpKind::SyncDir, 1).on("segments");
    let faults: [(Fault, &[Operation], Operation); 5] = [
        (
            Fault::nth(OpKind::SyncData, 1).on(".segment"),
            &there,
            push(2),
        ),
        (Fault::nth(OpKind::SyncData, 1).on(journal), &there, push(2)),
        (Fault::nth(OpKind::Write, 1).on(journal), &there, push(2)),
        // The push creates a segment.
        (segments.clone(), &[], push(1)),
        (segments, &[], push(9)),
    ];
    for (seed, (fault, before, step)) in faults.into_iter().enumerate() {
        let machine = machine(seed as u64);
        let scenario = machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            for step in before {
                scenario.succeed(step.clone()).await;
            }
            machine.disk.add_fault(fault.clone());
            let error = scenario.lost(step).await;
            assert!(
                matches!(error, Error::Poisoned { .. }),
                "{fault:?}: {error}"
            );
            machine.disk.clear_faults();
            refuses_writes(&scenario).await;
            scenario.check_acknowledged().await;
            let closed = scenario.store.close().await;
            assert!(matches!(closed, Err(Error::Poisoned { .. })), "{closed:?}");
            scenario
        });
        scenario.recovers(&machine);
    }
}

/// Guards: a failed sync of a directory stops all writes and is not tried again: of `journal/` while the next file is
/// prepared, or of `runs/` or the store's directory by a checkpoint. Nothing acknowledged is lost.
#[test]
fn a_failed_sync_of_a_directory_stops_writes_until_the_next_open() {
    let faults = [
        Fault::nth(OpKind::SyncDir, 1).on("/journal"),
        Fault::nth(OpKind::SyncDir, 1).on("/runs"),
        Fault::nth(OpKind::SyncDir, 2),
    ];
    for (fault, seed) in faults
        .into_iter()
        .flat_map(|fault| [1, 2, 3].map(|seed| (fault.clone(), seed)))
    {
        let machine = machine(seed);
        let scenario = machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            scenario.succeed(push(1)).await;
            scenario.succeed(manifest(100, &[1], "latest")).await;
            machine.disk.add_fault(fault.clone());
            if fault.path != "/journal" {
                let written = scenario.store.checkpoint().await;
                assert!(
                    matches!(written, Err(Error::Poisoned { .. })),
                    "{fault:?}: {written:?}"
                );
            }
            // Enough of these need another journal file.
            for number in 0..40 {
                let taken = scenario.attempt(tag(["a", "b"][number % 2], 100)).await;
                if let Err(error) = taken {
                    assert!(
                        matches!(error, Error::Poisoned { .. }),
                        "{fault:?}: {error}"
                    );
                }
            }
            refuses_writes(&scenario).await;
            scenario.check_acknowledged().await;
            let closed = scenario.store.close().await;
            assert!(matches!(closed, Err(Error::Poisoned { .. })), "{closed:?}");
            scenario
        });
        scenario.recovers(&machine);
    }
}

/// Guards: an operation that was not attempted (no descriptor, no thread, no memory) fails only the request that needed
/// it, with an error that says so. The same request succeeds at once, writes continue, and nothing is lost.
#[test]
fn what_was_not_attempted_fails_that_request_alone() {
    let kinds = [
        OpKind::Write,
        OpKind::SyncData,
        OpKind::SyncDir,
        OpKind::Create,
        OpKind::Open,
        OpKind::Allocate,
        OpKind::SetLen,
        OpKind::Unlink,
        OpKind::Read,
    ];
    let mut refused = 0;
    for (kind, nth) in kinds
        .into_iter()
        .flat_map(|kind| [1, 2, 3, 5, 8].map(|nth| (kind, nth)))
    {
        let machine = machine(nth);
        let scenario = machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            machine
                .disk
                .add_fault(Fault::nth(kind, nth).not_attempted());
            let mut steps = vec![push(1), push(9), manifest(100, &[1, 9], "latest"), push(2)];
            // Enough for the journal to need another file.
            steps.extend((0..8).map(|number| tag(["a", "b"][number % 2], 100)));
            for step in steps {
                let taken = scenario.attempt(step.clone()).await;
                assert!(
                    scenario.store.poisoned().is_none(),
                    "{kind:?} {nth}: {taken:?}"
                );
                if let Err(error) = taken {
                    // A write of which a part was done before counts as attempted.
                    let in_part = kind == OpKind::Write && matches!(error, Error::Io { .. });
                    assert!(
                        in_part || matches!(error, Error::NotAttempted { .. }),
                        "{kind:?} {nth}: {error}"
                    );
                    refused += 1;
                    scenario.succeed(step).await;
                }
            }
            machine.disk.clear_faults();
            scenario.check_acknowledged().await;
            scenario.store.close().await.expect("the store closes");
            scenario
        });
        scenario.recovers(&machine);
    }
    assert!(refused > 8, "only {refused} requests were affected");
}

/// Guards: what a failed read says about the blob. One that was not attempted says nothing. One that the drive or the
/// permissions refuse counts as damage until a read of the same place succeeds; wrong bytes count until the whole blob
/// was read and is intact.
#[test]
fn a_failed_read_is_damage_by_its_cause() {
    let blobs = [1, 9];
    let opened = [EACCES, EIO].map(|errno| Fault::nth(OpKind::Open, 1).with_errno(errno));
    let read = [1, 2].map(|nth| Fault::nth(OpKind::Read, nth));
    let refused = opened.iter().chain(&read).cloned();
    let not_attempted = refused.clone().map(Fault::not_attempted);
    // The first read is of the segment's header, which no blob needs.
    let wrong = read.iter().skip(1).cloned().map(Fault::flipping);
    let cases = (not_attempted.map(|fault| (fault, false)))
        .chain(refused.chain(wrong).map(|fault| (fault, true)));
    for (number, (fault, damaged)) in blobs
        .into_iter()
        .flat_map(|number| cases.clone().map(move |case| (number, case)))
    {
        let first = machine(1);
        let mut scenario = first.executor.block_on(async {
            let mut scenario = Scenario::open(&first).await;
            scenario.succeed(push(number)).await;
            scenario.store.close().await.expect("the store closes");
            scenario
        });
        // With this seed, a bit that is flipped is one of the blob's.
        let second = Machine::new(1, &first.disk.live_image());
        // Nothing is resident, so every read asks the disk.
        second.disk.set_noise(Noise {
            would_block: 100,
            ..Noise::NONE
        });
        let case = format!("{fault:?} {number}");
        second.executor.block_on(async {
            scenario.store = Scenario::open(&second).await.store;
            second.disk.add_fault(fault.on(".segment"));
            let (scripts, progress) = (std::slice::from_ref(&scenario.script), [scenario.progress]);
            let met = check::contract(&scenario.store, scripts, &progress).await;
            assert!(met.is_err(), "{case}: nothing was read");
            let digest = content::digest(number);
            assert_eq!(
                scenario.store.is_damaged(&digest).await.unwrap(),
                damaged,
                "{case}"
            );
            scenario.check_acknowledged().await;
            assert!(!scenario.store.is_damaged(&digest).await.unwrap(), "{case}");
        });
    }
}

/// Guards: a frame whose sync failed, but which the next open finds, is made durable before anything is built on it.
/// The page cache may show what the drive does not have, so a power cut after that open must not lose it.
#[test]
fn a_frame_whose_sync_failed_is_durable_once_it_was_replayed() {
    for seed in 1..=4 {
        let first = machine(seed);
        let step = tag("other", 100);
        let mut scenario = first.executor.block_on(async {
            let mut scenario = Scenario::open(&first).await;
            scenario.succeed(push(1)).await;
            scenario.succeed(manifest(100, &[1], "latest")).await;
            // The step writes one frame and nothing else.
            first
                .disk
                .add_fault(Fault::nth(OpKind::SyncData, 1).on("0001.journal"));
            scenario.lost(step.clone()).await;
            let closed = scenario.store.close().await;
            assert!(matches!(closed, Err(Error::Poisoned { .. })), "{closed:?}");
            scenario
        });
        // The process ends, the page cache stays.
        let second = Machine::after_kill(seed, first.disk.killed());
        let scenario = second.executor.block_on(async {
            let next = Scenario::open(&second).await;
            (scenario.store, scenario.env) = (next.store, next.env);
            scenario.progress.done = scenario.progress.begun;
            scenario.check_acknowledged().await;
            scenario.succeed(push(2)).await;
            scenario
        });
        scenario.recovers(&second);
    }
}

/// Guards: the names of the directories above a new store are synced where possible. A directory that cannot be read or
/// synced is skipped, unless this process created a directory in it. A real error fails the open.
#[test]
fn directories_above_a_new_store_are_synced_where_possible() {
    let (absent, there) = ("/srv", "/srv/store");
    for (dirs, sync, errno, opens) in [
        (there, 1, EACCES, true),
        (there, 1, EINVAL, true),
        (there, 2, EINVAL, true),
        (there, 1, EIO, false),
        (absent, 1, EACCES, false),
        (absent, 2, EACCES, true),
    ] {
        let machine = Machine::new(1, &Image::with_dir(dirs));
        let fault = Fault::nth(OpKind::SyncDir, sync).with_errno(errno);
        machine.disk.add_fault(fault);
        let opened = machine.executor.block_on(Store::open(
            machine.env.clone(),
            &check::store_path(),
            check::options(),
        ));
        let case = format!("{dirs}, sync {sync}, code {errno}");
        assert_eq!(opened.is_ok(), opens, "{case}: {:?}", opened.err());
    }
}

/// Guards: a full copy-on-write file system has no space to rewrite the journal's last frame. A part of the reserve is
/// freed for it, and the store opens for pulls and deletes.
#[test]
fn a_store_opens_where_its_last_frame_cannot_be_written_again() {
    let first = machine(1);
    let mut scenario = first.executor.block_on(async {
        let mut scenario = Scenario::open(&first).await;
        scenario.succeed(push(1)).await;
        scenario.succeed(manifest(100, &[1], "latest")).await;
        scenario
    });
    let second = Machine::after_kill(1, first.disk.killed());
    let no_room = Fault::nth(OpKind::Write, 1).on("0001.journal");
    second.disk.add_fault(no_room.with_errno(ENOSPC));
    let scenario = second.executor.block_on(async {
        let next = Scenario::open(&second).await;
        (scenario.store, scenario.env) = (next.store, next.env);
        scenario.check_acknowledged().await;
        scenario.succeed(Operation::DeleteManifest(100)).await;
        scenario
    });
    let log = second.disk.log();
    let truncated_reserve =
        |op: &OpRecord| op.kind == OpKind::Unlink && op.path.ends_with("reserve");
    assert!(
        log.iter().any(truncated_reserve),
        "the reserve was not used"
    );
    scenario.recovers(&second);
}

/// Checks that every kind of write fails with `Poisoned`.
async fn refuses_writes(scenario: &Scenario) {
    let (store, script) = (&scenario.store, &scenario.script);
    let spec = UploadSpec {
        repository: REPOSITORY.to_owned(),
        ..UploadSpec::default()
    };
    let begun = store.begin_upload(spec).map(drop);
    let manifest = store
        .put_small(content::manifest(1), Algorithm::Sha256)
        .await;
    let tagged = script.take(store, &scenario.env, &tag("other", 100)).await;
    let untagged = script.take(store, &scenario.env, &untag("latest")).await;
    for answer in [begun, manifest.map(drop), tagged, untagged] {
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
    }
    assert!(store.poisoned().is_some());
}

/// Guards: a checkpoint that fails anywhere but at the sync of a directory leaves the store unchanged, and the next one
/// succeeds.
#[test]
fn a_failed_checkpoint_changes_nothing() {
    for kind in [
        OpKind::Create,
        OpKind::Write,
        OpKind::SyncData,
        OpKind::Read,
    ] {
        let machine = machine(1);
        let scenario = machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            scenario.succeed(push(1)).await;
            machine.disk.add_fault(Fault::nth(kind, 1).on(".run"));
            let failed = scenario.store.checkpoint().await;
            assert!(failed.is_err(), "{kind:?}");
            scenario.succeed(push(2)).await;
            scenario.check_acknowledged().await;
            scenario.succeed(Operation::Checkpoint).await;
            scenario.succeed(manifest(100, &[1, 2], "latest")).await;
            scenario.check_acknowledged().await;
            scenario.store.close().await.expect("the store closes");
            scenario
        });
        scenario.recovers(&machine);
    }
}

/// Guards: short reads and writes everywhere, with nothing resident, change only the duration.
#[test]
fn short_transfers_change_nothing() {
    for seed in 1..=2 {
        let scripts = workload::scripts();
        let machine = machine(seed);
        machine.disk.set_noise(Noise {
            short: 80,
            would_block: 95,
            stall: 10,
        });
        let progress = machine.executor.block_on(async {
            let opened =
                Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
            let (store, _) = opened.expect("a new store opens");
            let progress: Vec<_> = scripts
                .iter()
                .map(|_| Arc::new(Mutex::new(Progress::default())))
                .collect();
            let runs = scripts.iter().zip(&progress).map(|(script, progress)| {
                script.run(store.clone(), machine.env.clone(), Arc::clone(progress))
            });
            for ended in futures_util::future::join_all(runs).await {
                ended.expect("no step fails");
            }
            let progress: Vec<_> = progress.iter().map(|progress| *progress.lock()).collect();
            let held = check::contract(&store, &scripts, &progress).await;
            held.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            store.close().await.expect("the store closes");
            progress
        });
        let image = machine.disk.live_image();
        check::recovered(seed, &image, &scripts, &progress).unwrap();
    }
}

/// Guards: a blob whose segment file is missing never counts as stored. Once a read has noticed that, a push heals it.
#[test]
fn a_push_heals_a_blob_whose_segment_is_gone() {
    let machine = machine(1);
    let scenario = machine.executor.block_on(async {
        let mut scenario = Scenario::open(&machine).await;
        scenario.succeed(push(9)).await;
        scenario.store.close().await.expect("the store closes");
        scenario
    });
    let mut image = machine.disk.live_image();
    let is_segment = |path: &Path| path.extension().is_some_and(|kind| kind == "segment");
    image.files.retain(|path, _| !is_segment(path));
    let next = Machine::new(1, &image);
    next.executor.block_on(async {
        let store = Scenario::open(&next).await.store;
        assert!(store.open_blob(&content::digest(9)).await.is_err());
        assert!(store.is_damaged(&content::digest(9)).await.unwrap());
        let pushed = scenario.script.take(&store, &next.env, &push(9)).await;
        pushed.expect("the push heals it");
        assert!(!store.is_damaged(&content::digest(9)).await.unwrap());
        let (scripts, progress) = (std::slice::from_ref(&scenario.script), [scenario.progress]);
        check::contract(&store, scripts, &progress).await.unwrap();
        store.close().await.expect("the store closes");
    });
}

/// Guards: a journal file is sealed also if the first attempt was not made and the next transaction needs a new file.
/// Before anything in a later file is acknowledged, every file before it is sealed.
#[test]
fn every_finished_journal_file_is_sealed() {
    let mut rolled = 0;
    for nth in 1..=24 {
        let machine = machine(1);
        machine.disk.set_noise(Noise::NONE);
        machine.executor.block_on(async {
            let mut scenario = Scenario::open(&machine).await;
            scenario.succeed(push(1)).await;
            scenario.succeed(manifest(100, &[1], "latest")).await;
            let fault = Fault::nth(OpKind::Write, nth).on("0001.journal");
            machine.disk.add_fault(fault.not_attempted());
            let digest = content::manifest_digest(100);
            let tags = |count: usize| Batch {
                repository: REPOSITORY.to_owned(),
                create_repository: false,
                requires: vec![],
                staged: vec![],
                changes: (0..count)
                    .map(|number| Change::SetTag {
                        tag: format!("{number:0>120}"),
                        digest,
                    })
                    .collect(),
                origin: Origin::default(),
            };
            for _ in 0..16 {
                if scenario.store.commit(tags(1)).await.is_err() {
                    break;
                }
            }
            // More than any file has room for.
            let committed = scenario.store.commit(tags(150)).await;
            committed.expect("a transaction that needs its own file");
        });
        let image = machine.disk.live_image();
        let journals = image.files.iter().filter(|(path, _)| {
            let name = path.to_string_lossy();
            name.ends_with(".journal")
        });
        let journals: Vec<_> = journals.map(|(_, content)| content.to_vec()).collect();
        let with_frames = |bytes: &&Vec<u8>| bytes[12288..].starts_with(b"TFRM");
        let last = journals.iter().rposition(|bytes| with_frames(&bytes));
        let last = last.expect("there are frames");
        for (number, bytes) in journals[..last].iter().enumerate() {
            for mark in [4096, 8192] {
                let sealed = bytes[mark..].starts_with(b"TMRK") && bytes[mark + 4] & 1 == 1;
                assert!(sealed, "write {nth}: file {} is not sealed", number + 1);
            }
        }
        rolled += last;
    }
    assert!(rolled > 24, "only {rolled} files were finished");
}
