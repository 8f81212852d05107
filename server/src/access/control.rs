//! Access control with users and rules.
//!
//! Owns: [`AccessControl`]: the authenticator and the policy of a registry, and when their files are read again.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::api_keys::{ApiKeys, cover};
use super::credentials::CredentialAuthenticator;
use super::external_tokens::ExternalTokens;
use super::login::Login;
use super::rules::{AccessRules, CurrentRules};
use super::tokens::{IssuedToken, Scope, TokenService};
use super::users::passwords::Passwords;
use super::users::{OwnUsers, UserEntry, Users};
use super::{
    AccessError, Authenticator, Caller, Credential, Decision, Permission, Policy, Refused, Verdict,
};
use crate::kept_files::FileError;
use crate::repeated::every_second;

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
    login: Login,
    tokens: Arc<TokenService>,
    policy: Arc<RulePolicy>,
}

/// Issues tokens to who logs in, and to anyone for what needs no credentials.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    login: Login,
    tokens: Arc<TokenService>,
    policy: Arc<RulePolicy>,
}

/// Decides by the rules.
#[derive(Debug)]
struct RulePolicy {
    rules: CurrentRules,
}

impl AccessOptions {
    /// Returns the user of this name, with a password.
    pub fn find_user(&self, name: &str) -> Result<Option<UserEntry>, AccessError> {
        Ok(self.open_users()?.get(name))
    }

    /// Returns the caller of this name: a user with a password, a robot account or a workload; `None` if there is none.
    pub fn find_caller(&self, name: &str) -> Result<Option<Caller>, AccessError> {
        if let Some(user) = self.find_user(name)? {
            return Ok(Some(user.caller(name)));
        }
        let rules = self.current_rules()?;
        let is_workload = rules.issuers().iter().any(|issuer| issuer.has_user(name));
        let is_known = is_workload || self.own.keys().has_robot(name)?;
        Ok(is_known.then(|| Caller {
            subject: name.to_owned(),
            ..Caller::default()
        }))
    }

    fn open_users(&self) -> Result<Users, FileError> {
        Users::open(&self.own, self.htpasswd.clone())
    }

    /// Returns the rules, as the file has them now.
    pub fn current_rules(&self) -> Result<Arc<AccessRules>, AccessError> {
        Ok(CurrentRules::open(self.rules.clone())?.get())
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
    pub fn open(options: &AccessOptions) -> Result<Self, AccessError> {
        let rules = CurrentRules::open(options.rules.clone())?;
        let users = options.open_users()?;
        let login = Login {
            passwords: Arc::new(Passwords::new(users)?),
            api_keys: Arc::new(ApiKeys::open(&options.own.keys())?),
            workloads: Arc::default(),
            rules: rules.clone(),
        };
        let tokens = Arc::new(TokenService::open(options.own.directory())?);
        let read = Read {
            passwords: Arc::downgrade(&login.passwords),
            api_keys: Arc::downgrade(&login.api_keys),
            rules: rules.clone(),
        };
        every_second("tonnage-access", move || read.look()).map_err(AccessError::Thread)?;
        let written = Written {
            api_keys: Arc::downgrade(&login.api_keys),
            tokens: Arc::downgrade(&tokens),
        };
        every_second("tonnage-access-w", move || written.look()).map_err(AccessError::Thread)?;
        let policy = Arc::new(RulePolicy { rules });
        Ok(Self {
            login,
            tokens,
            policy,
        })
    }

    /// Returns whether nobody can log in. A user that is added then can, without another look at the files.
    pub fn has_no_users(&self) -> bool {
        self.login.passwords.users().is_empty()
    }

    /// Returns what determines who sends a request.
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(CredentialAuthenticator {
            login: self.login.clone(),
            tokens: Arc::clone(&self.tokens),
            external: ExternalTokens::default(),
        })
    }

