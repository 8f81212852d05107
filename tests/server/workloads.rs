//! Workload identity: tokens of other issuers log in, and what they are worth.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tonnage_server::admin::{AdminRequest, OpenStore, Whence, execute};
use tonnage_tests::client::Answer;

use crate::guarded::{Guarded, NOTICED, RULES};
use crate::sha256;

/// An issuer of tokens, with its discovery document and its keys.
struct Issuer {
    url: String,
    /// The keys that it shows; `None` for an issuer that fails.
    shown: Arc<Mutex<Option<JwkSet>>>,
    /// Requests for keys.
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self {
            url: url.clone(),
            shown: Arc::default(),
            asked: Arc::default(),
        };
        let (shown, asked) = (Arc::clone(&issuer.shown), Arc::clone(&issuer.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let line = lines.next().unwrap_or_default();
                for _ in lines.by_ref().take_while(|line| !line.is_empty()) {}
                let keys = shown.lock().unwrap().clone();
                let body = match (line.split(' ').nth(1), keys) {
                    (Some("/.well-known/openid-configuration"), Some(_)) => {
                        json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string()
                    }
                    (Some("/keys"), Some(keys)) => {
                        asked.fetch_add(1, Ordering::SeqCst);
                        serde_json::to_string(&keys).unwrap()
                    }
                    _ => String::new(),
                };
                let status = if body.is_empty() { 500 } else { 200 };
                let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: ");
                drop(write!(stream, "{head}{}\r\n\r\n{body}", body.len()));
            }
        });
        issuer
    }

    fn show(&self, keys: &[&Key]) {
        let keys = keys.iter().map(|key| key.public.clone()).collect();
        *self.shown.lock().unwrap() = Some(JwkSet { keys });
    }
}

/// Length of what PKCS #8 has before an RSA key of 2048 bits in the form of PKCS #1.
const PKCS8_BEFORE_PKCS1: usize = 26;

/// A key of an issuer.
struct Key {
    algorithm: Algorithm,
    private: EncodingKey,
    public: Jwk,
}

impl Key {
    fn new(id: &str, algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        let private = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_der(&der[PKCS8_BEFORE_PKCS1..]),
            Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
            _ => EncodingKey::from_ec_der(&der),
        };
        let mut public = if algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
            let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
            serde_json::from_value(public).unwrap()
        } else {
            Jwk::from_encoding_key(&private, algorithm).unwrap()
        };
        public.common.key_id = Some(id.to_owned());
        Self {
            algorithm,
            private,
            public,
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.public.common.key_id);
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn rules(issuer: &str) -> String {
    format!(
        "{RULES}
        [[issuer]]
        url = '{issuer}'
        audience = ['registry.example', 'other.example']
        [[issuer.user]]
        name = 'pusher'
        claims = {{ repository_id = '7', ref = ['refs/heads/main', 'refs/tags/*'] }}
        [[issuer.user]]
        name = 'workload'
        claims = {{ 'kubernetes.io/namespace' = 'prod' }}
        "
    )
}

fn claims(issuer: &Issuer) -> Value {
    json!({"iss": issuer.url, "sub": "repo:team/app", "aud": "registry.example", "exp": now() + 200,
        "iat": now(), "nbf": now(), "repository_id": "7", "ref": "refs/heads/main", "run_id": "123",
        "sha": "abc", "unknown": "x"})
}

const SCOPE: &str = "repository:team/app:pull,push,delete";

async fn by_password(guarded: &Guarded, token: &str) -> Answer {
    let path = format!("/token?service=tonnage&offline_token=true&scope={SCOPE}");
    guarded.send(("oidc", token), "GET", &path, b"").await
}

async fn by_exchange(guarded: &Guarded, token: &str, kind: &str) -> Answer {
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
         &subject_token_type=urn:ietf:params:oauth:token-type:{kind}&scope={SCOPE}"
    );
    guarded
        .send(("", ""), "POST", "/token", form.as_bytes())
        .await
}

