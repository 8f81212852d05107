//! Compares `tonnage` and Debian's `docker-registry` on loopback and the same disk, in interleaved rounds, with the
//! limits of the machine in the same run.
//!
//! Owns: the options, the order of the rounds. Refuses: figures of one registry alone, which cannot be compared.

mod limits;
mod measure;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::measure::{Blob, Interval};
use crate::report::{DOCKER_SYNCED, LIMIT, Samples};
use tonnage_benches::rival::{Kind, Rival};

/// Measures tonnage and docker-registry side by side. The table goes to stdout, everything else to stderr.
#[derive(Debug, Parser)]
struct Options {
    /// The tonnage program; built by cargo when not given.
    #[arg(long, value_name = "PATH")]
    tonnage: Option<PathBuf>,
    /// The docker-registry program.
    #[arg(long, value_name = "PATH")]
    registry: Option<PathBuf>,
    /// Folder on the disk to measure; a temporary folder is made in it.
    #[arg(long, value_name = "DIR", default_value = "target")]
    folder: PathBuf,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Size of the large blob in MiB.
    #[arg(long, default_value_t = 2048)]
    blob_mib: usize,
    /// Pushes of 1 KiB blobs a round.
    #[arg(long, default_value_t = 400)]
    small_pushes: usize,
    /// GETs of 4 KiB blobs a round, and as many of manifests.
    #[arg(long, default_value_t = 8000)]
    gets: usize,
    /// Connections for pushes of small blobs and for GETs.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Also write everything as JSON into this file (`-`: to stdout, instead of the table).
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("compare: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let programs = [
        options
            .tonnage
            .clone()
            .map_or_else(tonnage_benches::rival::find_tonnage, Ok)?,
        options
            .registry
            .clone()
            .map_or_else(tonnage_benches::rival::find_registry, Ok)?,
    ];
    std::fs::create_dir_all(&options.folder)
        .map_err(|e| format!("create {}: {e}", options.folder.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("compare")
        .tempdir_in(&options.folder);
    let folder =
        folder.map_err(|e| format!("make a folder in {}: {e}", options.folder.display()))?;
    let machine = report::machine(
        folder.path(),
        limits::flush_millis(&folder.path().join("f"))?,
    );
    let mut samples = Samples::default();
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        let round = Round {
            options,
            number: round,
            folder: &folder.path().join("round"),
        };
        round.measure(&programs, &runtime, &mut samples)?;
        std::fs::remove_dir_all(round.folder).map_err(|e| format!("remove a round: {e}"))?;
    }
    let versions: Vec<_> = Kind::BOTH
        .iter()
        .zip(&programs)
        .map(|(kind, path)| kind.version(path))
        .collect();
    let whole = serde_json::json!({
        "version": 1, "machine": machine, "programs": versions, "measurements": samples.json(),
        "rounds": options.rounds, "blob_mib": options.blob_mib, "small_pushes": options.small_pushes,
        "gets": options.gets, "concurrency": options.concurrency,
    });
    print(options, &whole, &samples)
}

fn print(options: &Options, whole: &serde_json::Value, samples: &Samples) -> Result<(), String> {
    let text = serde_json::to_string_pretty(whole).map_err(|e| format!("write JSON: {e}"))?;
    match &options.json {
        Some(path) if path == Path::new("-") => {
            println!("{text}");
            return Ok(());
        }
        Some(path) => {
            std::fs::write(path, &text).map_err(|e| format!("write {}: {e}", path.display()))?;
        }
        None => {}
    }
    println!("{:#}\n{:#}\n", whole["programs"], whole["machine"]);
    println!(
        "{} rounds, medians; large blob {} MiB",
        options.rounds, options.blob_mib
    );
    println!("{}", samples.table());
    println!(
        "x docker: tonnage to docker-registry (with its files synced, where that was measured);"
    );
    println!("for CPU and memory less than 1 is better, for the rest more than 1");
    Ok(())
}

/// One round: both registries on new folders, with each measurement of one directly after that of the other.
struct Round<'a> {
    options: &'a Options,
    number: usize,
    folder: &'a Path,
}

