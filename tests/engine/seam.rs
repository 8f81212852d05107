//! The contract of `Io`, checked on all backends: threads and `io_uring` on a real file system, and the simulated disk,
//! whose results would be worthless if it behaved differently.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use tonnage_engine::io::Buffer;
use tonnage_engine::io::threads::Threads;
use tonnage_engine::io::{Call, Class, FileRef, Io, LockAttempt, OpenMode, Residency, exact};
use tonnage_tests::machine::{Image, Machine, Noise};
use tonnage_tests::{say, uring};

/// The call for tests that do not depend on the class.
const CALL: Call = Class::Background.call();

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Runs a test on each backend for real disks. The argument starts one more of the same kind.
fn on_real_disks(test: impl AsyncFn(&dyn Fn() -> Box<dyn Io>, &Path)) {
    let directory = TempDir::new().unwrap();
    let threads = || -> Box<dyn Io> { Box::new(Threads::start().unwrap()) };
    run(test(&threads, directory.path()));
    if uring::works() {
        let directory = TempDir::new().unwrap();
        let rings = || -> Box<dyn Io> { Box::new(uring::start().unwrap()) };
        run(test(&rings, directory.path()));
    }
}

/// Runs a test on each backend, in an empty directory.
fn on_all(test: impl AsyncFn(&dyn Io, &Path)) {
    on_real_disks(async |start, directory| test(&*start(), directory).await);
    let machine = Machine::new(1, &Image::with_dir("/store"));
    machine.disk.set_noise(Noise::NONE);
    machine
        .executor
        .block_on(test(&machine.disk, Path::new("/store")));
}

async fn create(io: &dyn Io, path: &Path, content: &[u8]) -> FileRef {
    let file = io.open(CALL, path, OpenMode::CreateNew).await.unwrap();
    exact::write_all(&*file, CALL, 0, vec![Bytes::copy_from_slice(content)])
        .await
        .unwrap();
    file
}

async fn read(file: &FileRef, offset: u64, count: usize) -> Vec<u8> {
    let buffer = exact::read_up_to(&**file, CALL, offset, Buffer::unpooled(count))
        .await
        .unwrap();
    buffer.filled().to_vec()
}

/// Guards: each open mode reports why it failed, with the operating system's error code.
#[test]
fn opening_reports_missing_and_existing_names() {
    on_all(async |io, directory| {
        let path = directory.join("a");
        for mode in [OpenMode::Read, OpenMode::ReadRandom, OpenMode::Write] {
            let missing = io.open(CALL, &path, mode).await.unwrap_err();
            assert_eq!(
                (missing.kind(), missing.cause().raw_os_error()),
                (ErrorKind::NotFound, Some(2))
            );
        }
        io.open(CALL, &path, OpenMode::CreateNew).await.unwrap();
        let taken = io.open(CALL, &path, OpenMode::CreateNew).await.unwrap_err();
        assert_eq!(
            (taken.kind(), taken.cause().raw_os_error()),
            (ErrorKind::AlreadyExists, Some(17))
        );
        let inner = directory.join("d");
        io.create_dir(CALL, &inner).await.unwrap();
        let taken = io.create_dir(CALL, &inner).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        let orphan = io
            .create_dir(CALL, &directory.join("x/y"))
            .await
            .unwrap_err();
        assert_eq!(orphan.kind(), ErrorKind::NotFound);
        let mut names = io.list_dir(CALL, directory).await.unwrap();
        names.sort();
        assert_eq!(names, ["a", "d"]);
        exact::sync_dir(io, CALL, directory).await.unwrap();
    });
}

/// Guards: every file of a directory is listed once with its size, however many there are, and directories are not.
#[test]
fn files_are_listed_with_their_sizes() {
    on_all(async |io, directory| {
        let name = |number: usize| format!("{number:04}");
        for number in 0..2100 {
            let path = directory.join(name(number));
            create(io, &path, &vec![0; number % 3]).await;
        }
        io.create_dir(CALL, &directory.join("d")).await.unwrap();
        let mut found = io.list_files(CALL, directory).await.unwrap();
        found.sort();
        let expected = (0..2100).map(|number| (name(number), number as u64 % 3));
        assert!(found.into_iter().eq(expected));
    });
}

/// Guards: reads past the page cache return what other reads do, also at the end of a file. They leave in the page
/// cache what is there, and add nothing.
#[test]
fn uncached_reads_leave_the_page_cache_as_it_is() {
    on_all(async |io, directory| {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = content.len().next_multiple_of(4096);
        for kept in [true, false] {
            let path = directory.join(if kept { "kept" } else { "dropped" });
            let written = create(io, &path, &content).await;
            written.sync_data(CALL).await.unwrap();
            if !kept {
                let dropped = written.advise(CALL, 0, whole as u64, Residency::Done);
                dropped.await.unwrap();
            }
            let file = io.open(CALL, &path, OpenMode::ReadUncached).await.unwrap();
            for _ in 0..2 {
                let buffer = Buffer::unpooled(whole);
                let read = exact::read_at_least(&*file, CALL, 0, buffer, content.len()).await;
                assert_eq!(read.unwrap().filled(), content);
            }
            // Asked once, because a question starts read-ahead. The simulated disk has no page cache.
            let mut buffer = Buffer::unpooled(4096);
            let found = written.read_cached(CALL, 400_000 / 4096 * 4096, &mut buffer);
            assert_eq!(found.is_ok(), kept || io.backend() == "simulated");
        }
    });
}

