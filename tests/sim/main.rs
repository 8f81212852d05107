//! `sim`: generated histories against the engine on the simulated disk, stopped everywhere; stores with each byte damaged in turn.
//!
//! Owns: the command line, the threads, the tables. Exit status 1 on a violation (3 with `--catch`), 2 on a wrong command line.

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
    // A violation says what a panic of the engine said.
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
