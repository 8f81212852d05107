//! `tonnage key`: API keys of a registry with access control.
//!
//! Owns: the forms of the commands. A running server knows a change at once, because it reads the same file. Refuses:
//! the file (`tonnage_server::access`).

use std::time::Duration;

use serde::Serialize;
use tonnage_server::access::{
    AccessError, AccessOptions, ApiKey, KeyScope, NewApiKey, OwnKeys, UserName,
};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::serve::access_failure;
use crate::units::{format_time, parse_duration};

/// Commands for API keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key for a user or a robot account; it is printed once
    Create(KeyCreate),
    /// List keys: id, user, end, last use, limits, label
    List(KeyList),
    /// Revoke keys, whose requests are rejected from then on
    Revoke(KeyRevoke),
}

/// Arguments of `key create`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyCreate {
    /// Name of the user
    user: String,
    /// The name is a robot account: it has keys and no password, and access rules name it
    #[arg(long)]
    robot: bool,
    /// Limit the key to repositories and rights, such as team/*:pull,push; may be repeated
    #[arg(long = "scope", value_name = "PATTERN:RIGHTS", value_parser = scope)]
    scopes: Vec<KeyScope>,
    /// How long the key is accepted, or never for no end
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    expires: Lifetime,
    /// Text for the list
    #[arg(long, default_value = "")]
    label: String,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Arguments of `key list`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyList {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Arguments of `key revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyRevoke {
    /// Ids of the keys
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// How long a key is accepted; `None` for no end.
#[derive(Debug, Clone, Copy)]
struct Lifetime(Option<Duration>);

#[derive(Debug, Serialize)]
struct Listed {
    keys: Vec<ListedKey>,
}

#[derive(Debug, Serialize)]
struct ListedKey {
    id: String,
    user: String,
    robot: bool,
    created: String,
    expires: Option<String>,
    last_used: Option<String>,
    scopes: Vec<String>,
    label: String,
}

fn scope(text: &str) -> Result<KeyScope, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let lifetime = parse_duration(text)?;
    if lifetime < Duration::from_secs(1) {
        return Err("a key that ends at once is of no use".to_owned());
    }
    Ok(Lifetime(Some(lifetime)))
}

/// Carries out a command.
pub(crate) fn run(command: &KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::Create(arguments) => create(arguments),
        KeyCommand::List(arguments) => list(arguments),
        KeyCommand::Revoke(arguments) => revoke(arguments),
    }
}

fn create(arguments: &KeyCreate) -> Result<Exit, Failure> {
    let options = options(&arguments.flags)?;
    let user = arguments.user.parse::<UserName>();
    let user = user.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let is_user = options.has_user(user.as_str()).map_err(failure)?;
    if arguments.robot && is_user {
        let what = format!("{user} is a user with a password");
        return Err(Failure::new(Exit::Usage, what).hint(
            "for a key of this user, leave out --robot; a robot account needs another name",
        ));
    }
    if !arguments.robot && !is_user {
        let what = format!("there is no user {user}");
        return Err(Failure::new(Exit::NotFound, what)
            .hint("for an account without a password, add --robot")
            .hint("users of an htpasswd file are found with the server's --auth-htpasswd"));
    }
    let now = jiff::Timestamp::now().as_second();
    let now = u64::try_from(now).unwrap_or_default();
    let expires_unix_s = arguments
        .expires
        .0
        .map(|lifetime| now.saturating_add(lifetime.as_secs()));
    let made = options.own.keys().create(NewApiKey {
        user: user.clone(),
        is_robot: arguments.robot,
        label: arguments.label.clone(),
        scopes: arguments.scopes.clone(),
        expires_unix_s,
    });
    let key = made.map_err(failure)?;
    output::result(&key.reveal())?;
    let end = match expires_unix_s {
        Some(end) => format!("accepted until {}", time(end)),
        None => "accepted until it is revoked".to_owned(),
    };
    output::note(&format!(
        "key {} of {user}, {end}; it is not shown again",
        key.id()
    ));
    output::note(&format!("log in with it as the password of {user}"));
    if arguments.robot {
        output::note(&format!(
            "{user} may do what access rules allow (auth.rules)"
        ));
    }
    Ok(Exit::Done)
}

fn list(arguments: &KeyList) -> Result<Exit, Failure> {
    let keys = options(&arguments.flags)?.own.keys();
    let uses = keys.last_uses();
    let listed = keys.list().map_err(failure)?;
    let listed = listed.into_iter().map(|(id, key)| {
        let last_used = uses.get(&id).copied();
        ListedKey::new(id, key, last_used)
    });
    let listed = Listed {
        keys: listed.collect(),
    };
    if arguments.json {
        output::json(&listed)?;
        return Ok(Exit::Done);
    }
    for key in &listed.keys {
        output::result(&key.line())?;
    }
    Ok(Exit::Done)
}

fn revoke(arguments: &KeyRevoke) -> Result<Exit, Failure> {
    let keys: OwnKeys = options(&arguments.flags)?.own.keys();
    let known = keys.list().map_err(failure)?;
    // All of them or none, so that a mistake in one is seen before anything changes.
    for id in &arguments.ids {
        if !known.iter().any(|(known, _)| known == id) {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no key {id}; nothing was revoked"),
            )
            .hint("to see all: tonnage key list, with the same --data"));
        }
    }
    for id in &arguments.ids {
        keys.revoke(id).map_err(failure)?;
        output::result(&format!("revoked key {id}"))?;
    }
    Ok(Exit::Done)
}

impl ListedKey {
    fn new(id: String, key: ApiKey, last_used_unix_s: Option<u64>) -> Self {
        Self {
            id,
            user: key.user,
            robot: key.is_robot,
            created: time(key.created_unix_s),
            expires: key.expires_unix_s.map(time),
            last_used: last_used_unix_s.map(time),
            scopes: key.scopes.iter().map(KeyScope::to_string).collect(),
            label: key.label,
        }
    }

    fn line(&self) -> String {
        let robot = if self.robot { " (robot)" } else { "" };
        let expires = self.expires.as_deref().unwrap_or("never");
        let used = self.last_used.as_deref().unwrap_or("never");
        let scopes = match &*self.scopes {
            [] => "unlimited".to_owned(),
            scopes => scopes.join(" "),
        };
        let line = format!(
            "{}  {}{robot}  expires {expires}  used {used}  {scopes}  {}",
            self.id, self.user, self.label
        );
        line.trim_end().to_owned()
    }
}

fn time(unix_s: u64) -> String {
    format_time(unix_s.saturating_mul(1000))
}

fn options(flags: &ConfigFlags) -> Result<AccessOptions, Failure> {
    let config = config::load(flags).into_valid()?.config;
    let data = config.data()?;
    Ok(config.auth.access_options(&data))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the argument of map_err"
)]
fn failure(error: AccessError) -> Failure {
    access_failure(&error)
}