/// Guards: a token of a named issuer, for this registry, with the named claims, logs in the user that rules name,
/// with any usual algorithm, as password and by exchange (RFC 8693). Its own end is the end of what it gets, which is
/// no refresh token. The user ends with the rules.
#[tokio::test(flavor = "multi_thread")]
async fn workloads_log_in() {
    let issuer = Issuer::start();
    let guarded = Guarded::with_rules(&rules(&issuer.url)).await;
    let keys = [
        Key::new("rsa", Algorithm::RS256),
        Key::new("ec", Algorithm::ES256),
        Key::new("ed", Algorithm::EdDSA),
    ];
    issuer.show(&keys.each_ref());
    for key in &keys {
        let token = key.sign(&claims(&issuer));
        let answer = by_password(&guarded, &token).await.expect(200).json();
        let left = answer["expires_in"].as_u64().unwrap();
        assert!((150..=200).contains(&left), "{left}");
        assert!(answer["refresh_token"].is_null());
        let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
        for (method, path, expected) in [
            ("POST", "/v2/team/app/blobs/uploads/", 202),
            ("DELETE", "/v2/team/app/manifests/v1", 403),
            ("POST", "/v2/other/a/blobs/uploads/", 403),
        ] {
            let answer = guarded.send_with(&bearer, method, path, b"").await;
            assert_eq!(answer.status, expected, "{method} {path}");
        }
        for kind in ["id_token", "jwt", "access_token"] {
            let answer = by_exchange(&guarded, &token, kind).await.expect(200).json();
            assert_eq!(answer["scope"], "repository:team/app:pull,push");
            let issued = "urn:ietf:params:oauth:token-type:access_token";
            assert_eq!(answer["issued_token_type"], issued);
        }
        by_exchange(&guarded, &token, "saml2").await.expect(400);
        // It is no token of this registry.
        let direct = format!("Bearer {token}");
        guarded
            .send_with(&direct, "GET", "/v2/", b"")
            .await
            .expect(401);
    }
    assert_eq!(
        issuer.asked.load(Ordering::SeqCst),
        1,
        "keys are remembered"
    );
    pushed_by_a_build(&guarded, &keys[0].sign(&claims(&issuer))).await;
    let pod = json!({"iss": issuer.url, "aud": ["x", "other.example"], "exp": now() + 1000,
        "kubernetes.io": {"namespace": "prod"}});
    let answer = by_password(&guarded, &keys[1].sign(&pod))
        .await
        .expect(200)
        .json();
    assert_eq!(answer["expires_in"], 300);
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    let ping = async || guarded.send_with(&bearer, "GET", "/v2/", b"").await.status;
    assert_eq!(ping().await, 200);
    guarded.write_rules(&rules(&issuer.url).replace("'workload'", "'another'"));
    let ended = async { while ping().await != 401 {} };
    assert!(tokio::time::timeout(NOTICED, ended).await.is_ok());
}

/// Checks that the claims of a workload are kept with the manifest that it pushes.
async fn pushed_by_a_build(guarded: &Guarded, token: &str) {
    let answer = by_password(guarded, token).await.expect(200).json();
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    let (manifest, _) = guarded.push("team/other").await;
    let config = &serde_json::from_slice::<Value>(&manifest).unwrap()["config"]["digest"];
    let mount = format!(
        "/v2/team/app/blobs/uploads/?mount={}",
        config.as_str().unwrap()
    );
    guarded
        .send(
            ("boss", "right"),
            "POST",
            &format!("{mount}&from=team/other"),
            b"",
        )
        .await
        .expect(201);
    let path = "/v2/team/app/manifests/built";
    guarded
        .send_with(&bearer, "PUT", path, &manifest)
        .await
        .expect(201);
    let store = OpenStore::new(guarded.registry.store.clone());
    let digest = sha256(&manifest).to_string();
    let answer = execute(&store, AdminRequest::Whence(Whence { digest })).await;
    let answer = serde_json::to_value(answer.unwrap()).unwrap();
    let manifests = answer["manifests"].as_array().unwrap();
    let built = manifests.iter().find(|one| one["repository"] == "team/app");
    let pushed = &built.unwrap()["pushed"];
    assert_eq!(pushed["by"], "pusher", "{answer}");
    let kept =
        json!({"ref": "refs/heads/main", "repository_id": "7", "run_id": "123", "sha": "abc"});
    assert_eq!(pushed["provenance"]["claims"], kept, "{answer}");
}

/// Guards: a token that differs in one thing from a valid one logs in nobody: its time, audience, issuer, claims, key
/// or algorithm. A key that the token names itself is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_log_in_nobody() {
    let issuer = Issuer::start();
    let guarded = Guarded::with_rules(&rules(&issuer.url)).await;
    let [key, other] = ["one", "one"].map(|id| Key::new(id, Algorithm::ES256));
    issuer.show(&[&key]);
    by_password(&guarded, &key.sign(&claims(&issuer)))
        .await
        .expect(200);
    let with = |name: &str, value: Value| {
        let mut claims = claims(&issuer);
        claims[name] = value;
        if claims[name].is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
        key.sign(&claims)
    };
    let mut named = Header::new(Algorithm::ES256);
    named.kid = Some("one".to_owned());
    named.jwk = Some(other.public.clone());
    let mut symmetric = Header::new(Algorithm::HS256);
    symmetric.kid = Some("one".to_owned());
    let secret = EncodingKey::from_secret(serde_json::to_string(&key.public).unwrap().as_bytes());
    let sign = |header: &Header, key: &EncodingKey| {
        jsonwebtoken::encode(header, &claims(&issuer), key).unwrap()
    };
    for (what, token) in [
        ("expired", with("exp", (now() - 61).into())),
        ("no end", with("exp", Value::Null)),
        ("not yet", with("nbf", (now() + 100).into())),
        ("audience", with("aud", "x.example".into())),
        ("no audience", with("aud", Value::Null)),
        ("issuer", with("iss", "https://x.example".into())),
        ("slash", with("iss", format!("{}/", issuer.url).into())),
        ("claim", with("ref", "refs/heads/other".into())),
        ("no claim", with("repository_id", Value::Null)),
        ("key", other.sign(&claims(&issuer))),
        ("named key", sign(&named, &other.private)),
        ("symmetric", sign(&symmetric, &secret)),
        ("long", with("unknown", "x".repeat(20_000).into())),
    ] {
        let refused = by_password(&guarded, &token).await;
        // A long one does not fit in the head.
        assert!(
            [401, 431].contains(&refused.status.as_u16()),
            "{what}: {}",
            refused.status
        );
        let refused = by_exchange(&guarded, &token, "jwt").await;
        assert_eq!(refused.status, 401, "{what}");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}

