//! The command line: names, arguments, help.
//!
//! Owns: the tree of commands as clap sees it.
//! Refuses: configuration options, whose flags follow from the table in `config::options`.

use clap::{Parser, Subcommand};

use crate::commands::can::Can;
use crate::commands::check_config::CheckConfig;
use crate::commands::collect::{Collect, Compact};
use crate::commands::config_show::ConfigShow;
use crate::commands::credential_provider::CredentialProvider;
use crate::commands::fsck::Fsck;
use crate::commands::inspect::Inspect;
use crate::commands::jobs::Jobs;
use crate::commands::key::KeyCommand;
use crate::commands::repair::RepairArguments;
use crate::commands::repo_delete::RepoDelete;
use crate::commands::repo_list::RepoList;
use crate::commands::scrub::Scrub;
use crate::commands::serve::Serve;
use crate::commands::smoke::Smoke;
use crate::commands::stats::Stats;
use crate::commands::tag_delete::TagDelete;
use crate::commands::tag_list::TagList;
use crate::commands::usage::Usage;
use crate::commands::user::UserCommand;
use crate::commands::whence::Whence;
use crate::exit::Exit;

/// A container and model registry for bare metal, on a storage engine of its own.
#[derive(Debug, Parser)]
#[command(name = "tonnage", version = version(), after_long_help = after_help(), max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the registry
    #[command(after_help = "Examples:\n  tonnage serve\n  \
        tonnage serve --data /srv/tonnage --config /etc/tonnage.toml\n  \
        tonnage serve --listen 0.0.0.0:5000 --insecure-anonymous")]
    Serve(Serve),
    /// Print counts and sizes of a store, open or closed
    #[command(
        after_help = "Examples:\n  tonnage stats --data ./tonnage-data --json\n  \
        tonnage stats --server ./tonnage-data/admin.sock"
    )]
    Stats(Stats),
    /// List and delete repositories
    #[command(subcommand)]
    Repo(RepoCommand),
    /// List and delete tags
    #[command(subcommand)]
    Tag(TagCommand),
    /// Add, list and remove users of a registry with access control (--auth)
    #[command(
        subcommand,
        after_help = "Examples:\n  tonnage user add alice --admin --data /srv/tonnage\n  \
        tonnage user set-password alice --password-stdin"
    )]
    User(UserCommand),
    /// Make, list and revoke API keys for users and robot accounts; a running server knows at once
    #[command(
        subcommand,
        after_help = "Examples:\n  tonnage key create ci --robot --scope team/*:pull,push --expires 30d\n  \
        tonnage key list --data /srv/tonnage\n  tonnage key revoke 0123456789abcdef"
    )]
    Key(KeyCommand),
    /// Print whether a user may do something in a repository, and which access rule decides
    #[command(
        after_help = "Examples:\n  tonnage can alice push team/app --config /etc/tonnage.toml\n  \
        tonnage can anonymous pull team/app --auth --auth-rules rules.toml"
    )]
    Can(Can),
    /// Give the kubelet of Kubernetes credentials for the images of a registry
    ///
    /// The kubelet runs this command (kubelet credential provider, version v1): it writes a request to standard input
    /// and reads the response from standard output. If it sends the token of the pod's service account, that is the
    /// password. No registry gets credentials that --registry does not name. --print-config prints the configuration
    /// that the kubelet needs.
    #[command(
        after_help = "Examples:\n  tonnage credential-provider --registry registry.example:5000 \
        --print-config --audience registry.example\n  \
        tonnage credential-provider --registry registry.example --username ci --password-file /etc/tonnage/password"
    )]
    CredentialProvider(CredentialProvider),
    /// Print what repositories have, or what a deletion would free
    #[command(
        long_about = "Print what repositories have, or what a deletion would free.\n\n\
        Logical is what a repository has: its blobs and manifests, each once. Unique is the part that no other \
        repository has, shared the rest. A repository that was deleted counts as another one until its rows are \
        removed in the background.\n\n\
        A deletion frees what nothing references then. Referrers that follow a deleted manifest are not counted.",
        after_help = "Examples:\n  tonnage usage\n  \
        tonnage usage 'team/*' --json\n  \
        tonnage usage --if-deleted team/app:v1 --data /srv/tonnage"
    )]
    Usage(Usage),
    /// Print where the content of a digest comes from: which manifests have it, and who or which build pushed them
    ///
    /// The first push of a manifest to a repository is recorded. A build that signed in with a token of its CI or
    /// cluster leaves the claims of that token, such as its commit and its run; they replace the record of a push
    /// without any. At most 100 manifests are printed.
    #[command(after_help = format!(
        "Examples:\n  tonnage whence sha256:{0:064}\n  \
        tonnage whence sha256:{0:064} --data /srv/tonnage --json", 0
    ))]
    Whence(Whence),
    /// Remove content that nothing references and whose grace is over; the server does it by itself, too
    ///
    /// If the server does the same for another command, this one waits for that. If it does something else of this
    /// kind (a dry run, or with or without --full), exit code 5.
    #[command(
        alias = "gc",
        after_help = "Examples:\n  tonnage collect --dry-run\n  \
        tonnage collect --full --data /srv/tonnage --json"
    )]
    Collect(Collect),
    /// Let a running server read and verify all content now; it does so by itself, too
    ///
    /// If the server does the same for another command, this one waits for that. If it does so with other options,
    /// exit code 5.
    #[command(after_help = "Examples:\n  tonnage scrub\n  \
        tonnage scrub --digests --rate '100 MiB' --data /srv/tonnage --json")]
    Scrub(Scrub),
    /// Heal damaged blobs with content from another registry
    ///
    /// What scrub, reads or the last start found damaged is asked for there, under the names of the repositories that
    /// have it here. What arrives is checked like a push. Exit codes are those of e2fsck: 0 nothing was damaged,
    /// 1 all damage was healed, 4 there is still damage. 4 is also the code of a tonnage server that does not answer.
    #[command(
        after_help = "Examples:\n  tonnage repair --from https://registry.example.com --dry-run\n  \
        tonnage repair --from https://mirror.example.com/prefix --username ci --password-stdin\n  \
        tonnage repair --from http://10.0.0.2:5000 --data /srv/tonnage --json"
    )]
    Repair(RepairArguments),
    /// List what a running server does in the background; pause, resume or cancel it
    ///
    /// A cycle of collection or compaction that the server repeats by itself ends when it is paused, and none begins
    /// until it is resumed. So it holds nothing, and `tonnage collect` runs meanwhile. Any other job waits after its
    /// current step, and keeps its place.
    #[command(after_help = "Examples:\n  tonnage jobs --json\n  \
        tonnage jobs pause scrub\n  tonnage jobs cancel 7 --data /srv/tonnage")]
    Jobs(Jobs),
    /// Bring a closed store to the least space: collect garbage, then compact segments
    ///
    /// Content that nothing references goes if that has been so for collection.grace by the clock of this machine.
    /// Clients that a HEAD or GET confirmed it to since, just before the server stopped, may miss it.
    #[command(
        after_help = "Examples:\n  tonnage compact --data /srv/tonnage --dry-run\n  \
        tonnage compact --data /srv/tonnage --json"
    )]
    Compact(Compact),
    /// Check a closed store completely; repairs nothing
    #[command(after_help = "Examples:\n  tonnage fsck --data ./tonnage-data\n  \
        tonnage fsck --data ./tonnage-data --deep --json")]
    Fsck(Fsck),
    /// Decode files of a store; reads only, and may run beside a server
    #[command(after_help = "Examples:\n  tonnage inspect --data ./tonnage-data\n  \
        tonnage inspect ./tonnage-data/journal/0000000000000001.journal --json")]
    Inspect(Inspect),
    /// Test a registry as a client: push, pull, compare, time and delete generated content
    #[command(after_help = "Examples:\n  tonnage smoke\n  \
        tonnage smoke http://127.0.0.1:5000 --size '1 GiB'\n  tonnage smoke --strict --json")]
    Smoke(Smoke),
    /// Check the configuration and report every error in it
    #[command(after_help = "Example:\n  tonnage check-config --config tonnage.toml")]
    CheckConfig(CheckConfig),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Commands about repositories.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// Print the names of all repositories
    #[command(after_help = "Examples:\n  tonnage repo list --data /srv/tonnage\n  \
        tonnage repo list --json")]
    List(RepoList),
    /// Delete a repository with all its tags and manifests; blobs of other repositories stay
    #[command(after_help = "Examples:\n  tonnage repo delete team/app --dry-run\n  \
        tonnage repo delete team/app --data /srv/tonnage")]
    Delete(RepoDelete),
}

