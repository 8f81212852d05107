//! Authentication and challenges: which sender a request has, and how a 401 tells a client to authenticate. The
//! authenticator and the policy are defined in this file. Both answer asynchronously, as ones that ask another server
//! do.

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

/// Knows the token of `alice`, and counts how often it is called.
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
                    ..Caller::default()
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

/// Allows every pull, and pushes of `alice` to `alice/...`.
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

/// Begins an upload, with a token or without.
async fn push(client: &Client, name: &str, token: Option<&str>) -> tonnage_tests::client::Answer {
    let mut call = client.call(Method::POST, &format!("/v2/{name}/blobs/uploads/"));
    if let Some(token) = token {
        call = call.header("authorization", format!("Bearer {token}"));
    }
    call.send().await
}

/// Guards: the policy decides about the caller that the authenticator found. A 401 names the way to authenticate for
/// the requested permission (RFC 9110 section 15.5.2).
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

/// Guards: invalid credentials are rejected on every path, also where none are needed and where no route exists. The
/// rest of the request is not processed.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_credentials_are_rejected_first() {
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

/// Guards: a server without an authenticator ignores credentials, because clients send those for another registry to
/// every registry.
#[tokio::test(flavor = "multi_thread")]
async fn anonymous_servers_ignore_credentials() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let call = client.call(Method::GET, &format!("/v2/a/blobs/{digest}"));
    let answer = call.header("authorization", "Basic dTpw").send().await;
    assert!(answer.expect(200).lacks("www-authenticate"));
}
