//! `tonnage user`: users of a registry with access control.
//!
//! Owns: the forms of the commands. A running server knows a change at once, because it reads the same file. Refuses:
//! the file (`tonnage_server::access`).

use serde::Serialize;
use tonnage_server::access::{OwnUsers, UserName};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::input;
use crate::output;
use crate::serve::access_failure;

/// Commands for users.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user; asks for the password on the terminal
    Add(UserAdd),
    /// Give a user another password
    SetPassword(UserSetPassword),
    /// List users
    List(UserList),
    /// Remove a user, whose requests are rejected from then on
    Remove(UserRemove),
}

/// Arguments of `user add`.
#[derive(Debug, clap::Args)]
pub(crate) struct UserAdd {
    /// Name of the user
    name: String,
    /// Let the user do everything
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    password: PasswordArguments,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Arguments of `user set-password`.
#[derive(Debug, clap::Args)]
pub(crate) struct UserSetPassword {
    /// Name of the user
    name: String,
    #[command(flatten)]
    password: PasswordArguments,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Where a password comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct PasswordArguments {
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

/// Arguments of `user list`.
#[derive(Debug, clap::Args)]
pub(crate) struct UserList {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Arguments of `user remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct UserRemove {
    /// Name of the user
    name: String,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, Serialize)]
struct Listed {
    users: Vec<ListedUser>,
}

#[derive(Debug, Serialize)]
struct ListedUser {
    name: String,
    admin: bool,
}

/// Carries out a command.
pub(crate) fn run(command: &UserCommand) -> Result<Exit, Failure> {
    match command {
        UserCommand::Add(arguments) => add(arguments),
        UserCommand::SetPassword(arguments) => set_password(arguments),
        UserCommand::List(arguments) => list(arguments),
        UserCommand::Remove(arguments) => remove(arguments),
    }
}

fn add(arguments: &UserAdd) -> Result<Exit, Failure> {
    let (users, name) = (users(&arguments.flags)?, name(&arguments.name)?);
    if is_known(&users, &name)? {
        let what = format!("there is a user {name} already");
        return Err(Failure::new(Exit::Usage, what).hint(format!(
            "for another password: tonnage user set-password {name}"
        )));
    }
    let password = arguments.password.read()?;
    let added = users.add(&name, &password, arguments.admin);
    added.map_err(|error| access_failure(&error))?;
    let may = if arguments.admin {
        "may do everything"
    } else {
        "may do what access rules allow (auth.rules)"
    };
    output::result(&format!("added user {name}, who {may}"))?;
    Ok(Exit::Done)
}

fn set_password(arguments: &UserSetPassword) -> Result<Exit, Failure> {
    let (users, name) = (users(&arguments.flags)?, name(&arguments.name)?);
    if !is_known(&users, &name)? {
        return Err(unknown(name.as_str()));
    }
    let password = arguments.password.read()?;
    let set = users.set_password(name.as_str(), &password);
    // It may have been removed meanwhile.
    if !set.map_err(|error| access_failure(&error))? {
        return Err(unknown(name.as_str()));
    }
    output::result(&format!("user {name} has another password"))?;
    Ok(Exit::Done)
}

fn list(arguments: &UserList) -> Result<Exit, Failure> {
    let users = users(&arguments.flags)?;
    let listed = users.list().map_err(|error| access_failure(&error))?;
    if arguments.json {
        let users = listed.into_iter().map(|(name, entry)| ListedUser {
            name,
            admin: entry.is_admin,
        });
        output::json(&Listed {
            users: users.collect(),
        })?;
        return Ok(Exit::Done);
    }
    for (name, entry) in &listed {
        let admin = if entry.is_admin { "  admin" } else { "" };
        output::result(&format!("{name}{admin}"))?;
    }
    Ok(Exit::Done)
}

fn remove(arguments: &UserRemove) -> Result<Exit, Failure> {
    let removed = users(&arguments.flags)?.remove(&arguments.name);
    if !removed.map_err(|error| access_failure(&error))? {
        return Err(unknown(&arguments.name));
    }
    output::result(&format!("removed user {}", arguments.name))?;
    Ok(Exit::Done)
}

fn users(flags: &ConfigFlags) -> Result<OwnUsers, Failure> {
    let config = config::load(flags).into_valid()?.config;
    Ok(OwnUsers::of(&config.data()?))
}

fn name(text: &str) -> Result<UserName, Failure> {
    let parsed = text.parse::<UserName>();
    parsed.map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

fn is_known(users: &OwnUsers, name: &UserName) -> Result<bool, Failure> {
    let listed = users.list().map_err(|error| access_failure(&error))?;
    Ok(listed.iter().any(|(known, _)| known == name.as_str()))
}

fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no user {name}"))
        .hint("to see all: tonnage user list, with the same --data")
}

impl PasswordArguments {
    fn read(&self) -> Result<String, Failure> {
        if self.password_stdin {
            return input::password_from_stdin();
        }
        input::new_password()
    }
}
