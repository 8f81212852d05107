//! Who sends a request, and what a client is told that has to prove it. The authenticator and the policy are of this
//! file: both have to be waited for, as ones that ask another server are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderValue, Method, header};
use tonnage_server::ServerOptions;
use tonnage_server::access::{
    Authenticator, Caller, Challenge, ConnectionFacts, Decision, Permission, Policy, Refused,
    Verdict,
};
use tonnage_tests::client::Client;
use tonnage_tests::registry::TestRegistry;

use crate::{push_blob, sha256};

const INVALID: &str = r#"Bearer realm="https://auth.example/token",error="invalid_token""#;

/// Knows the token of `alice`, and counts how often it is asked.
#[derive(Debug, Default)]
struct Tokens {
    asked: AtomicUsize,
}

impl Authenticator for Tokens {
    fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        connection: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>> {
        let caller = async move {
            tokio::task::yield_now().await;
            self.asked.fetch_add(1, Ordering::Relaxed);
            assert!(connection.peer.ip().is_loopback() && connection.peer.port() > 0);
            match head.headers.get(header::AUTHORIZATION) {
                None => Ok(Caller::default()),
                Some(token) if token == "Bearer of-alice" => Ok(Caller {
                    subject: "alice".to_owned(),
                }),
                Some(_) => Err(Refused::Unauthenticated(Challenge(
                    HeaderValue::from_static(INVALID),
                ))),
            }
        };
        Decision::Pending(caller.boxed())
    }

    fn challenge(&self, permission: Permission<'_>) -> Challenge {
        let scope = match permission {
            Permission::Push(name) => format!("repository:{name}:pull,push"),
            _ => "other".to_owned(),
        };
        let value = format!(r#"Bearer realm="https://auth.example/token",scope="{scope}""#);
        Challenge(value.parse().expect("a header's value"))
    }
}

/// Everybody may pull, and `alice` may push to `alice/...`.
#[derive(Debug)]
struct OwnRepositories;

impl Policy for OwnRepositories {
    fn decide<'a>(
        &'a self,
        caller: &'a Caller,
        permission: Permission<'a>,
    ) -> Decision<'a, Verdict> {
        let verdict = async move {
            tokio::task::yield_now().await;
            match permission {
                Permission::Push(_) if caller.subject.is_empty() => Verdict::Unauthenticated,
                Permission::Push(name) if !name.as_str().starts_with(&caller.subject) => {
                    Verdict::Denied
                }
                _ => Verdict::Granted,
            }
        };
        Decision::Pending(verdict.boxed())
    }
}

async fn start() -> (TestRegistry, Arc<Tokens>) {
    let tokens = Arc::new(Tokens::default());
    let authenticator: Arc<dyn Authenticator> = Arc::clone(&tokens) as _;
    let options = ServerOptions {
        authenticator,
        policy: Arc::new(OwnRepositories),
        ..ServerOptions::default()
    };
    (TestRegistry::with(options).await, tokens)
}

/// Begins an upload with or without a token.
async fn push(client: &Client, name: &str, token: Option<&str>) -> tonnage_tests::client::Answer {
    let mut call = client.call(Method::POST, &format!("/v2/{name}/blobs/uploads/"));
    if let Some(token) = token {
        call = call.header("authorization", format!("Bearer {token}"));
    }
    call.send().await
}

/// Guards: the policy decides about the caller that the authenticator found, and a 401 says how to authenticate for
/// what was asked (RFC 9110 section 15.5.2).
#[tokio::test(flavor = "multi_thread")]
async fn callers_are_authenticated() {
    let (registry, tokens) = start().await;
    let client = registry.client();
    client.get("/v2/").await.expect(200);
    let refused = push(&client, "alice/a", None).await;
    let refused = refused.expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        refused.header("www-authenticate"),
        r#"Bearer realm="https://auth.example/token",scope="repository:alice/a:pull,push""#
    );
    push(&client, "alice/a", Some("of-alice")).await.expect(202);
    let refused = push(&client, "bob/a", Some("of-alice")).await;
    let refused = refused.expect_error(403, "DENIED");
    assert!(refused.lacks("www-authenticate"));
    assert_eq!(tokens.asked.load(Ordering::Relaxed), 4);
}

/// Guards: credentials that do not hold are refused on every path, also where none are needed and where there is
/// nothing, and the rest of the request is not looked at.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_do_not_hold_are_refused_first() {
    let (registry, tokens) = start().await;
    let client = registry.client();
    let paths = [
        "/v2/".to_owned(),
        "/v2/nothing".to_owned(),
        "/v2/BAD/tags/list".to_owned(),
        format!("/v2/a/blobs/{}", sha256(b"")),
    ];
    for path in &paths {
        let call = client.call(Method::GET, path);
        let refused = call.header("authorization", "Bearer stale").send().await;
        let refused = refused.expect_error(401, "UNAUTHORIZED");
        assert_eq!(refused.header("www-authenticate"), INVALID, "{path}");
    }
    assert_eq!(tokens.asked.load(Ordering::Relaxed), paths.len());
}

/// Guards: without an authenticator of its own a server takes credentials for nothing: clients that are logged in
/// elsewhere send them to every registry.
#[tokio::test(flavor = "multi_thread")]
async fn anonymous_servers_read_no_credentials() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let call = client.call(Method::GET, &format!("/v2/a/blobs/{digest}"));
    let answer = call.header("authorization", "Basic dTpw").send().await;
    assert!(answer.expect(200).lacks("www-authenticate"));
}
