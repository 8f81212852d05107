//! Compares `tonnage` with other registries on the same disk, in interleaved rounds, and with the limits of the machine
//! in the same run.
//!
//! Owns: the options, the order of the scenarios, where results go. Refuses: figures of one registry alone.

mod content;
mod fleet;
mod limits;
mod load;
mod machine;
mod peers;
mod report;
mod scenarios;
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::report::{Report, Run};
use crate::scenarios::{ALL, Bench, Sizes};

/// Measures tonnage beside other registries. The table goes to stdout, everything else to stderr.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// A registry to compare with, several times: distribution, docker-registry, or any by its program [default: these
    /// two, where they are found]. A name with "zot" in it gets zot's configuration, one with "tonnage" that of
    /// tonnage, any other that of distribution.
    #[arg(long, value_name = "NAME[=PATH]")]
    peer: Vec<String>,
    /// Scenarios, separated by commas [default: all].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Use small sizes, with which everything takes minutes and less than 8 GB.
    #[arg(long)]
    quick: bool,
    /// Interleaved rounds of each scenario [default: 5, cold pulls 9; 3 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Blobs in the stores of the scenario "start" [default: 1000000].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    start_blobs: Vec<u64>,
    /// The tonnage program; built by cargo when not given.
    #[arg(long, value_name = "PATH")]
    tonnage: Option<PathBuf>,
    /// Folder on the disk to measure; temporary folders are made in it.
    #[arg(long, value_name = "DIR", default_value = "target")]
    folder: PathBuf,
    /// Measure nothing, but read results that were written by --json: where two have a scenario, the later one counts.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    from: Vec<PathBuf>,
    /// Also write everything as JSON into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write a page with charts into this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Reasons for targets that were not reached, for the page: lines of "SCENARIO: TEXT".
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Processes that the runner starts.
#[derive(Debug, Subcommand)]
enum Part {
    /// Run the load in a job on stdin.
    #[command(hide = true)]
    Load,
    /// Run a server that shows a limit.
    #[command(hide = true, subcommand)]
    Limit(limits::Serve),
    /// Fill a store with blobs.
    #[command(hide = true)]
    Fill { data: PathBuf, blobs: u64 },
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    let done = match options.part.take() {
        Some(Part::Load) => load::main(),
        Some(Part::Limit(limit)) => limit.run(),
        Some(Part::Fill { data, blobs }) => scenarios::fill(&data, blobs),
        None => results(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("compare: {why}");
            ExitCode::FAILURE
        }
    }
}

fn results(options: &Options) -> Result<(), String> {
    let (report, failed) = match &options.from[..] {
        [] => measure(options)?,
        files => {
            let mut report = Report::default();
            for file in files {
                report.merge(Report::load(file)?);
            }
            (report, Vec::new())
        }
    };
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
    };
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| format!("write JSON: {e}"))?;
        write(path, text)?;
    }
    if let Some(path) = &options.html {
        write(path, report::page(&report, &notes(options)?))?;
    }
    println!("{}", report::text(&report));
    match failed[..] {
        [] => Ok(()),
        _ => Err(format!("not completed: {}", failed.join(", "))),
    }
}

fn notes(options: &Options) -> Result<BTreeMap<String, String>, String> {
    let Some(path) = &options.notes else {
        return Ok(BTreeMap::new());
    };
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines
        .map(|(name, why)| (name.trim().to_owned(), why.trim().to_owned()))
        .collect())
}

/// Runs the scenarios. Returns the report, and the names of those that failed.
fn measure(options: &Options) -> Result<(Report, Vec<String>), String> {
    for name in &options.scenario {
        if !ALL.iter().any(|(known, _)| known == name) {
            let known: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "unknown scenario {name}; there are {}",
                known.join(", ")
            ));
        }
    }
    let programs = peers::find(options.tonnage.clone(), &options.peer)?;
    machine::pin(machine::Side::Server)?;
    std::fs::create_dir_all(&options.folder)
        .map_err(|e| format!("create {}: {e}", options.folder.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("compare")
        .tempdir_in(&options.folder);
    let folder =
        folder.map_err(|e| format!("make a folder in {}: {e}", options.folder.display()))?;
    let sizes = sizes(options);
    let run = Run {
        date: output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        commit: output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        command: command(),
        quick: sizes.quick,
        sizes: sizes.describe(),
        programs: versions(&programs),
        machine: machine::describe(folder.path())?,
    };
    let next_seed = u64::from(std::process::id()) << 16;
    let (report, folder) = (Report::new(run), folder.path().to_owned());
    let mut bench = Bench {
        sizes,
        programs,
        folder,
        report,
        next_seed,
    };
    let mut failed = Vec::new();
    for (name, scenario) in ALL {
        if !options.scenario.is_empty() && !options.scenario.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("== {name}");
        let begin = std::time::Instant::now();
        if let Err(why) = scenario(&mut bench) {
            bench.report.skip(name, &why);
            failed.push(name.to_owned());
        }
        eprintln!("   {:.0} s", begin.elapsed().as_secs_f64());
    }
    Ok((bench.report, failed))
}

fn sizes(options: &Options) -> Sizes {
    let mut sizes = if options.quick {
        Sizes::quick()
    } else {
        Sizes::full()
    };
    if let Some(rounds) = options.rounds {
        (sizes.rounds, sizes.cold_rounds) = (usize::from(rounds), usize::from(rounds));
    }
    if !options.start_blobs.is_empty() {
        sizes.start.clone_from(&options.start_blobs);
    }
    sizes
}

fn versions(programs: &[peers::Program]) -> BTreeMap<String, String> {
    let registries = programs
        .iter()
        .map(|program| (program.name.clone(), program.version()));
    let others = [
        ("nginx", limits::nginx::version()),
        ("cold reads by", limits::drive::reader().to_owned()),
    ];
    registries
        .chain(others.map(|(name, version)| (name.to_owned(), version)))
        .collect()
}

/// Returns the command line, as it is run through cargo.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "cargo run --release -p tonnage-benches --bin compare -- {}",
        arguments.join(" ")
    )
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    output.map_or("unknown".into(), |out| {
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    })
}
