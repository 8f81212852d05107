//! One order: from the names to their certificate.
//!
//! Owns: [`fetch`]. It asks for the verification of each name, answers by a challenge, and waits for the certificate.
//!
//! Invariants: an order has at most as many authorizations as names, so that the answers to keep are limited. Only
//! names that were ordered are verified and certified.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationState, AuthorizationStatus, ChallengeStatus, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::crypto::CryptoProvider;

use super::super::error::TlsError;
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
    let profiles = account.profiles().map(|profile| profile.name);
    if let Some(profile) = profile(&identifiers, profiles) {
        new = new.profile(profile);
    }
    let mut order = account.new_order(&new).await?;
    // Shown until it is known how all of them ended: an authority may look at one again.
    let mut shown = Vec::new();
    if let Err(error) = verify(&mut order, names, challenges, provider, &mut shown).await {
        // The order, and a challenge that is answered once another has failed, say less than the one that failed.
        return Err(not_verified(&mut order, names).await.unwrap_or(error));
    }
    drop(shown);
    let (key, request) = certificate_request(names)?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&POLLING).await?;
    Ok(Fetched { chain, key })
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// Returns the profile to order, if the authority has one for such names.
fn profile<'a>(
    identifiers: &[Identifier],
    mut offered: impl Iterator<Item = &'a str>,
) -> Option<&'static str> {
    let mut identifiers = identifiers.iter();
    let has_address = identifiers.any(|name| matches!(name, Identifier::Ip(_)));
    let is_offered = has_address && offered.any(|name| name == SHORT_LIVED);
    is_offered.then_some(SHORT_LIVED)
}

/// Makes a key in PEM form, and a request for a certificate with it (PKCS#10) in DER form.
fn certificate_request(names: &[String]) -> Result<(String, Vec<u8>), TlsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate()?;
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key.serialize_pem(), request))
}

/// Fails if an order has more authorizations than names. Each one that is read stays in memory as long as the order.
fn check_count(order: &mut Order, names: &[String]) -> Result<(), AcmeError> {
    let count = order.state().authorizations.len();
    if count > names.len() {
        let why = format!(
            "an order of {} names has {count} authorizations",
            names.len()
        );
        return Err(AcmeError::Refused(why));
    }
    Ok(())
}

/// Returns the name that an authorization is for, as it was ordered.
fn ordered<'a>(state: &AuthorizationState, names: &'a [String]) -> Result<&'a str, AcmeError> {
    let identifier = state.identifier().to_string();
    let mut names = names.iter();
    let found = names.find(|name| name.eq_ignore_ascii_case(&identifier));
    found.map(|name| &**name).ok_or_else(|| {
        let identifier = printable(&identifier);
        AcmeError::Refused(format!("it verifies {identifier}, which was not ordered"))
    })
}

/// Has the authority verify all names that it has not verified yet. Adds what it is shown for that to `shown`.
async fn verify(
    order: &mut Order,
    names: &[String],
    challenges: &Arc<Challenges>,
    provider: &CryptoProvider,
    shown: &mut Vec<ShownChallenge>,
) -> Result<(), AcmeError> {
    check_count(order, names)?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = ordered(&authorization, names)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if authorization.status != AuthorizationStatus::Pending {
            let why = format!("the authorization is {:?}", authorization.status);
            let name = name.to_owned();
            return Err(AcmeError::NotVerified { name, why });
        }
        let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
            return Err(AcmeError::NoChallenge(name.to_owned()));
        };
        let digest = challenge.key_authorization().digest();
        let Ok(digest) = <&[u8; 32]>::try_from(digest.as_ref()) else {
            return Err(AcmeError::NoChallenge(name.to_owned()));
        };
        shown.push(challenges.show(name, digest, provider)?);
        challenge.set_ready().await?;
    }
    match order.poll_ready(&POLLING).await? {
        OrderStatus::Ready => Ok(()),
        OrderStatus::Pending
        | OrderStatus::Processing
        | OrderStatus::Valid
        | OrderStatus::Invalid => {
            let why = "the order has become invalid".to_owned();
            Err(AcmeError::Refused(why))
        }
    }
}

