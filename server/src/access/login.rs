//! Logging in with a name and a password.
//!
//! Owns: [`Login`]: which kind of credential a password is, and whom a credential still identifies. Refuses: passwords
//! (`users::passwords`) and API keys (`api_keys`) themselves.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::api_keys::{ApiKeySecret, ApiKeys};
use super::users::passwords::Passwords;
use super::{Caller, Credential, Decision, Refused};

/// Everything that a password may be.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) passwords: Arc<Passwords>,
    pub(super) api_keys: Arc<ApiKeys>,
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
        };
        (holder.subject == subject).then_some(holder)
    }
}
