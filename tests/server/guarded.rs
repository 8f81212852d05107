//! A registry with access control, and all kinds of senders.
//!
//! Owns: the fixture [`Guarded`] of the tests of access control, its users, keys and rules, and [`SENDERS`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tonnage_engine::Digest;
use tonnage_server::ServerOptions;
use tonnage_server::access::{AccessControl, AccessOptions, KeyOwner, NewApiKey, OwnUsers};
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{MANIFEST, content, sha256};

/// The repository that exists, and one of the same length that does not.
pub const THERE: &str = "team/app";
pub const NOWHERE: &str = "team/nil";
/// Longer than this, a changed file does not go unnoticed on any machine.
pub const NOTICED: std::time::Duration = std::time::Duration::from_secs(30);

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Credentials,
    List,
    Pull,
    Push,
    Delete,
}

/// A kind of sender.
pub struct Sender {
    pub name: &'static str,
    /// The password; `key` and its limits for an API key; `workload` for a token of another issuer; `forged` and what
    /// is wrong for a token that nobody issued.
    pub password: &'static str,
    /// The scope of the token that it sends instead of the password.
    pub token: Option<&'static str>,
    /// What its user may do in the repository.
    pub rights: &'static [Needs],
    /// What of that it may do with its token.
    pub may: &'static [Needs],
}

pub const ALL: &[Needs] = &[
    Needs::Nothing,
    Needs::Credentials,
    Needs::List,
    Needs::Pull,
    Needs::Push,
    Needs::Delete,
];
pub const USER: &[Needs] = &[Needs::Nothing, Needs::Credentials, Needs::List];
pub const READER: &[Needs] = &[Needs::Nothing, Needs::Credentials, Needs::List, Needs::Pull];
pub const PUSHER: &[Needs] = &[
    Needs::Nothing,
    Needs::Credentials,
    Needs::List,
    Needs::Pull,
    Needs::Push,
];
pub const DELETER: &[Needs] = &[
    Needs::Nothing,
    Needs::Credentials,
    Needs::List,
    Needs::Delete,
];
pub const NOBODY: &[Needs] = &[];
#[rustfmt::skip]
pub const SENDERS: [Sender; 37] = [
    user("", "", &[Needs::Nothing]),
    user("reader", "wrong", NOBODY),
    user("nobody", "right", NOBODY),
    user("", "right", NOBODY),
    user("team/app", "right", NOBODY),
    user("other", "right", USER),
    user("reader", "right", READER),
    user("pusher", "right", PUSHER),
    user("deleter", "right", DELETER),
    user("boss", "right", ALL),
    token("reader", "", READER, &[Needs::Credentials]),
    token("reader", "registry:catalog:*", READER, &[Needs::Credentials, Needs::List]),
    token("reader", "repository:team/app:pull repository:team/nil:pull", READER, &[Needs::Credentials, Needs::Pull]),
    token("reader", "repository:team/app:* repository:team/nil:*", READER, &[Needs::Credentials, Needs::Pull]),
    token("pusher", "repository:team/app:pull repository:team/nil:pull", PUSHER, &[Needs::Credentials, Needs::Pull]),
    token("pusher", "repository:other/a:pull,push", PUSHER, &[Needs::Credentials]),
    token("other", "repository:team/app:* repository:team/nil:*", USER, &[Needs::Credentials]),
    token("boss", "repository:team/app:delete repository:team/nil:delete", ALL, &[Needs::Credentials, Needs::Delete]),
    token("", "repository:team/app:pull repository:open:pull", NOBODY, NOBODY),
    user("reader", "key", READER),
    user("robot", "key", PUSHER),
    user("pusher", "key team/*:pull", READER),
    user("boss", "key team/*:push,delete", &[Needs::Nothing, Needs::Credentials, Needs::List, Needs::Pull, Needs::Push, Needs::Delete]),
    user("boss", "key other/*:push", USER),
    user("pusher", "key expired", NOBODY),
    user("pusher", "key revoked", NOBODY),
    user("pusher", "key of reader", NOBODY),
    user("gone", "key", NOBODY),
    Sender { password: "key team/*:pull", ..token("pusher", "repository:team/app:* repository:team/nil:*", READER, &[Needs::Credentials, Needs::Pull]) },
    user("oidc", "workload", PUSHER),
    user("oidc", "workload expired", NOBODY),
    Sender { password: "workload", ..token("oidc", "repository:team/app:* repository:team/nil:*", PUSHER, &[Needs::Credentials, Needs::Pull, Needs::Push]) },
    user("boss", "forged expired", NOBODY),
    user("boss", "forged audience", NOBODY),
    user("boss", "forged signature", NOBODY),
    user("boss", "forged refresh", NOBODY),
    Sender { password: "forged re-created", ..token("boss", "", ALL, &[Needs::Credentials]) },
];

const fn user(name: &'static str, password: &'static str, may: &'static [Needs]) -> Sender {
    Sender {
        name,
        password,
        token: None,
        rights: may,
        may,
    }
}

