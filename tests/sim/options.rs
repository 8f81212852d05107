//! The command line of `sim`.

use std::path::PathBuf;

/// The usage message, printed after a usage error.
pub const USAGE: &str = "usage: sim [--seed S] [--seeds N | --images N] [--one-in N] [--state FILE]
           [--threads N] [--tables] [--call-sites N] [--flips STEP] [--catch | --bad-io NAME]

  --seed S           first seed (1)
  --seeds N          histories to run (1)
  --images N         run histories until N distinct crash images were recovered
  --state FILE       continue the run whose progress FILE has, and write the new progress to it
  --one-in N         stop at one in N crash points of each history (1)
  --threads N        histories at a time (one for each processor)
  --call-sites N     fail if a call site of the engine that changes the disk was reached fewer than N times
  --bad-io NAME      run the engine over known-bad I/O, or over each kind with `all`, and print which check
                     caught it and how soon; 250 histories, or as many as --seeds sets
  --flips STEP       flip one bit in every STEP-th byte of two small stores, one at a time, instead of running
                     histories
  --catch            end at the first violation, with status 3 and the name of its check; 250 histories, or as
                     many as --seeds sets
  --tables           print what was generated, the results of recoveries, and how often each call site was reached";

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub seeds: Option<u64>,
    pub images: Option<u64>,
    pub one_in: u64,
    pub state: Option<PathBuf>,
    pub threads: usize,
    pub tables: bool,
    pub call_sites: u64,
    pub flips: Option<u64>,
    pub catch: bool,
    pub bad_io: Option<String>,
}

impl Options {
    /// Parses the arguments after the program's name.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seed: 1,
            seeds: None,
            images: None,
            one_in: 1,
            state: None,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            tables: false,
            call_sites: 0,
            flips: None,
            catch: false,
            bad_io: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            let number = |text: String| {
                text.parse::<u64>()
                    .map_err(|_| format!("{text} is not a number"))
            };
            match argument.as_str() {
                "--seed" => options.seed = number(value()?)?,
                "--seeds" => options.seeds = Some(number(value()?)?),
                "--images" => options.images = Some(number(value()?)?),
                "--one-in" => options.one_in = number(value()?)?.max(1),
                "--state" => options.state = Some(value()?.into()),
                "--threads" => options.threads = number(value()?)?.max(1) as usize,
                "--call-sites" => options.call_sites = number(value()?)?,
                "--flips" => options.flips = Some(number(value()?)?.max(1)),
                "--catch" => options.catch = true,
                "--bad-io" => options.bad_io = Some(value()?),
                "--tables" => options.tables = true,
                other => return Err(format!("unknown option {other}")),
            }
        }
        if options.one_in > 1 && (options.catch || options.bad_io.is_some()) {
            return Err("--one-in is for runs without --catch and --bad-io".to_owned());
        }
        Ok(options)
    }
}