    /// Returns what decides about requests.
    pub fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.policy) as _
    }

    /// Returns what issues tokens.
    pub fn token_issuer(&self) -> TokenIssuer {
        TokenIssuer {
            login: self.login.clone(),
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
        self.login.log_in(client, name, password).wait().await?
    }

    /// Returns whom a refresh token is for; `None` if it is not valid now.
    pub(crate) fn refresh(&self, token: &str) -> Option<Caller> {
        let (subject, credential) = self.tokens.verify_refresh(token)?;
        self.login.holder(&subject, Some(&credential))
    }

    /// Returns the part of `wanted` that `caller` may have.
    pub(crate) fn granted(&self, caller: &Caller, wanted: Vec<Scope>) -> Vec<Scope> {
        let rules = self.policy.rules.get();
        let may_list = !caller.is_anonymous();
        let has = |permission: Permission<'_>| {
            rules.decide(caller, permission) == Verdict::Granted && is_of_key(caller, permission)
        };
        let granted = wanted
            .into_iter()
            .filter_map(|scope| scope.granted(may_list, has));
        granted.collect()
    }

    /// Returns whom a workload's token logs in; `None` for nobody.
    pub(crate) async fn exchange(&self, token: String) -> Result<Option<Caller>, Refused> {
        self.login.by_token(token).wait().await?
    }

    /// Issues a token for what was granted to `caller`.
    pub(crate) fn issue(
        &self,
        caller: &Caller,
        granted: Vec<Scope>,
    ) -> Result<IssuedToken, AccessError> {
        self.tokens.issue(caller, granted)
    }

    /// Issues a refresh token. Returns `None` for who has nothing to be remembered by.
    pub(crate) fn issue_refresh(&self, caller: &Caller) -> Result<Option<String>, AccessError> {
        let issue = |credential: &Credential| {
            let credential = credential.clone();
            self.tokens.issue_refresh(&caller.subject, credential)
        };
        let lasting = caller.credential.as_ref();
        let lasting = lasting.filter(|credential| credential.is_lasting());
        lasting.map(issue).transpose()
    }
}

/// What is read again, as long as a server uses it.
struct Read {
    passwords: Weak<Passwords>,
    api_keys: Weak<ApiKeys>,
    rules: CurrentRules,
}

impl Read {
    /// Reads files that changed. Returns whether to do so again.
    fn look(&self) -> bool {
        let (Some(passwords), Some(api_keys)) = (self.passwords.upgrade(), self.api_keys.upgrade())
        else {
            return false;
        };
        self.rules.reload();
        api_keys.reload();
        passwords.users().reload();
        true
    }
}

/// What is written from time to time. A slow disk does not delay what is read.
struct Written {
    api_keys: Weak<ApiKeys>,
    tokens: Weak<TokenService>,
}

impl Written {
    /// Writes what is due. Returns whether to do so again.
    fn look(&self) -> bool {
        let (Some(api_keys), Some(tokens)) = (self.api_keys.upgrade(), self.tokens.upgrade())
        else {
            return false;
        };
        if let Err(error) = tokens.rotate() {
            tracing::error!(%error, "the key that signs tokens could not be replaced; it stays in use");
        }
        if let Err(error) = api_keys.save_uses() {
            tracing::warn!(%error, "the last uses of API keys could not be written; they are tried again");
        }
        true
    }
}

/// Returns whether the API key of a request, if it has one, is for this permission.
fn is_of_key(caller: &Caller, permission: Permission<'_>) -> bool {
    let scopes = caller.key_scopes.as_deref();
    scopes.is_none_or(|scopes| cover(scopes, permission))
}

impl Policy for RulePolicy {
    fn decide<'a>(
        &'a self,
        caller: &'a Caller,
        permission: Permission<'a>,
    ) -> Decision<'a, Verdict> {
        let scope = caller.scope.as_ref();
        let is_covered = scope.is_none_or(|scope| scope.covers(permission));
        let mut verdict = self.rules.get().decide(caller, permission);
        if verdict == Verdict::Granted && !is_of_key(caller, permission) {
            verdict = Verdict::Denied;
        }
        // With another token the same caller may do it, or does not learn that nobody may.
        let is_decided = verdict == Verdict::Denied && !caller.is_granted_by_scope();
        if !is_covered && !is_decided {
            verdict = Verdict::Unauthenticated;
        }
        Decision::Ready(verdict)
    }
}
