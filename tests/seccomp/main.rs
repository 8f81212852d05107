//! The program `seccomp`: runs a program for which the kernel refuses some system calls, as a container runtime does.
//!
//! Owns: a seccomp filter that answers these calls with EPERM, which is what the default profiles of runtimes do.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

const USAGE: &str = "usage: seccomp NAME,... PROGRAM [ARGUMENT]...";
/// Calls that can be refused. Their numbers are the same on all architectures that the filter knows.
const CALLS: [(&str, i64); 4] = [
    ("io_uring_setup", 425),
    ("io_uring_enter", 426),
    ("io_uring_register", 427),
    // No server makes this one, so with it there is a filter that refuses nothing.
    ("pidfd_open", 434),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(names), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if let Err(why) = refuse(&names) {
        eprintln!("seccomp: {why}");
        return ExitCode::FAILURE;
    }
    // Returns only if it fails.
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("seccomp: run {program}: {error}");
    ExitCode::FAILURE
}

/// Refuses the calls with these names from now on, also to programs that this one becomes or starts.
fn refuse(names: &str) -> Result<(), String> {
    let mut rules = BTreeMap::new();
    for name in names.split(',') {
        let known = CALLS.iter().find(|(known, _)| *known == name);
        let (_, number) = known.ok_or_else(|| format!("{name} is not known; {USAGE}"))?;
        rules.insert(*number, Vec::new());
    }
    let refused = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let machine = std::env::consts::ARCH.try_into();
    let machine = machine.map_err(|error| format!("this architecture: {error}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, machine);
    let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
    let program = program.map_err(|error| format!("make the filter: {error}"))?;
    seccompiler::apply_filter(&program).map_err(|error| format!("set the filter: {error}"))
}