/// Commands about tags.
#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// Print a repository's tags: time of the last change, digest, name
    #[command(after_help = "Examples:\n  tonnage tag list team/app\n  \
        tonnage tag list team/app --json --server /srv/tonnage/admin.sock")]
    List(TagList),
    /// Delete tags, all of them or none; the manifests stay
    #[command(
        after_help = "Examples:\n  tonnage tag delete team/app old older --dry-run\n  \
        tonnage tag delete team/app old older"
    )]
    Delete(TagDelete),
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every effective value and where it came from
    #[command(after_help = "Examples:\n  tonnage config show\n  \
        TONNAGE_LOG_LEVEL=debug tonnage config show --config tonnage.toml --json")]
    Show(ConfigShow),
}

fn version() -> String {
    format!(
        "{} (on-disk format {})",
        env!("CARGO_PKG_VERSION"),
        tonnage_engine::format::superblock::FORMAT_VERSION
    )
}

fn after_help() -> String {
    format!(
        "{}\nThe value of an option comes from its flag, else its TONNAGE_* variable, else the file given with \
         --config, else its default.\nResults go to standard output, everything else to standard error.",
        Exit::table()
    )
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    /// Guards: clap's own consistency checks of the tree of commands (clashing names, missing values).
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Adds the lines of the examples of a command and all below it.
    fn add_examples(command: &clap::Command, examples: &mut Vec<String>) {
        if let Some(text) = command.get_after_help() {
            let text = text.to_string();
            let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
            examples.extend(lines.map(str::to_owned));
        }
        for below in command.get_subcommands() {
            add_examples(below, examples);
        }
    }

    /// Splits a line as a shell does, as far as examples need it: single quotes, and variables before the command.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for (place, part) in line.split('\'').enumerate() {
            let mut pieces = part.split(' ');
            let (is_quoted, first) = (place % 2 == 1, pieces.next().unwrap_or_default());
            let last = words.last_mut().unwrap();
            if is_quoted {
                last.push_str(part);
                continue;
            }
            last.push_str(first);
            words.extend(pieces.map(str::to_owned));
        }
        words.retain(|word| !word.is_empty());
        let variables = words.iter().take_while(|word| word.starts_with("TONNAGE_"));
        let variables = variables.count();
        words.split_off(variables)
    }

    /// Guards: every example in the help is a command line that is accepted.
    #[test]
    fn the_examples_are_accepted() {
        let mut examples = Vec::new();
        add_examples(&Cli::command(), &mut examples);
        assert!(examples.len() > 20, "{examples:?}");
        for example in examples {
            let parsed = Cli::try_parse_from(words(&example));
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }
}