const fn token(
    name: &'static str,
    scope: &'static str,
    rights: &'static [Needs],
    may: &'static [Needs],
) -> Sender {
    Sender {
        token: Some(scope),
        may,
        ..user(name, "right", rights)
    }
}

pub const RULES: &str = "
    admins = ['boss']
    [groups]
    readers = ['reader']
    [[rule]]
    repositories = 'team/*'
    pull = ['@readers']
    push = ['pusher', 'robot', 'job']
    delete = ['deleter']
    immutable_tags = ['v*']
    [[rule]]
    repositories = 'other/*'
    overwrite = ['other']
    [[rule]]
    repositories = 'open'
    pull = ['anyone']
    [[issuer]]
    url = 'https://issuer.example'
    audience = 'registry.example'
    keys = 'KEYS'
    [[issuer.user]]
    name = 'job'
    claims = { sub = 'job' }
";

/// The file with the keys of the issuer.
const ISSUED: &str = "issued.json";

fn write_rules(directory: &Path, rules: &str) {
    let issued = directory.join(ISSUED).display().to_string();
    let rules = rules.replace("KEYS", &issued);
    std::fs::write(directory.join("rules.toml"), rules).unwrap();
}

/// A registry with access control.
pub struct Guarded {
    pub registry: TestRegistry,
    pub directory: TempDir,
    /// The API keys and tokens of senders, by name and what is said of them.
    pub keys: BTreeMap<(&'static str, &'static str), String>,
}

/// Makes the API keys of all senders.
fn make_keys(options: &AccessOptions) -> BTreeMap<(&'static str, &'static str), String> {
    let (list, mut keys) = (options.own.keys(), BTreeMap::new());
    for sender in &SENDERS {
        let Some(which) = sender.password.strip_prefix("key") else {
            continue;
        };
        let (user, scopes) = match which {
            " of reader" => ("reader", ""),
            " expired" | " revoked" => (sender.name, ""),
            scopes => (sender.name, scopes.trim()),
        };
        let scopes = scopes.split_whitespace().map(|text| text.parse().unwrap());
        let made = list.create(NewApiKey {
            user: user.parse().unwrap(),
            owner: match options.find_user(user).unwrap() {
                Some(user) => KeyOwner::User(user.id().to_owned()),
                None if user == "robot" => KeyOwner::Robot,
                None => KeyOwner::User("somebody".to_owned()),
            },
            label: String::new(),
            scopes: scopes.collect(),
            expires_unix_s: (which == " expired").then_some(1),
        });
        let key = made.unwrap();
        if which == " revoked" {
            assert!(list.revoke(key.id()).unwrap());
        }
        keys.insert((sender.name, sender.password), key.reveal());
    }
    keys
}

impl Guarded {
    pub async fn start() -> Self {
        Self::with_rules(RULES).await
    }

    /// Replaces the rules.
    pub fn write_rules(&self, rules: &str) {
        write_rules(self.directory.path(), rules);
    }

    pub async fn with_rules(rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write_rules(directory.path(), rules);
        let users: BTreeSet<_> = SENDERS.iter().map(|sender| sender.name).collect();
        let known = users
            .into_iter()
            .filter(|name| !["", "nobody", "team/app", "robot", "gone", "oidc"].contains(name));
        // The lowest cost, because passwords are not what is tested.
        let lines = known.map(|name| format!("{name}:{}\n", bcrypt::hash("right", 4).unwrap()));
        std::fs::write(at("htpasswd"), lines.collect::<String>()).unwrap();
        let own = OwnUsers::of(directory.path());
        let options = AccessOptions {
            own,
            htpasswd: Some(at("htpasswd")),
            rules: Some(at("rules.toml")),
        };
        let mut keys = make_keys(&options);
        let tokens = workload_tokens(&at(ISSUED));
        for (name, token) in ["workload", "workload expired"].into_iter().zip(tokens) {
            keys.insert(("oidc", name), token);
        }
        let control = AccessControl::open(&options);
        let control = control.unwrap();
        let options = ServerOptions {
            authenticator: control.authenticator(),
            policy: control.policy(),
            ..ServerOptions::default()
        };
        let registry = TestRegistry::with(ServerOptions {
            token_issuer: Some(control.token_issuer()),
            ..options
        });
        let registry = registry.await;
        Self {
            registry,
            directory,
            keys,
        }
    }

    pub fn client(&self) -> Client {
        self.registry.client()
    }

    /// Sends a request as somebody with a password.
    pub async fn send(&self, who: (&str, &str), method: &str, path: &str, body: &[u8]) -> Answer {
        self.send_with(&basic(who), method, path, body).await
    }

    /// Sends a request with this `Authorization`, unless it is empty.
    pub async fn send_with(
        &self,
        authorization: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let client = self.client();
        let mut call = client
            .call(method, path)
            .header("content-type", MANIFEST)
            // Its length is part of an answer's.
            .header("x-request-id", "matrix");
        if !authorization.is_empty() {
            call = call.header("authorization", authorization);
        }
        call.body(whole(body.to_vec())).send().await
    }