/// Guards: a file opened for reading rejects writes.
#[test]
fn a_file_opened_for_reading_refuses_writes() {
    on_all(async |io, directory| {
        let path = directory.join("a");
        create(io, &path, b"abc").await;
        for mode in [OpenMode::Read, OpenMode::ReadRandom] {
            let file = io.open(CALL, &path, mode).await.unwrap();
            let refused = file
                .write_at(CALL, 0, vec![Bytes::from_static(b"x")])
                .await
                .unwrap_err();
            assert_eq!(refused.cause().raw_os_error(), Some(9));
            assert_eq!(read(&file, 0, 3).await, b"abc");
        }
    });
}

/// Guards: a read across the end of the file is short, and a read after it returns nothing; also by the handle whose
/// reads leave nothing in the page cache, once the other one is gone.
#[test]
fn reads_at_the_end_of_a_file_are_short() {
    on_all(async |io, directory| {
        let file = create(io, &directory.join("a"), b"0123456789").await;
        let dontcache = file.dontcache();
        for file in std::iter::once(file).chain(dontcache) {
            let (buffer, count) = file.read_at(CALL, 6, Buffer::unpooled(100)).await.unwrap();
            assert_eq!((buffer.filled(), count), (&b"6789"[..], 4));
            let (buffer, count) = file.read_at(CALL, 10, buffer).await.unwrap();
            assert_eq!((buffer.len(), count), (4, 0));
            let early = exact::read_exact(&*file, CALL, 6, Buffer::unpooled(5))
                .await
                .unwrap_err();
            assert_eq!(early.kind(), ErrorKind::UnexpectedEof);
            assert_eq!(file.len(CALL).await.unwrap(), 10);
            drop(file);
            io.closed().await;
        }
    });
}

/// Guards: data just written is read from memory (or the file system reports that it cannot tell), appended to what the
/// buffer has.
#[test]
fn what_was_just_written_is_read_from_memory() {
    on_real_disks(async |start, directory| {
        let io = start();
        let file = create(&*io, &directory.join("a"), &[7; 100_000]).await;
        let mut buffer = Buffer::unpooled(1000);
        buffer.free_mut()[..4].copy_from_slice(b"head");
        buffer.advance(4);
        match file.read_cached(CALL, 500, &mut buffer) {
            Ok(count) => {
                assert!(count > 0 && count <= 996);
                assert_eq!(buffer.len(), 4 + count);
                assert_eq!(&buffer.filled()[..4], b"head");
                assert!(buffer.filled()[4..].iter().all(|byte| *byte == 7));
                assert_eq!(
                    file.read_cached(CALL, 100_000, &mut Buffer::unpooled(1))
                        .unwrap(),
                    0
                );
            }
            Err(refused) => {
                assert_eq!(refused.kind(), ErrorKind::WouldBlock);
                say::skipped("cached reads", "this file system has no RWF_NOWAIT");
            }
        }
    });
}

/// Guards: more slices than one system call takes (1024) are written in order, and none is lost.
#[test]
fn many_slices_are_written_in_order() {
    on_all(async |io, directory| {
        let path = directory.join("a");
        let file = io.open(CALL, &path, OpenMode::CreateNew).await.unwrap();
        let slices: Vec<Bytes> = (0..3000u32)
            .map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
            .collect();
        let first = file.write_at(CALL, 0, slices.clone()).await.unwrap();
        assert_eq!(first, 1024 * 4);
        exact::write_all(&*file, CALL, 5, slices.clone())
            .await
            .unwrap();
        file.sync_data(CALL).await.unwrap();
        assert_eq!(read(&file, 5, 20_000).await, slices.concat());
    });
}

/// Guards: a held lock is refused with its holder's pid, wherever its directory was moved, and is free again once the
/// guard is dropped.
#[test]
fn a_taken_lock_names_its_holder() {
    on_real_disks(async |start, directory| {
        let io = start();
        let (path, moved) = (directory.join("a"), directory.join("b"));
        std::fs::create_dir(&path).unwrap();
        let LockAttempt::Held(guard) = io.lock(CALL, &path).await.unwrap() else {
            panic!("the lock is not free");
        };
        assert_eq!(
            std::fs::read_dir(&path).unwrap().count(),
            0,
            "nothing is written"
        );
        std::fs::rename(&path, &moved).unwrap();
        // flock belongs to the open file, so a second open in one process acts like another process.
        let other = start();
        let LockAttempt::Taken(holder) = other.lock(CALL, &moved).await.unwrap() else {
            panic!("the lock was taken twice");
        };
        assert_eq!(holder, Some(std::process::id()));
        drop(guard);
        let free = other.lock(CALL, &moved).await.unwrap();
        assert!(matches!(free, LockAttempt::Held(_)));
    });
}

