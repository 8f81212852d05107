//! The program `sim`: runs generated histories on the simulated disk with a stop at every point, and damages each byte
//! of stores in turn.
//!
//! Owns: the command line, the threads, the tables. Exit status 1 is a violation (3 with `--catch`), 2 a usage error.

mod bad_io;
mod catching;
mod flips;
mod options;
mod runs;
mod tables;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("sim: {why}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    // The report of a violation includes the message of a panic of the engine.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(which) = &options.bad_io {
        return bad_io::run(&options, which);
    }
    match options.flips {
        Some(step) => flips::run(step, options.threads),
        None if options.catch => catching::run(&options),
        None => runs::run(&options),
    }
}