    /// Returns the `Authorization` of a sender, for which a token may be fetched.
    pub async fn authorization(&self, sender: &Sender) -> String {
        if let Some(wrong) = sender.password.strip_prefix("forged ") {
            return format!("Bearer {}", self.forged(sender.name, wrong));
        }
        let anonymous = sender.name.is_empty() && sender.token.is_some();
        let key = self.keys.get(&(sender.name, sender.password));
        let password = match key {
            Some(key) => key,
            None if anonymous => "",
            None => sender.password,
        };
        let who = (sender.name, password);
        let Some(scope) = sender.token else {
            return basic(who);
        };
        let path = format!("/token?service=tonnage&scope={}", scope.replace(' ', "%20"));
        let answer = self.send(who, "GET", &path, b"").await.expect(200).json();
        assert_eq!(
            (&answer["token"], 300),
            (
                &answer["access_token"],
                answer["expires_in"].as_u64().unwrap()
            )
        );
        format!("Bearer {}", answer["token"].as_str().unwrap())
    }

    /// Makes a token that differs from a valid one in one thing.
    pub fn forged(&self, name: &str, wrong: &str) -> String {
        let path = self.directory.path().join("auth/token-keys.toml");
        let file: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let key = &file["key"][0];
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        let mut private = STANDARD.decode(text("private")).unwrap();
        let now = jsonwebtoken::get_current_timestamp();
        let password = OwnUsers::of(self.directory.path());
        let rules = self.directory.path().join("htpasswd");
        let options = AccessOptions {
            own: password,
            htpasswd: Some(rules),
            rules: None,
        };
        let caller = options.find_caller(name).unwrap().unwrap();
        let mut claims = json!({"iss": "tonnage", "sub": name, "aud": "tonnage", "exp": now + 300, "nbf": now,
            "iat": now, "jti": "x", "credential": caller.credential,
            "access": [{"type": "repository", "name": THERE, "actions": ["pull", "push", "delete"]},
                {"type": "repository", "name": NOWHERE, "actions": ["pull", "push", "delete"]}]});
        match wrong {
            "nothing" => {}
            // It is accepted for three more seconds.
            "soon" => claims["exp"] = (now - 57).into(),
            // The clocks of two servers may differ by a minute.
            "expired" => claims["exp"] = (now - 61).into(),
            "audience" => claims["aud"] = "other".into(),
            // For repositories that had these names before.
            "re-created" => {
                for scope in claims["access"].as_array_mut().unwrap() {
                    scope["incarnation"] = u64::MAX.into();
                }
            }
            "refresh" => claims["aud"] = "tonnage-refresh".into(),
            "signature" => {
                private = other_key();
            }
            other => panic!("{other}"),
        }
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some(text("id"));
        let key = jsonwebtoken::EncodingKey::from_ec_der(&private);
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    /// Pushes an image of one layer under the tag `latest` as the admin. Returns its manifest and its layer.
    pub async fn push(&self, name: &str) -> (Vec<u8>, Digest) {
        let boss = ("boss", "right");
        let layer = content(1, 100);
        let digest = sha256(&layer);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.send(boss, "POST", &path, &layer).await.expect(201);
        let entry = json!({"mediaType": "a/b", "digest": digest.to_string(), "size": 100});
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": entry, "layers": []});
        let manifest = manifest.to_string().into_bytes();
        let path = format!("/v2/{name}/manifests/latest");
        self.send(boss, "PUT", &path, &manifest).await.expect(201);
        (manifest, digest)
    }
}

/// Returns a token of a workload that is valid and one that is not, and writes the key with which they are verified.
fn workload_tokens(keys: &Path) -> [String; 2] {
    let key = jsonwebtoken::EncodingKey::from_ec_der(&other_key());
    let algorithm = jsonwebtoken::Algorithm::ES256;
    let public = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap();
    std::fs::write(keys, json!({ "keys": [public] }).to_string()).unwrap();
    let now = jsonwebtoken::get_current_timestamp();
    [now + 600, now].map(|end| {
        let claims = json!({"iss": "https://issuer.example", "aud": "registry.example", "sub": "job", "exp": end});
        jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), &claims, &key).unwrap()
    })
}

/// Returns another private key.
fn other_key() -> Vec<u8> {
    rcgen::KeyPair::generate().unwrap().serialize_der()
}

/// Returns the `Authorization` for a name and a password; nothing for nobody.
pub fn basic((name, password): (&str, &str)) -> String {
    if name.is_empty() && password.is_empty() {
        return String::new();
    }
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// What a client sees of a refusal, without what differs between any two answers.
pub fn seen(answer: &Answer) -> String {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.as_str() != "date")
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort_unstable();
    let body = String::from_utf8_lossy(&answer.body);
    format!("{} {headers:?} {body}", answer.status)
}