/// Guards: while a directory is locked, its files are reached through it and not by its name, which may lead to another
/// directory by now. Afterwards they are reached by name again.
#[test]
fn a_locked_directory_is_not_mistaken_for_its_successor() {
    on_real_disks(async |start, directory| {
        let io = start();
        let (path, moved) = (directory.join("a"), directory.join("b"));
        std::fs::create_dir(&path).unwrap();
        let LockAttempt::Held(guard) = io.lock(CALL, &path).await.unwrap() else {
            panic!("the lock is not free");
        };
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        create(&*io, &path.join("file"), b"abc").await;
        io.create_dir(CALL, &path.join("inner")).await.unwrap();
        exact::sync_dir(&*io, CALL, &path).await.unwrap();
        assert!(moved.join("file").exists() && moved.join("inner").is_dir());
        assert_eq!(io.list_dir(CALL, &path).await.unwrap().len(), 2);
        io.unlink(CALL, &path.join("file")).await.unwrap();
        drop(guard);
        assert_eq!(io.list_dir(CALL, &path).await.unwrap(), [""; 0]);
    });
}

/// Guards: a FIFO, a socket or a directory in place of a file is an error at once; the open does not wait for a writer.
#[test]
fn only_regular_files_are_opened() {
    on_real_disks(async |start, directory| {
        let io = start();
        let [fifo, socket, inner] = ["fifo", "socket", "inner"].map(|name| directory.join(name));
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::create_dir(&inner).unwrap();
        for path in [&fifo, &socket, &inner] {
            for mode in [OpenMode::Read, OpenMode::ReadRandom, OpenMode::Write] {
                io.open(CALL, path, mode).await.unwrap_err();
            }
        }
    });
}

/// Guards: a lock is refused while another process holds it.
#[test]
fn a_lock_of_another_process_is_respected() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    if let Ok(path) = std::env::var("TONNAGE_TEST_LOCK_CHILD") {
        let attempt = run(Threads::start().unwrap().lock(CALL, Path::new(&path))).unwrap();
        assert!(matches!(attempt, LockAttempt::Held(_)));
        std::io::stdout().write_all(b"\nlocked\n").unwrap();
        std::io::stdin().lines().next();
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "seam::a_lock_of_another_process_is_respected",
            "--nocapture",
        ])
        .env("TONNAGE_TEST_LOCK_CHILD", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line == "locked"),
        "the child took the lock"
    );
    let LockAttempt::Taken(holder) = run(Threads::start().unwrap().lock(CALL, path)).unwrap()
    else {
        panic!("the lock was taken twice");
    };
    assert_eq!(holder, Some(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(
        run(Threads::start().unwrap().lock(CALL, path)).unwrap(),
        LockAttempt::Held(_)
    ));
}

/// Guards: allocated space counts as part of the size and reads as zeros; `set_len` cuts it off.
#[test]
fn allocated_space_reads_as_zeros() {
    on_all(async |io, directory| {
        let file = create(io, &directory.join("a"), b"abc").await;
        file.allocate(CALL, 0, 100_000).await.unwrap();
        assert_eq!(file.len(CALL).await.unwrap(), 100_000);
        let content = read(&file, 0, 200_000).await;
        assert_eq!(content.len(), 100_000);
        assert_eq!(&content[..3], b"abc");
        assert!(content[3..].iter().all(|byte| *byte == 0));
        file.set_len(CALL, 2).await.unwrap();
        file.write_back(CALL, 0, 2).await.unwrap();
        assert_eq!(read(&file, 0, 10).await, b"ab");
    });
}

/// Guards: an open file stays readable after its name is removed.
#[test]
fn unlink_keeps_open_files_readable() {
    on_all(async |io, directory| {
        let path = directory.join("a");
        let file = create(io, &path, b"still here").await;
        io.unlink(CALL, &path).await.unwrap();
        assert_eq!(
            io.unlink(CALL, &path).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert!(io.list_dir(CALL, directory).await.unwrap().is_empty());
        assert_eq!(read(&file, 0, 100).await, b"still here");
    });
}

/// Guards: files stay usable after their backend is dropped.
#[test]
fn files_outlive_the_backend() {
    on_real_disks(async |start, directory| {
        let io = start();
        let file = create(&*io, &directory.join("a"), b"abc").await;
        let space = io.space(CALL, directory).await.unwrap();
        assert!(space.available_bytes <= space.total_bytes && space.total_bytes > 0);
        drop(io);
        file.sync_data(CALL).await.unwrap();
        assert_eq!(read(&file, 0, 3).await, b"abc");
    });
}
