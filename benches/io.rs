//! Compares what may read and write files: threads, rings, and rings of `tokio-uring`.
//!
//! A cell is a kind of operation, its length and the number in flight. Rounds of a cell take the backends in turn, so
//! that what else runs on the machine meets all of them; criterion gets these times. Each cell prints a row of
//! medians. `TONNAGE_BENCH_DIR` is a directory on the disk to measure, `TONNAGE_BENCH_ROUNDS` the number of rounds (7).

use std::cell::RefCell;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tokio_uring::buf::BoundedBuf as _;
use tonnage_engine::io::threads::Threads;
use tonnage_engine::io::uring::{Table, Uring};
use tonnage_engine::io::{Buffer, Class, FileRef, Io, OpenMode, Residency};

const FILE_BYTES: usize = 512 << 20;
const LENGTHS: [(usize, usize, &str); 4] = [
    (4 << 10, 2048, "4 KiB"),
    (64 << 10, 1024, "64 KiB"),
    (1 << 20, 128, "1 MiB"),
    (8 << 20, 64, "8 MiB"),
];
const IN_FLIGHT: [usize; 3] = [1, 8, 64];
const BACKENDS: [&str; 3] = ["threads", "rings", "tokio-uring"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hot,
    Cold,
    Direct,
    /// Writes of new bytes at growing offsets, and a sync at the end.
    Write,
}

/// A request to a thread with a ring of `tokio-uring`: whether direct, offset, bytes to write or a length to read.
type Request = (Kind, usize, Result<Vec<u8>, usize>, oneshot::Sender<usize>);

/// One file behind each backend.
struct Bench {
    path: PathBuf,
    files: [[FileRef; 3]; 2],
    others: Vec<mpsc::UnboundedSender<Request>>,
    next: AtomicUsize,
}

