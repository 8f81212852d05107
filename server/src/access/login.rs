//! Logging in with a name and a password.
//!
//! Owns: [`Login`]: which kind of credential a password is, and whom a credential still identifies. Refuses: passwords
//! (`users::passwords`), API keys (`api_keys`) and tokens of workloads (`workloads`) themselves.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::api_keys::{ApiKeySecret, ApiKeys};
use super::rules::CurrentRules;
use super::users::passwords::Passwords;
use super::workloads::{self, Workloads};
use super::{Caller, CallerName, Credential, Decision, Refused};
use crate::tls::ClientName;

/// Everything that a password may be.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) passwords: Arc<Passwords>,
    pub(super) api_keys: Arc<ApiKeys>,
    pub(super) workloads: Arc<Workloads>,
    pub(super) rules: CurrentRules,
}

impl Login {
    /// Determines whose name and password these are; nobody's if they are wrong.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if too many logins wait.
    pub(super) fn log_in(
        &self,
        client: IpAddr,
        name: String,
        password: String,
    ) -> Decision<'static, Result<Option<Caller>, Refused>> {
        // The token says whose it is, so the name means nothing. Clients need one.
        if let Some(issuer) = workloads::claimed_issuer(&password)
            && self.has_issuer(&issuer)
        {
            let this = self.clone();
            let looking = async move { this.by_workload(&issuer, &password).await };
            return Decision::Pending(looking.boxed());
        }
        let Some(key) = ApiKeySecret::read(&password) else {
            return self.passwords.log_in(client, name, password);
        };
        if self.api_keys.has(&key) {
            return Decision::Ready(Ok(self.by_key(&name, &key)));
        }
        // A key that a command made a moment ago is known at once. Anyone can cause this, so logins take turns.
        let this = self.clone();
        let looking = async move {
            let api_keys = Arc::clone(&this.api_keys);
            let look = move || {
                api_keys.reload();
                true
            };
            this.passwords.in_turn(client, look).await?;
            Ok(this.by_key(&name, &key))
        };
        Decision::Pending(looking.boxed())
    }

    /// Returns whom a workload's token logs in; `None` for nobody.
    pub(super) async fn by_token(&self, token: &str) -> Result<Option<Caller>, Refused> {
        match workloads::claimed_issuer(token) {
            Some(issuer) => self.by_workload(&issuer, token).await,
            None => Ok(None),
        }
    }

    fn has_issuer(&self, url: &str) -> bool {
        let rules = self.rules.get();
        rules.issuers().iter().any(|issuer| issuer.url == url)
    }

    async fn by_workload(&self, issuer: &str, token: &str) -> Result<Option<Caller>, Refused> {
        let rules = self.rules.get();
        let known = rules.issuers().iter().find(|known| known.url == issuer);
        let Some(issuer) = known else {
            return Ok(None);
        };
        let caller = self.workloads.log_in(issuer, token).await;
        // Why they are not known is in the log.
        caller.map_err(|_unknown| Refused::Unavailable)
    }

    /// Returns whom the certificate of a connection names: a user of the list, or any other name, which may be in the
    /// rules. Returns `None` for a name that nobody can have, and for one that has ended.
    pub(super) fn by_certificate(&self, name: &ClientName) -> Option<Caller> {
        let subject: CallerName = name.current()?.parse().ok()?;
        let mut caller = self.named(&String::from(subject));
        caller.credential = Some(Credential::Certificate {
            until_unix_s: name.until_unix_s(),
        });
        Some(caller)
    }

    /// Returns the caller of a name that somebody else vouches for.
    fn named(&self, name: &str) -> Caller {
        let user = self.passwords.users().get(name);
        Caller {
            subject: name.to_owned(),
            is_admin: user.is_some_and(|user| user.is_admin),
            ..Caller::default()
        }
    }

    fn by_key(&self, name: &str, key: &ApiKeySecret) -> Option<Caller> {
        self.api_keys.log_in(name, key, self.passwords.users())
    }

    /// Returns whom a token is for that was issued for this credential; `None` if that is not valid any more.
    pub(super) fn holder(&self, subject: &str, credential: Option<&Credential>) -> Option<Caller> {
        let users = self.passwords.users();
        let holder = match credential {
            None => Caller::default(),
            Some(Credential::Password(id)) => {
                let user = users.get(subject)?;
                // Another password, or another user of the same name, ends the token.
                (user.password_id() == &**id).then(|| user.caller(subject))?
            }
            Some(Credential::Key(id)) => self.api_keys.holder(id, users)?,
            // A token ends with the certificate.
            Some(Credential::Certificate { .. }) => self.named(subject),
            Some(Credential::Workload { issuer, .. }) => {
                let rules = self.rules.get();
                let known = rules.issuers().iter().find(|known| *known.url == **issuer);
                known?.has_user(subject).then(|| Caller {
                    subject: subject.to_owned(),
                    ..Caller::default()
                })?
            }
        };
        (holder.subject == subject).then_some(holder)
    }
}