/// Guards: a new key of an issuer is found, but nobody makes the registry ask more than once a minute. While an issuer
/// cannot be asked, its first tokens are answered 503, and others log in as before.
#[tokio::test(flavor = "multi_thread")]
async fn issuers_are_asked_rarely() {
    let issuer = Issuer::start();
    let guarded = Guarded::with_rules(&rules(&issuer.url)).await;
    let [first, second] = ["first", "second"].map(|id| Key::new(id, Algorithm::ES256));
    let token = first.sign(&claims(&issuer));
    by_password(&guarded, &token).await.expect(503);
    guarded
        .send(("reader", "right"), "GET", "/v2/", b"")
        .await
        .expect(200);
    issuer.show(&[&first]);
    by_password(&guarded, &token).await.expect(503);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);

    let guarded = Guarded::with_rules(&rules(&issuer.url)).await;
    by_password(&guarded, &token).await.expect(200);
    issuer.show(&[&first, &second]);
    for _ in 0..10 {
        let unknown = second.sign(&claims(&issuer));
        by_password(&guarded, &unknown).await.expect(401);
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}

/// Guards: with another token service, challenges name it, and its tokens allow what they name, whoever the user is;
/// rules only keep immutable tags. Tokens of other keys or for others are refused, and own users log in as before.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_service_are_accepted() {
    let issuer = Issuer::start();
    let server = format!(
        "{RULES}
        [token_service]
        issuer = 'auth.example'
        service = 'registry.example'
        realm = 'https://auth.example/token'
        keys = '{}/keys'
        ",
        issuer.url
    );
    let guarded = Guarded::with_rules(&server).await;
    let [key, other] = ["one", "one"].map(|id| Key::new(id, Algorithm::ES256));
    issuer.show(&[&key]);
    let token = |key: &Key, audience: &str, actions: &[&str]| {
        let access = json!([{"type": "repository", "name": "team/app", "actions": actions}]);
        let claims = json!({"iss": "auth.example", "sub": "boss", "aud": audience, "exp": now() + 100,
            "access": access});
        format!("Bearer {}", key.sign(&claims))
    };
    let (service, all) = ("registry.example", &["pull", "push", "delete"][..]);
    let (manifest, _) = guarded.push("team/app").await;
    let path = |tag: &str| format!("/v2/team/app/manifests/{tag}");
    let changed = [&manifest[..], b" "].concat();
    for (authorization, method, path, body, expected) in [
        (
            token(&key, service, all),
            "PUT",
            path("new"),
            &manifest,
            201,
        ),
        (token(&key, service, all), "PUT", path("new"), &changed, 201),
        (token(&key, service, all), "PUT", path("v1"), &manifest, 201),
        (token(&key, service, all), "PUT", path("v1"), &changed, 403),
        (
            token(&key, service, all),
            "DELETE",
            path("v1"),
            &manifest,
            403,
        ),
        (
            token(&key, service, all),
            "GET",
            "/v2/open/tags/list".to_owned(),
            &manifest,
            401,
        ),
        (
            token(&key, service, all),
            "GET",
            "/v2/_catalog".to_owned(),
            &manifest,
            401,
        ),
        (
            token(&key, service, &["pull"]),
            "GET",
            path("new"),
            &manifest,
            200,
        ),
        (
            token(&key, service, &["pull"]),
            "PUT",
            path("new"),
            &manifest,
            401,
        ),
        (
            token(&key, service, &[]),
            "GET",
            "/v2/".to_owned(),
            &manifest,
            200,
        ),
        (
            token(&key, "x.example", all),
            "GET",
            path("new"),
            &manifest,
            401,
        ),
        (
            token(&other, service, all),
            "GET",
            path("new"),
            &manifest,
            401,
        ),
        (
            token(&key, service, all),
            "GET",
            "/token".to_owned(),
            &manifest,
            401,
        ),
    ] {
        let answer = guarded.send_with(&authorization, method, &path, body).await;
        assert_eq!(
            answer.status, expected,
            "{method} {path}: {:?}",
            answer.body
        );
        if expected == 401 && path != "/token" {
            let challenge = answer.header("www-authenticate");
            let begin = "Bearer realm=\"https://auth.example/token\",service=\"registry.example\"";
            assert!(challenge.starts_with(begin), "{challenge}");
        }
    }
    guarded
        .send(("boss", "right"), "GET", &path("new"), b"")
        .await
        .expect(200);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}