impl Bench {
    async fn new(path: &Path) -> Self {
        let threads = Threads::start().expect("threads");
        let rings = Uring::start(&threads, Table::All).expect("io_uring");
        let backends: [Arc<dyn Io>; 2] = [Arc::new(threads), Arc::new(rings)];
        let mut files = Vec::new();
        for io in backends {
            let mut modes = Vec::new();
            for mode in [OpenMode::Read, OpenMode::ReadUncached, OpenMode::Write] {
                let file = io.open(Class::ForegroundRead.call(), path, mode).await;
                modes.push(file.expect("the file"));
            }
            files.push(modes.try_into().expect("three"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            path: path.to_owned(),
            files: files.try_into().expect("two"),
            others: (0..cores.min(4)).map(|_| other(path)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    async fn one(&self, backend: usize, kind: Kind, offset: usize, length: usize) {
        let Some(files) = self.files.get(backend) else {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.others.len();
            let (reply, done) = oneshot::channel();
            let what = if kind == Kind::Write {
                Ok(vec![1; length])
            } else {
                Err(length)
            };
            self.others[turn]
                .send((kind, offset, what, reply))
                .expect("a thread");
            assert_eq!(done.await.expect("a thread"), length);
            return;
        };
        let [cached, direct, written] = files;
        if kind == Kind::Write {
            let slices = vec![Bytes::from(vec![1; length])];
            let done = written.write_at(Class::UploadWrite.call(), offset as u64, slices);
            assert_eq!(done.await.expect("written"), length);
            return;
        }
        let file = if kind == Kind::Direct { direct } else { cached };
        let (mut at, mut buffer) = (offset as u64, Buffer::unpooled(length));
        while buffer.room() > 0 {
            let read = file.read_at(Class::ForegroundRead.call(), at, buffer).await;
            let count;
            (buffer, count) = read.expect("read");
            at += count as u64;
        }
    }

    /// Does all operations of a round, so many at a time. Returns the time, and that of the processors.
    async fn round(self: &Arc<Self>, backend: usize, cell: Cell, round: usize) -> [Duration; 2] {
        let [cached, ..] = &self.files[0];
        if cell.kind == Kind::Cold || cell.kind == Kind::Direct {
            let all = cached.advise(
                Class::Background.call(),
                0,
                FILE_BYTES as u64,
                Residency::Done,
            );
            all.await.expect("advice");
        } else if cell.kind == Kind::Hot && round == 0 {
            let mut file = std::fs::File::open(&self.path).expect("the file");
            std::io::copy(&mut file, &mut std::io::sink()).expect("read");
        }
        let places = FILE_BYTES / cell.length;
        let (began, worked) = (Instant::now(), processors());
        let next = Arc::new(AtomicUsize::new(0));
        let tasks = (0..cell.in_flight).map(|_| {
            let (bench, next) = (Arc::clone(self), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cell.count {
                        return;
                    }
                    // An odd factor visits every place once, and not in the order that read-ahead expects.
                    let place = match cell.kind {
                        Kind::Write => number,
                        _ => (number + round * 31) * 40_503 % places,
                    };
                    let offset = place % places * cell.length;
                    bench.one(backend, cell.kind, offset, cell.length).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("a task");
        }
        if cell.kind == Kind::Write {
            let [_, _, written] = &self.files[backend.min(1)];
            let synced = written.sync_data(Class::UploadWrite.call());
            synced.await.expect("synced");
        }
        [began.elapsed(), processors() - worked]
    }
}

/// Starts a thread with a ring of `tokio-uring` and the file.
fn other(path: &Path) -> mpsc::UnboundedSender<Request> {
    let (sender, mut requests) = mpsc::unbounded_channel::<Request>();
    let mut options = std::fs::File::options();
    options.read(true).write(true);
    let cached = options.open(path).expect("the file");
    options.custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("a flag"));
    let direct = options.open(path).expect("the file");
    std::thread::spawn(move || {
        tokio_uring::start(async move {
            let [cached, direct] = [cached, direct]
                .map(tokio_uring::fs::File::from_std)
                .map(Rc::new);
            while let Some((kind, offset, what, reply)) = requests.recv().await {
                let file = Rc::clone(if kind == Kind::Direct {
                    &direct
                } else {
                    &cached
                });
                tokio_uring::spawn(async move {
                    let mut at = offset as u64;
                    let count = match what {
                        Ok(bytes) => file.write_at(bytes, at).submit().await.0.expect("written"),
                        Err(length) => {
                            let memory = vec![0_u8; length + 4096];
                            let start = memory.as_ptr().align_offset(4096);
                            let (mut memory, mut done) = (memory, 0);
                            while done < length {
                                let free = memory.slice(start + done..start + length);
                                let (read, back) = file.read_at(free, at).await;
                                memory = back.into_inner();
                                done += read.expect("read");
                                at = (offset + done) as u64;
                            }
                            done
                        }
                    };
                    reply.send(count).unwrap_or_default();
                });
            }
        });
    });
    sender
}

fn processors() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime)
        .try_into()
        .expect("a time")
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    kind: Kind,
    length: usize,
    count: usize,
    in_flight: usize,
}

fn cells() -> impl Iterator<Item = (Cell, &'static str)> {
    let kinds = [Kind::Cold, Kind::Hot, Kind::Direct, Kind::Write];
    let all = kinds
        .into_iter()
        .flat_map(|kind| LENGTHS.map(|length| (kind, length)));
    let all = all.filter(|(kind, (length, ..))| *kind != Kind::Write || *length == 1 << 20);
    all.flat_map(|(kind, (length, count, name))| {
        IN_FLIGHT.map(|in_flight| {
            (
                Cell {
                    kind,
                    length,
                    count,
                    in_flight,
                },
                name,
            )
        })
    })
}

fn bench(criterion: &mut Criterion) {
    let parent =
        std::env::var_os("TONNAGE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent).expect("a directory for the bench");
    let path = directory.path().join("file");
    let file = std::fs::File::create(&path).expect("a file");
    for part in 0..FILE_BYTES >> 20 {
        let byte = u8::try_from(part % 251).expect("a byte");
        file.write_all_at(&vec![byte; 1 << 20], (part << 20) as u64)
            .expect("written");
    }
    file.sync_all().expect("synced");
    let rounds = std::env::var("TONNAGE_BENCH_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let rounds: usize = rounds.unwrap_or(7);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bench = Arc::new(runtime.block_on(Bench::new(&path)));
    println!(
        "| operations | length | in flight | threads, MiB/s | rings | tokio-uring | CPU, s/GiB: threads | rings | tokio-uring |"
    );
    for (cell, name) in cells() {
        let mut times = [const { Vec::new() }; BACKENDS.len()];
        for round in 0..rounds {
            for turn in 0..BACKENDS.len() {
                let backend = (turn + round) % BACKENDS.len();
                times[backend].push(runtime.block_on(bench.round(backend, cell, round)));
            }
        }
        let bytes = (cell.length * cell.count) as f64;
        let median = |which: usize, times: &Vec<[Duration; 2]>| {
            let mut times: Vec<f64> = times.iter().map(|time| time[which].as_secs_f64()).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let rates = times
            .iter()
            .map(|times| format!("{:.0}", bytes / median(0, times) / (1 << 20) as f64));
        let costs = times
            .iter()
            .map(|times| format!("{:.2}", median(1, times) / bytes * (1 << 30) as f64));
        let columns: Vec<String> = rates.chain(costs).collect();
        println!(
            "| {:?} | {name} | {} | {} |",
            cell.kind,
            cell.in_flight,
            columns.join(" | ")
        );
        let mut group = criterion.benchmark_group(format!("{:?} {name}", cell.kind));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        let little = Duration::from_millis(1);
        group.warm_up_time(little).measurement_time(little);
        group.throughput(Throughput::Bytes(bytes as u64));
        for (backend, times) in BACKENDS.iter().zip(&times) {
            let samples = RefCell::new(times.iter().cycle());
            group.bench_function(BenchmarkId::new(*backend, cell.in_flight), |bencher| {
                // What was measured above; criterion asks for it times a number of iterations.
                bencher.iter_custom(|count| {
                    let [time, _] = samples.borrow_mut().next().expect("a round");
                    time.mul_f64(count as f64)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
