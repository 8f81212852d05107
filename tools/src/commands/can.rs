//! `tonnage can`: whether a user may do something, and which rule decides.
//!
//! Owns: the forms of the answer. It reads the same files as the server, and asks nobody.

use serde::Serialize;
use tonnage_server::access::{AccessOptions, Caller, CallerName, Right};
use tonnage_server::oci::{RepositoryName, Tag};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::serve::access_failure;

/// Arguments of `can`.
#[derive(Debug, clap::Args)]
pub(crate) struct Can {
    /// Name of the user, name in a client certificate, or anonymous
    user: String,
    /// pull, push, overwrite, delete or admin
    #[arg(value_parser = right)]
    action: Right,
    /// The repository
    #[arg(value_parser = repository)]
    repository: RepositoryName,
    /// The tag to overwrite, which may be immutable
    #[arg(long, value_parser = tag)]
    tag: Option<Tag>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    user: &'a str,
    action: &'static str,
    repository: &'a str,
    allowed: bool,
    reason: String,
}

fn right(text: &str) -> Result<Right, String> {
    text.parse()
        .map_err(|()| "write pull, push, overwrite, delete or admin".to_owned())
}

fn repository(text: &str) -> Result<RepositoryName, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn tag(text: &str) -> Result<Tag, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// Prints the decision. The exit code is 1 if it is no.
pub(crate) fn run(arguments: &Can) -> Result<Exit, Failure> {
    let config = config::load(&arguments.flags).into_valid()?.config;
    if !config.auth.enabled {
        let what = "access control is off, so anyone who reaches the registry may do everything";
        return Err(Failure::new(Exit::Usage, what)
            .hint("give the options of the server: --auth --auth-rules FILE, or --config FILE"));
    }
    let access = config.auth.access_options(&config.data()?);
    let rules = access
        .current_rules()
        .map_err(|error| access_failure(&error))?;
    let caller = caller(&arguments.user, &access, config.tls.client_ca.is_some())?;
    let reason = match &arguments.tag {
        Some(tag) if arguments.action == Right::Overwrite => {
            rules.explain_overwrite(&caller, &arguments.repository, tag)
        }
        _ => rules.explain(&caller, arguments.action, &arguments.repository),
    };
    let answer = Answer {
        user: &arguments.user,
        action: arguments.action.name(),
        repository: arguments.repository.as_str(),
        allowed: reason.allowed,
        reason: reason.to_string(),
    };
    if arguments.json {
        output::json(&answer)?;
    } else {
        let word = if answer.allowed { "yes" } else { "no" };
        output::result(&format!("{word}: {}", answer.reason))?;
    }
    Ok(if answer.allowed {
        Exit::Done
    } else {
        Exit::Problems
    })
}

/// Finds a user, as the server does. Who `may_have_certificate` may have any name.
fn caller(
    name: &str,
    access: &AccessOptions,
    may_have_certificate: bool,
) -> Result<Caller, Failure> {
    if name == "anonymous" {
        return Ok(Caller::default());
    }
    let found = access
        .find_caller(name)
        .map_err(|error| access_failure(&error))?;
    match found {
        Some(found) => Ok(found),
        None if may_have_certificate && name.parse::<CallerName>().is_ok() => Ok(Caller {
            subject: name.to_owned(),
            ..Caller::default()
        }),
        None => {
            let what = format!("there is no user {name}");
            Err(Failure::new(Exit::NotFound, what).hint(
                "for requests without credentials, write anonymous; names in client certificates need --tls-client-ca",
            ))
        }
    }
}