/// Returns the error with the name that the authority could not verify; `None` if it names none, or cannot be asked.
async fn not_verified(order: &mut Order, names: &[String]) -> Option<AcmeError> {
    check_count(order, names).ok()?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        // One that is still tried may have an error, too (RFC 8555 section 8.2).
        let challenges = state.challenges.iter();
        let mut failed = challenges.filter(|of| of.status == ChallengeStatus::Invalid);
        if let Some(error) = failed.find_map(|challenge| challenge.error.as_ref()) {
            let why = error.detail.clone().unwrap_or_else(|| error.to_string());
            return Some(AcmeError::NotVerified {
                name: ordered(state, names).ok()?.to_owned(),
                why: printable(&why),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, NewAccount};

    use super::*;

    /// An authority whose orders have two authorizations. The first name cannot be verified, and the order is invalid
    /// before the challenge of the second is answered.
    #[derive(Default)]
    struct Authority {
        is_invalid: AtomicBool,
    }

    impl Authority {
        /// Returns the status of the answer to a request for `path`, and its body.
        fn answer(&self, path: &str) -> (u16, String) {
            let authorization = |name: &str, challenge: serde_json::Value| {
                let identifier = serde_json::json!({"type": "dns", "value": name});
                let state = serde_json::json!({
                    "identifier": identifier, "status": "pending", "challenges": [challenge],
                });
                (200, state.to_string())
            };
            let mut challenge = serde_json::json!({
                "type": "tls-alpn-01", "url": format!("{path}/challenge"), "token": "t", "status": "pending",
            });
            match path {
                "/" => (
                    200,
                    r#"{"newNonce": "/nonce", "newAccount": "/account", "newOrder": "/order"}"#
                        .to_owned(),
                ),
                "/order" => (
                    200,
                    r#"{"status": "pending", "authorizations": ["/1", "/2"], "finalize": ""}"#
                        .to_owned(),
                ),
                "/nonce" | "/account" => (200, String::new()),
                "/1" => {
                    if self.is_invalid.load(Ordering::Relaxed) {
                        challenge["status"] = "invalid".into();
                        challenge["error"] = serde_json::json!({"detail": "nobody listens"});
                    }
                    authorization("a.example", challenge)
                }
                "/2" => authorization("b.example", challenge),
                "/1/challenge" => (200, challenge.to_string()),
                "/2/challenge" => {
                    self.is_invalid.store(true, Ordering::Relaxed);
                    (400, r#"{"detail": "the order is invalid"}"#.to_owned())
                }
                path => panic!("{path}"),
            }
        }
    }

    impl HttpClient for Authority {
        fn request(
            &self,
            request: Request<BodyWrapper<Bytes>>,
        ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
            let (status, body) = self.answer(request.uri().path());
            let answer = Response::builder()
                .status(status)
                .header("replay-nonce", "1")
                .header("location", "/");
            let answer = answer.body(Full::new(Bytes::from(body))).unwrap();
            Box::pin(std::future::ready(Ok(answer.into())))
        }
    }

    /// Returns why an order of these names fails.
    async fn failure(names: &[&str]) -> String {
        let new = NewAccount {
            contact: &[],
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = Account::builder_with_http(Box::new(Authority::default()));
        let (account, _) = builder.create(&new, "/".to_owned(), None).await.unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let fetched = fetch(&account, &names, &Arc::default(), &provider).await;
        fetched.err().unwrap().to_string()
    }

    /// Guards: an order with more authorizations than names is refused before one of them is read.
    #[tokio::test]
    async fn orders_are_bounded() {
        let error = failure(&["a.example"]).await;
        assert!(error.contains("2 authorizations"), "{error}");
    }

    /// Guards: the error is of the name that could not be verified, also if the authority has found out before all
    /// challenges are answered, and refuses the others.
    #[tokio::test]
    async fn the_name_that_failed_is_reported() {
        let error = failure(&["a.example", "b.example"]).await;
        let reported = error.contains("verify a.example") && error.contains("nobody listens");
        assert!(reported, "{error}");
    }

    /// Guards: certificates with an address are ordered under the profile that has them, where there is one.
    #[test]
    fn addresses_need_a_profile() {
        for (names, offered, expected) in [
            (&["a.example"][..], &["classic", SHORT_LIVED][..], None),
            (&["10.0.0.7"], &["classic"], None),
            (&["10.0.0.7"], &["classic", SHORT_LIVED], Some(SHORT_LIVED)),
            (
                &["a.example", "2001:db8::1"],
                &[SHORT_LIVED],
                Some(SHORT_LIVED),
            ),
        ] {
            let names: Vec<_> = names.iter().map(|name| identifier(name)).collect();
            let found = profile(&names, offered.iter().copied());
            assert_eq!(found, expected, "{names:?} {offered:?}");
        }
    }

    /// Guards: only a name that was ordered is verified, and a name of the authority is bounded and printable.
    #[test]
    fn only_names_that_were_ordered_are_verified() {
        let names = ["a.example".to_owned(), "2001:db8::1".to_owned()];
        let state = |kind: &str, value: &str, wildcard: bool| -> AuthorizationState {
            let identifier = serde_json::json!({"type": kind, "value": value});
            serde_json::from_value(serde_json::json!({
                "identifier": identifier, "status": "pending", "challenges": [], "wildcard": wildcard,
            }))
            .unwrap()
        };
        let long = "\u{1b}x".repeat(10_000);
        for (state, expected) in [
            (state("dns", "A.example", false), Some("a.example")),
            (state("ip", "2001:DB8:0::1", false), Some("2001:db8::1")),
            (state("dns", "a.example", true), None),
            (state("dns", &long, false), None),
        ] {
            match ordered(&state, &names) {
                Ok(name) => assert_eq!(Some(name), expected),
                Err(error) => {
                    let error = error.to_string();
                    assert!(expected.is_none() && error.len() < 1000, "{error}");
                    assert!(!error.contains('\u{1b}'), "{error}");
                }
            }
        }
    }
}
