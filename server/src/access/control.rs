//! Access control with users and rules.
//!
//! Owns: [`AccessControl`]: the authenticator and the policy of a registry, and when their files are read again.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::credentials::CredentialAuthenticator;
use super::reloaded::ReloadedFile;
use super::rules::{AccessRules, Right};
use super::tokens::{IssuedToken, Scope, TokenService};
use super::users::passwords::Passwords;
use super::users::{OwnUsers, UserEntry, Users};
use super::{AccessError, Authenticator, Caller, Decision, Permission, Policy, Refused, Verdict};
use crate::kept_files::FileError;
use crate::oci::RepositoryName;

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
    tokens: Arc<TokenService>,
    policy: Arc<RulePolicy>,
}

/// Issues tokens to who logs in, and to anyone for what needs no credentials.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    passwords: Arc<Passwords>,
    tokens: Arc<TokenService>,
    policy: Arc<RulePolicy>,
}

/// Decides by the rules.
#[derive(Debug)]
struct RulePolicy {
    rules: Option<Arc<ReloadedFile<AccessRules>>>,
    none: Arc<AccessRules>,
}

impl AccessOptions {
    /// Returns a user, as the lists have it now.
    pub fn find_user(&self, name: &str) -> Result<Option<UserEntry>, AccessError> {
        Ok(Users::open(&self.own, self.htpasswd.clone())?.get(name))
    }

    /// Returns the rules, as the file has them now.
    pub fn current_rules(&self) -> Result<Arc<AccessRules>, AccessError> {
        let rules = self.open_rules()?;
        Ok(rules.map_or_else(Arc::default, |rules| rules.value()))
    }

    fn open_rules(&self) -> Result<Option<ReloadedFile<AccessRules>>, FileError> {
        let open = |path: &PathBuf| ReloadedFile::open(path.clone(), false, str::parse);
        self.rules.as_ref().map(open).transpose()
    }
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
        let rules = options.open_rules()?.map(Arc::new);
        let users = Users::open(&options.own, options.htpasswd)?;
        let passwords = Arc::new(Passwords::new(users)?);
        let tokens = Arc::new(TokenService::open(options.own.directory())?);
        let looked_at = (
            Arc::downgrade(&passwords),
            rules.as_ref().map(Arc::downgrade),
            Arc::downgrade(&tokens),
        );
        // A thread of its own, because it waits for a disk, and a limit on threads that is reached later must not end
        // it.
        let thread = std::thread::Builder::new().name("tonnage-access".to_owned());
        let looking = move || {
            while let (Some(passwords), Some(tokens)) =
                (looked_at.0.upgrade(), looked_at.2.upgrade())
            {
                // A panic is reported by the panic hook, and the next look is another attempt.
                let look = AssertUnwindSafe(|| {
                    if let Some(rules) = looked_at.1.as_ref().and_then(Weak::upgrade) {
                        rules.reload();
                    }
                    if let Err(error) = tokens.rotate() {
                        tracing::error!(%error, "the key that signs tokens could not be replaced; it stays in use");
                    }
                    passwords.users().reload();
                });
                drop(catch_unwind(look));
                drop((passwords, tokens));
                std::thread::sleep(LOOK);
            }
        };
        thread.spawn(looking).map_err(AccessError::Thread)?;
        let policy = Arc::new(RulePolicy {
            rules,
            none: Arc::default(),
        });
        Ok(Self {
            passwords,
            tokens,
            policy,
        })
    }

    /// Returns whether nobody can log in. A user that is added then can, without another look at the files.
    pub fn has_no_users(&self) -> bool {
        self.passwords.users().is_empty()
    }

    /// Returns what determines who sends a request.
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(CredentialAuthenticator {
            passwords: Arc::clone(&self.passwords),
            tokens: Arc::clone(&self.tokens),
        })
    }

    /// Returns what decides about requests.
    pub fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.policy) as _
    }

    /// Returns what issues tokens.
    pub fn token_issuer(&self) -> TokenIssuer {
        TokenIssuer {
            passwords: Arc::clone(&self.passwords),
            tokens: Arc::clone(&self.tokens),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl TokenIssuer {
    /// Returns whose name and password these are; `None` if they are wrong.
    pub(crate) async fn log_in(
        &self,
        client: IpAddr,
        name: &str,
        password: &str,
    ) -> Result<Option<Caller>, Refused> {
        let (name, password) = (name.to_owned(), password.to_owned());
        self.passwords.log_in(client, name, password).wait().await?
    }

    /// Returns the part of `wanted` that `caller` may have.
    pub(crate) fn granted(&self, caller: &Caller, wanted: Vec<Scope>) -> Vec<Scope> {
        let rules = self.policy.rules();
        let may_list = !caller.is_anonymous();
        let has = |right: Right, name: &RepositoryName| rules.has(caller, right, name);
        let granted = wanted
            .into_iter()
            .filter_map(|scope| scope.granted(may_list, has));
        granted.collect()
    }

    /// Issues a token for what was granted to `caller`. Returns `None` if the user is gone.
    pub(crate) fn issue(
        &self,
        caller: &Caller,
        granted: Vec<Scope>,
    ) -> Result<Option<IssuedToken>, AccessError> {
        let subject = &caller.subject;
        if caller.is_anonymous() {
            return self.tokens.issue(subject, "", granted).map(Some);
        }
        let user = self.passwords.users().get(subject);
        user.map(|user| self.tokens.issue(subject, user.password_id(), granted))
            .transpose()
    }
}

impl RulePolicy {
    fn rules(&self) -> Arc<AccessRules> {
        match &self.rules {
            Some(rules) => rules.value(),
            None => Arc::clone(&self.none),
        }
    }
}

impl Policy for RulePolicy {
    fn decide<'a>(
        &'a self,
        caller: &'a Caller,
        permission: Permission<'a>,
    ) -> Decision<'a, Verdict> {
        let verdict = self.rules().decide(caller, permission);
        let is_covered = caller
            .scope
            .as_ref()
            .is_none_or(|scope| scope.covers(permission));
        // With another token the same caller may do it.
        let lacks_scope = verdict == Verdict::Granted && !is_covered;
        Decision::Ready(if lacks_scope {
            Verdict::Unauthenticated
        } else {
            verdict
        })
    }
}