impl Round<'_> {
    fn measure(
        &self,
        programs: &[PathBuf; 2],
        runtime: &tokio::runtime::Runtime,
        samples: &mut Samples,
    ) -> Result<(), String> {
        let mut rivals = Vec::new();
        for (kind, program) in Kind::BOTH.into_iter().zip(programs) {
            rivals.push(Rival::start(kind, program, &self.folder.join(kind.name()))?);
        }
        // The first registry alternates, because the second finds the drive as the first left it.
        if self.number % 2 == 1 {
            rivals.reverse();
        }
        self.large(&rivals, runtime, samples)?;
        runtime.block_on(self.small(&rivals, samples))?;
        runtime.block_on(self.gets(&rivals, samples))?;
        for rival in &rivals {
            if let Some(peak) = rival.peak_mib() {
                let peak = f64::from(u32::try_from(peak).unwrap_or(u32::MAX));
                samples.add("peak resident memory, MiB", rival.kind.name(), peak);
            }
        }
        Ok(())
    }

    fn large(
        &self,
        rivals: &[Rival],
        runtime: &tokio::runtime::Runtime,
        samples: &mut Samples,
    ) -> Result<(), String> {
        let rest = measure::bytes((self.options.blob_mib << 20) - 64);
        let blob = Blob::new(&format!("large {}", self.number), &rest);
        let mib = self.options.blob_mib as f64;
        for rival in rivals {
            rustix::fs::sync();
            let (answered, synced) = runtime.block_on(measure::push_large(rival, &blob))?;
            samples.add(
                "push of the large blob, MiB/s",
                rival.kind.name(),
                mib / answered.seconds,
            );
            if rival.kind == Kind::DockerRegistry {
                let rate = mib / synced.seconds;
                samples.add("push of the large blob, MiB/s", DOCKER_SYNCED, rate);
            }
            per_gib(
                samples,
                "  server CPU s/GiB of push",
                rival.kind.name(),
                mib,
                answered,
            );
        }
        let file = self.folder.join("limit");
        rustix::fs::sync();
        let limit = limits::receive_hash_write_sync(&file, &rest)?;
        samples.add(
            "push of the large blob, MiB/s",
            LIMIT,
            mib / limit.as_secs_f64(),
        );
        for rival in rivals {
            // The first pull checks the bytes and makes them resident.
            runtime.block_on(measure::check(rival, &blob))?;
            let pull = runtime.block_on(measure::pull_large(rival, &blob))?;
            samples.add(
                "hot pull of the large blob, MiB/s",
                rival.kind.name(),
                mib / pull.seconds,
            );
            per_gib(
                samples,
                "  server CPU s/GiB of pull",
                rival.kind.name(),
                mib,
                pull,
            );
        }
        limits::write_from_memory(&file)?; // makes it resident
        let limit = limits::write_from_memory(&file)?;
        samples.add(
            "hot pull of the large blob, MiB/s",
            LIMIT,
            mib / limit.as_secs_f64(),
        );
        std::fs::remove_file(&file).map_err(|e| format!("remove {}: {e}", file.display()))
    }

    async fn small(&self, rivals: &[Rival], samples: &mut Samples) -> Result<(), String> {
        let count = self.options.small_pushes;
        let blobs = |purpose: &str| -> Vec<Blob> {
            let rest = measure::bytes(1024 - 64);
            (0..count)
                .map(|n| Blob::new(&format!("{purpose} {} {n}", self.number), &rest))
                .collect()
        };
        let (plain, synced) = (blobs("small"), blobs("synced"));
        let name = "pushes of 1 KiB, 1/s";
        for rival in rivals {
            let push = measure::push_small(rival, &plain, self.options.concurrency, false).await?;
            samples.add(name, rival.kind.name(), count as f64 / push.seconds);
            let cpu = push.cpu * 1e6 / count as f64;
            samples.add("  server CPU us/push of 1 KiB", rival.kind.name(), cpu);
            if rival.kind == Kind::DockerRegistry {
                let push =
                    measure::push_small(rival, &synced, self.options.concurrency, true).await?;
                samples.add(name, DOCKER_SYNCED, count as f64 / push.seconds);
            }
        }
        Ok(())
    }

    async fn gets(&self, rivals: &[Rival], samples: &mut Samples) -> Result<(), String> {
        let (count, concurrency) = (self.options.gets, self.options.concurrency);
        let rest = measure::bytes(4096 - 64);
        let blobs: Vec<_> = (0..64)
            .map(|n| Blob::new(&format!("get {n}"), &rest))
            .collect();
        for rival in rivals {
            let (blobs, manifests) = measure::prepare_gets(rival, &blobs).await?;
            // A tenth of them are sent first, unmeasured, to warm up connections, caches and branch predictors.
            for (paths, rate, cpu) in [
                (
                    &blobs,
                    "GETs of 4 KiB blobs, 1/s",
                    "  server CPU us/GET of a 4 KiB blob",
                ),
                (
                    &manifests,
                    "GETs of manifests by tag, 1/s",
                    "  server CPU us/GET of a manifest",
                ),
            ] {
                measure::gets(rival, paths, count / 10, concurrency).await?;
                let gets = measure::gets(rival, paths, count, concurrency).await?;
                samples.add(rate, rival.kind.name(), count as f64 / gets.seconds);
                samples.add(cpu, rival.kind.name(), gets.cpu * 1e6 / count as f64);
            }
        }
        Ok(())
    }
}

fn per_gib(
    samples: &mut Samples,
    measurement: &'static str,
    who: &'static str,
    mib: f64,
    of: Interval,
) {
    samples.add(measurement, who, of.cpu * 1024.0 / mib);
}
