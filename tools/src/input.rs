//! What commands read beside their arguments: passwords and certificates.
//!
//! Owns: where each comes from, and its limits. A password comes from standard input, a terminal, a variable or a file,
//! never from the command line, which others see.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::units::format_size;

/// Largest password or file of certificates.
const BYTES_MAX: u64 = 128 << 10;

/// Reads a password from standard input, without the end of its line.
pub(crate) fn password_from_stdin() -> Result<String, Failure> {
    let text = read_text(io::stdin().lock());
    let text = text.map_err(|why| usage(format!("the password cannot be read: {why}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a password from a file, without the end of its line.
pub(crate) fn password_from_file(path: &Path) -> Result<String, Failure> {
    let text = std::fs::File::open(path).and_then(read_text);
    let at = path.display();
    let text = text.map_err(|why| usage(format!("--password-file {at} cannot be read: {why}")))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(usage(format!("--password-file {at} has no password"))),
        password => Ok(password.to_owned()),
    }
}

/// Asks for a new password on the terminal, twice.
pub(crate) fn new_password() -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(usage("there is no terminal to ask for the password")
            .hint("write it to standard input, with --password-stdin"));
    }
    let ask = |prompt: &str| {
        let typed = rpassword::prompt_password(prompt);
        typed.map_err(|why| usage(format!("the password cannot be read: {why}")))
    };
    let password = ask("Password: ")?;
    if ask("Again: ")? != password {
        return Err(usage("the two passwords differ; nothing was changed"));
    }
    Ok(password)
}

/// Returns the password of `username`: from standard input if asked for, else from the variable `name`.
pub(crate) fn password_of(username: &str, from_stdin: bool, name: &str) -> Result<String, Failure> {
    let password = if from_stdin {
        password_from_stdin()?
    } else {
        std::env::var(name).unwrap_or_default()
    };
    if password.is_empty() {
        let failure = usage(format!("there is no password for {username}"));
        return Err(failure.hint(format!("set {name}, or use --password-stdin")));
    }
    Ok(password)
}

/// Reads the file of `--ca`.
pub(crate) fn authorities(path: &Path) -> Result<String, Failure> {
    let text = std::fs::File::open(path).and_then(read_text);
    let at = path.display();
    text.map_err(|why| usage(format!("--ca {at} cannot be read: {why}")))
}

/// Reads all of a text, which may have [`BYTES_MAX`] bytes.
fn read_text(source: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        let what = format!("it has more than {}", format_size(BYTES_MAX));
        return Err(io::Error::other(what));
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, what)
}
