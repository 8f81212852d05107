//! Access control with users and rules.
//!
//! Owns: [`AccessControl`]: the authenticator and the policy of a registry, and when their files are read again.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::basic::PasswordAuthenticator;
use super::reloaded::ReloadedFile;
use super::rules::AccessRules;
use super::users::passwords::Passwords;
use super::users::{OwnUsers, Users};
use super::{AccessError, Authenticator, Caller, Decision, Permission, Policy, Verdict};

/// Interval of looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Where users and rules are.
#[derive(Debug, Clone)]
pub struct AccessOptions {
    /// The registry's own users.
    pub own: OwnUsers,
    /// Users of an htpasswd file.
    pub htpasswd: Option<PathBuf>,
    /// The file of access rules; `None` for none, so that only admins may do anything.
    pub rules: Option<PathBuf>,
}

/// Who may do what.
#[derive(Debug)]
pub struct AccessControl {
    passwords: Arc<Passwords>,
    rules: Option<Arc<ReloadedFile<AccessRules>>>,
}

/// Decides by the rules.
#[derive(Debug)]
struct RulePolicy {
    rules: Option<Arc<ReloadedFile<AccessRules>>>,
    none: AccessRules,
}

impl AccessControl {
    /// Reads the files, and from then on again when they change.
    ///
    /// # Errors
    /// A file cannot be read or used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(options: AccessOptions) -> Result<Self, AccessError> {
        let users = Users::open(&options.own, options.htpasswd)?;
        let rules = options
            .rules
            .map(|path| ReloadedFile::open(path, false, str::parse));
        let rules = rules.transpose()?.map(Arc::new);
        let passwords = Arc::new(Passwords::new(users)?);
        let looked_at = (
            Arc::downgrade(&passwords),
            rules.as_ref().map(Arc::downgrade),
        );
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(passwords) = looked_at.0.upgrade() else {
                    return;
                };
                let rules = looked_at.1.as_ref().and_then(Weak::upgrade);
                let looking = tokio::task::spawn_blocking(move || {
                    passwords.users().reload();
                    if let Some(rules) = rules {
                        rules.reload();
                    }
                });
                // A panic is reported by the panic hook, and the next look is another attempt.
                looking.await.unwrap_or_default();
            }
        });
        Ok(Self { passwords, rules })
    }

    /// Returns whether nobody can log in.
    pub fn has_no_users(&self) -> bool {
        self.passwords.users().is_empty()
    }

    /// Returns what determines who sends a request.
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(PasswordAuthenticator(Arc::clone(&self.passwords)))
    }

    /// Returns what decides about requests.
    pub fn policy(&self) -> Arc<dyn Policy> {
        Arc::new(RulePolicy {
            rules: self.rules.clone(),
            none: AccessRules::default(),
        })
    }
}

impl Policy for RulePolicy {
    fn decide<'a>(
        &'a self,
        caller: &'a Caller,
        permission: Permission<'a>,
    ) -> Decision<'a, Verdict> {
        Decision::Ready(match &self.rules {
            Some(rules) => rules.value().decide(caller, permission),
            None => self.none.decide(caller, permission),
        })
    }
}
