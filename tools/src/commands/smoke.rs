//! `tonnage smoke`: tests whether a registry works, and how fast, without another client.
//!
//! Owns: arguments and the summary.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Serialize;
use tonnage_server::tls;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::input;
use crate::output;
use crate::runtime::{block_on, command_runtime};
use crate::smoke::{self, Recorder, SmokeOptions, Step, Verdict};
use crate::units;

/// The variable with the password.
const PASSWORD: &str = "TONNAGE_SMOKE_PASSWORD";

/// Arguments of `smoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct Smoke {
    /// The registry: http://HOST:PORT or https://HOST:PORT
    #[arg(default_value = "http://127.0.0.1:5000")]
    url: String,
    /// File with certificates of authorities to trust besides the system's, in PEM form
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    login: Login,
    /// Size of the large layer
    #[arg(long, default_value = "64 MiB", value_parser = size)]
    size: u64,
    /// Repository to push to [default: tonnage-smoke/ and the seed]
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Seed of the content; the same seed makes the same bytes [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Longest time without progress
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::parse_duration)]
    timeout: Duration,
    /// Fail also if the registry lacks an optional part of the protocol
    #[arg(long)]
    strict: bool,
    /// Keep what was pushed on the registry
    #[arg(long)]
    keep: bool,
    /// Print the result as JSON, at the end
    #[arg(long)]
    json: bool,
}

/// Who pushes and pulls.
#[derive(Debug, clap::Args)]
struct Login {
    /// User name; the password is in the variable `TONNAGE_SMOKE_PASSWORD`, or see --password-stdin
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

fn size(text: &str) -> Result<u64, String> {
    match units::parse_size(text)? {
        0 => Err("the layer must have at least one byte".to_owned()),
        bytes => Ok(bytes),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    url: &'a str,
    repository: &'a str,
    seed: u64,
    size_bytes: u64,
    push_mib_per_second: Option<f64>,
    pull_mib_per_second: Option<f64>,
    steps: &'a [Step],
}

/// Runs against one registry.
pub(crate) fn run(arguments: &Smoke) -> Result<Exit, Failure> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| {
            Failure::new(
                Exit::Disk,
                format!("the system provided no random seed: {error}"),
            )
        })?,
    };
    let repository = arguments.repository.clone();
    let url = base_of(&arguments.url)?;
    let options = SmokeOptions {
        tls: trusted(arguments, url.starts_with("https:"))?,
        authorization: authorization(&arguments.login)?,
        url,
        repository: repository.unwrap_or_else(|| format!("tonnage-smoke/{seed:016x}")),
        seed,
        size_bytes: arguments.size,
        stall_timeout: arguments.timeout,
        strict: arguments.strict,
        keep: arguments.keep,
        print: !arguments.json,
    };
    let recorder = block_on(&command_runtime()?, smoke::run(&options));
    report(arguments, &options, &recorder)?;
    match recorder.count(Verdict::Failed) {
        0 => Ok(Exit::Done),
        _ if recorder.is_unreachable() => Err(unreachable_registry(&options)),
        _ => Ok(Exit::Problems),
    }
}

/// Returns the header with the credentials.
fn authorization(login: &Login) -> Result<Option<HeaderValue>, Failure> {
    let Some(username) = &login.username else {
        return Ok(None);
    };
    let password = input::password_of(username, login.password_stdin, PASSWORD)?;
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}"))
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Returns what is trusted.
fn trusted(arguments: &Smoke, required: bool) -> Result<rustls::ClientConfig, Failure> {
    let authorities = arguments
        .ca
        .as_deref()
        .map(input::authorities)
        .transpose()?;
    tls::client_config(authorities.as_deref(), required)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

fn unreachable_registry(options: &SmokeOptions) -> Failure {
    let failure = Failure::new(
        Exit::Network,
        format!("no registry answered at {}", options.url),
    )
    .hint("check that it is running and that this is its address");
    if !options.url.starts_with("https:") {
        return failure;
    }
    failure
        .hint("if its certificate is not trusted, name the authority with --ca FILE")
        .hint("if it has no TLS, write http:// instead of https://")
}

fn report(arguments: &Smoke, options: &SmokeOptions, recorder: &Recorder) -> Result<(), Failure> {
    let (push, pull) = smoke::rates(recorder);
    let failed = recorder.count(Verdict::Failed);
    if arguments.json {
        output::json(&Report {
            ok: failed == 0,
            url: &options.url,
            repository: &options.repository,
            seed: options.seed,
            size_bytes: options.size_bytes,
            push_mib_per_second: push,
            pull_mib_per_second: pull,
            steps: recorder.steps(),
        })?;
        return Ok(());
    }
    let say =
        |rate: Option<f64>| rate.map_or("not measured".to_owned(), |r| format!("{r:.1} MiB/s"));
    let total = recorder.steps().len();
    let missing = recorder.count(Verdict::NotOffered);
    output::result(&format!(
        "{} of {total} steps ok, {missing} not offered, {failed} failed; push {}, pull {} (seed {})",
        recorder.count(Verdict::Ok),
        say(push),
        say(pull),
        options.seed
    ))?;
    if arguments.keep {
        output::note(&format!("kept: repository {}", options.repository));
    }
    Ok(())
}

/// Parses an address that a user typed into `scheme://host:port`.
fn base_of(url: &str) -> Result<String, Failure> {
    let usage = |what: String| Failure::new(Exit::Usage, what);
    // It is not quoted: what precedes the @ may be a password.
    if url.contains('@') {
        let what = "the address has a user name; use --username and --password-stdin";
        return Err(usage(what.to_owned()));
    }
    let typed = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let uri: http::Uri = typed
        .parse()
        .map_err(|error| usage(format!("{url} is no address: {error}")))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if !["http", "https"].contains(&scheme) {
        return Err(usage(format!("{url}: write http:// or https://")));
    }
    let Some(authority) = uri.authority() else {
        return Err(usage(format!("{url} has no host")));
    };
    if !matches!(uri.path(), "" | "/") {
        return Err(usage(format!(
            "{url}: a registry has no path; --repository names a repository"
        )));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: usual forms of a registry's address are accepted, and what smoke does not support is rejected.
    #[test]
    fn addresses_are_understood() {
        for typed in [
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5000/",
            "127.0.0.1:5000",
        ] {
            assert_eq!(base_of(typed).unwrap(), "http://127.0.0.1:5000");
        }
        assert_eq!(base_of("https://a").unwrap(), "https://a");
        for wrong in ["ftp://a", "http://a/b", "http://u:p@a", "", "http://"] {
            assert_eq!(base_of(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
