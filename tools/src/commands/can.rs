//! `tonnage can`: whether a user may do something, and which rule decides.
//!
//! Owns: the forms of the answer. It reads the same files as the server, and asks nobody.

use serde::Serialize;
use tonnage_server::access::{AccessRules, Caller, OwnUsers, Right};
use tonnage_server::oci::RepositoryName;

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::serve::access_failure;

/// Arguments of `can`.
#[derive(Debug, clap::Args)]
pub(crate) struct Can {
    /// Name of the user, or anonymous
    user: String,
    /// pull, push, overwrite, delete or admin
    #[arg(value_parser = right)]
    action: Right,
    /// The repository
    #[arg(value_parser = repository)]
    repository: RepositoryName,
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

/// Prints the decision. The exit code is 1 if it is no.
pub(crate) fn run(arguments: &Can) -> Result<Exit, Failure> {
    let config = config::load(&arguments.flags).into_valid()?.config;
    if !config.auth.enabled {
        let what = "access control is off, so anyone who reaches the registry may do everything";
        return Err(Failure::new(Exit::Usage, what)
            .hint("give the options of the server: --auth --auth-rules FILE, or --config FILE"));
    }
    let rules = match &config.auth.rules {
        None => AccessRules::default(),
        Some(path) => {
            let unusable = |why: String| {
                Failure::new(
                    Exit::Usage,
                    format!("{} cannot be used: {why}", path.display()),
                )
            };
            let text =
                std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
            text.parse().map_err(unusable)?
        }
    };
    let own = OwnUsers::of(&config.data()?).list();
    let own = own.map_err(|error| access_failure(&error))?;
    let known = own.iter().find(|(name, _)| *name == arguments.user);
    let anonymous = arguments.user == "anonymous";
    let caller = Caller {
        subject: if anonymous {
            String::new()
        } else {
            arguments.user.clone()
        },
        is_admin: known.is_some_and(|(_, entry)| entry.is_admin),
        ..Caller::default()
    };
    let reason = rules.explain(&caller, arguments.action, &arguments.repository);
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
    if !anonymous && known.is_none() && config.auth.htpasswd.is_none() {
        output::note(&format!("note: there is no user {} yet", arguments.user));
    }
    Ok(if answer.allowed {
        Exit::Done
    } else {
        Exit::Problems
    })
}
