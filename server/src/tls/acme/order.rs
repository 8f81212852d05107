//! One order: from the names to their certificate.
//!
//! Owns: [`fetch`]. It asks for the verification of each name, answers by a challenge, and waits for the certificate.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rustls::crypto::CryptoProvider;

use super::challenge::{Challenges, ShownChallenge};
use super::error::{AcmeError, printable};

/// The profile under which Let's Encrypt issues certificates for addresses.
const SHORT_LIVED: &str = "shortlived";
/// How often the authority is asked whether it is done.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_mins(3));

/// A chain of certificates with the private key of its first, both in PEM form.
pub(super) struct Fetched {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Fetches a certificate for names and addresses.
pub(super) async fn fetch(
    account: &Account,
    names: &[String],
    challenges: &Arc<Challenges>,
    provider: &CryptoProvider,
) -> Result<Fetched, AcmeError> {
    let identifiers: Vec<_> = names.iter().map(|name| identifier(name)).collect();
    let mut new = NewOrder::new(&identifiers);
    let has_address = identifiers
        .iter()
        .any(|name| matches!(name, Identifier::Ip(_)));
    if has_address
        && account
            .profiles()
            .any(|profile| profile.name == SHORT_LIVED)
    {
        new = new.profile(SHORT_LIVED);
    }
    let mut order = account.new_order(&new).await?;
    let shown = answer(&mut order, challenges, provider).await?;
    let status = order.poll_ready(&POLLING).await;
    if !matches!(status, Ok(OrderStatus::Ready)) {
        // The order says less than the challenge that failed.
        not_verified(&mut order).await?;
    }
    if status? != OrderStatus::Ready {
        return Err(AcmeError::Refused(
            "the order has become invalid".to_owned(),
        ));
    }
    drop(shown);
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLLING).await?;
    Ok(Fetched { chain, key })
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// Answers the challenges of all names that are not verified yet. They are shown until the result drops.
async fn answer(
    order: &mut Order,
    challenges: &Arc<Challenges>,
    provider: &CryptoProvider,
) -> Result<Vec<ShownChallenge>, AcmeError> {
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if authorization.status != AuthorizationStatus::Pending {
            let why = format!("the authorization is {:?}", authorization.status);
            return Err(AcmeError::NotVerified { name, why });
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let Some(mut challenge) = challenge else {
            return Err(AcmeError::NoChallenge(name));
        };
        let digest = challenge.key_authorization().digest();
        let digest = <&[u8; 32]>::try_from(digest.as_ref());
        let Ok(digest) = digest else {
            return Err(AcmeError::NoChallenge(name));
        };
        shown.push(challenges.show(&name, digest, provider)?);
        challenge.set_ready().await?;
    }
    Ok(shown)
}

/// Fails with the name that the authority could not verify, if there is one.
async fn not_verified(order: &mut Order) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        let error = state
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(error) = error {
            let why = error.detail.clone().unwrap_or_else(|| error.to_string());
            let name = state.identifier().to_string();
            let why = printable(&why);
            return Err(AcmeError::NotVerified { name, why });
        }
    }
    Ok(())
}
