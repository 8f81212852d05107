//! Who may do what: every route and method, for every kind of sender.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tonnage_engine::Digest;
use tonnage_server::ServerOptions;
use tonnage_server::access::{AccessControl, AccessOptions, NewApiKey, OwnKeys, OwnUsers};
use tonnage_server::fuzz_entry::routes;
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::repositories::delete_repository;
use crate::{MANIFEST, content, sha256};

/// The repository that exists, and one of the same length that does not.
const THERE: &str = "team/app";
const NOWHERE: &str = "team/nil";
/// Longer than this, a changed file does not go unnoticed on any machine.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(30);

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Credentials,
    List,
    Pull,
    Push,
    Delete,
}

/// The table: what each method of a route needs. A route that is not in it fails the test.
fn needs(template: &str, method: &str) -> Needs {
    match (template, method) {
        ("/token", "GET" | "POST") => Needs::Nothing,
        ("/v2/", "GET" | "HEAD") => Needs::Credentials,
        ("/v2/_catalog", "GET" | "HEAD") => Needs::List,
        (
            "/v2/{name}/tags/list"
            | "/v2/{name}/referrers/{digest}"
            | "/v2/{name}/manifests/{reference}"
            | "/v2/{name}/blobs/{digest}",
            "GET" | "HEAD",
        ) => Needs::Pull,
        ("/v2/{name}/manifests/{reference}", "PUT")
        | ("/v2/{name}/blobs/uploads/", "POST")
        | ("/v2/{name}/blobs/uploads/{id}", "GET" | "HEAD" | "PATCH" | "PUT" | "DELETE") => {
            Needs::Push
        }
        ("/v2/{name}/manifests/{reference}" | "/v2/{name}/blobs/{digest}", "DELETE") => {
            Needs::Delete
        }
        other => panic!("{other:?} is not in the table of what routes need"),
    }
}

/// A kind of sender.
struct Sender {
    name: &'static str,
    /// The password; `key` and its limits for an API key; `forged` and what is wrong for a token of nobody's making.
    password: &'static str,
    /// The scope of the token that it sends instead of the password.
    token: Option<&'static str>,
    /// What its user may do in the repository.
    rights: &'static [Needs],
    /// What of that it may do with its token.
    may: &'static [Needs],
}

const ALL: &[Needs] = &[
    Needs::Nothing,
    Needs::Credentials,
    Needs::List,
    Needs::Pull,
    Needs::Push,
    Needs::Delete,
];
const USER: &[Needs] = &[Needs::Nothing, Needs::Credentials, Needs::List];
const READER: &[Needs] = &[Needs::Nothing, Needs::Credentials, Needs::List, Needs::Pull];
const PUSHER: &[Needs] = &[
    Needs::Nothing,
    Needs::Credentials,
    Needs::List,
    Needs::Pull,
    Needs::Push,
];
const DELETER: &[Needs] = &[
    Needs::Nothing,
    Needs::Credentials,
    Needs::List,
    Needs::Delete,
];
const NOBODY: &[Needs] = &[];
#[rustfmt::skip]
const SENDERS: [Sender; 33] = [
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
    user("boss", "forged expired", NOBODY),
    user("boss", "forged audience", NOBODY),
    user("boss", "forged signature", NOBODY),
    user("boss", "forged refresh", NOBODY),
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

const RULES: &str = "
    admins = ['boss']
    [groups]
    readers = ['reader']
    [[rule]]
    repositories = 'team/*'
    pull = ['@readers']
    push = ['pusher', 'robot']
    delete = ['deleter']
    immutable_tags = ['v*']
    [[rule]]
    repositories = 'other/*'
    overwrite = ['other']
    [[rule]]
    repositories = 'open'
    pull = ['anyone']
";

/// A registry with access control.
struct Guarded {
    registry: TestRegistry,
    directory: TempDir,
    /// The API keys of senders, by name and what is said of the key.
    keys: BTreeMap<(&'static str, &'static str), String>,
}

/// Makes the API keys of all senders.
fn make_keys(list: &OwnKeys) -> BTreeMap<(&'static str, &'static str), String> {
    let mut keys = BTreeMap::new();
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
            is_robot: user == "robot",
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
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("rules.toml"), RULES).unwrap();
        let users: BTreeSet<_> = SENDERS.iter().map(|sender| sender.name).collect();
        let known = users
            .into_iter()
            .filter(|name| !["", "nobody", "team/app", "robot", "gone"].contains(name));
        // The lowest cost, because passwords are not what is tested.
        let lines = known.map(|name| format!("{name}:{}\n", bcrypt::hash("right", 4).unwrap()));
        std::fs::write(at("htpasswd"), lines.collect::<String>()).unwrap();
        let own = OwnUsers::of(directory.path());
        let keys = make_keys(&own.keys());
        let control = AccessControl::open(&AccessOptions {
            own,
            htpasswd: Some(at("htpasswd")),
            rules: Some(at("rules.toml")),
        });
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

    fn client(&self) -> Client {
        self.registry.client()
    }

    /// Sends a request as somebody with a password.
    async fn send(&self, who: (&str, &str), method: &str, path: &str, body: &[u8]) -> Answer {
        self.send_with(&basic(who), method, path, body).await
    }

    /// Sends a request with this `Authorization`, unless it is empty.
    async fn send_with(
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
    async fn authorization(&self, sender: &Sender) -> String {
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
    fn forged(&self, name: &str, wrong: &str) -> String {
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
            // The clocks of two servers may differ by a minute.
            "expired" => claims["exp"] = (now - 61).into(),
            "audience" => claims["aud"] = "other".into(),
            "refresh" => claims["aud"] = "tonnage-refresh".into(),
            "signature" => {
                private = jsonwebtoken_key();
            }
            other => panic!("{other}"),
        }
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some(text("id"));
        let key = jsonwebtoken::EncodingKey::from_ec_der(&private);
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    /// Pushes an image of one layer under the tag `latest` as the admin. Returns its manifest and its layer.
    async fn push(&self, name: &str) -> (Vec<u8>, Digest) {
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

/// Returns another private key.
fn jsonwebtoken_key() -> Vec<u8> {
    rcgen::KeyPair::generate().unwrap().serialize_der()
}

/// Returns the `Authorization` for a name and a password; nothing for nobody.
fn basic((name, password): (&str, &str)) -> String {
    if name.is_empty() && password.is_empty() {
        return String::new();
    }
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// What a client sees of a refusal, without what differs between any two answers.
fn seen(answer: &Answer) -> String {
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

/// Guards: of every route and method, exactly who has the right is let through. A refusal says the same whether or not
/// the repository exists, and asks for credentials only if there are none that are valid.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_guarded() {
    let guarded = Guarded::start().await;
    let (manifest, layer) = guarded.push(THERE).await;
    let id = "00000000-0000-4000-8000-000000000000";
    let mut asked = 0;
    for sender in &SENDERS {
        let authorization = guarded.authorization(sender).await;
        for (template, methods) in routes() {
            for method in methods {
                let needs = needs(template, method);
                if needs == Needs::Nothing && sender.token.is_some() {
                    // A token is for a password, and not for another token.
                    let refused = guarded
                        .send_with(&authorization, "GET", "/token", b"")
                        .await;
                    refused.expect(401);
                    continue;
                }
                for reference in [
                    "latest".to_owned(),
                    sha256(&manifest).to_string(),
                    sha256(b"absent").to_string(),
                ] {
                    let path = |repository: &str| {
                        let digest = if reference == "latest" {
                            layer.to_string()
                        } else {
                            reference.clone()
                        };
                        template
                            .replace("{name}", repository)
                            .replace("{reference}", &reference)
                            .replace("{digest}", &digest)
                            .replace("{id}", id)
                    };
                    let scope = sender.token.unwrap_or("password");
                    let what = format!("{:?} ({scope}) {method} {}", sender.name, path(THERE));
                    asked += 1;
                    if sender.may.contains(&needs) {
                        // In a repository that does not exist, so that nothing is deleted here.
                        let answer = guarded
                            .send_with(&authorization, method, &path(NOWHERE), b"{}")
                            .await;
                        assert!(
                            ![401, 403].contains(&answer.status.as_u16())
                                && answer.status.as_u16() < 500,
                            "{what}: {}",
                            answer.status
                        );
                        continue;
                    }
                    let answer = guarded
                        .send_with(&authorization, method, &path(THERE), &manifest)
                        .await;
                    // With another token, or with valid credentials, it might be allowed.
                    let is_final = sender.rights.contains(&Needs::Credentials)
                        && !sender.rights.contains(&needs);
                    assert_eq!(answer.status, if is_final { 403 } else { 401 }, "{what}");
                    assert_eq!(
                        answer.find("www-authenticate").is_some(),
                        !is_final,
                        "{what}"
                    );
                    let elsewhere = guarded
                        .send_with(&authorization, method, &path(NOWHERE), &manifest)
                        .await;
                    let there = seen(&answer).replace(THERE, NOWHERE);
                    assert_eq!(there, seen(&elsewhere), "{what}");
                }
            }
        }
    }
    assert!(asked > 700, "{asked}");
    // Nothing was changed by anyone.
    let boss = ("boss", "right");
    let path = format!("/v2/{THERE}/manifests/latest");
    let found = guarded.send(boss, "GET", &path, b"").await.expect(200);
    assert_eq!(found.body, manifest);
    let path = format!("/v2/{THERE}/blobs/{layer}");
    guarded.send(boss, "GET", &path, b"").await.expect(200);
    let path = format!("/v2/{THERE}/tags/list");
    let tags = guarded.send(boss, "GET", &path, b"").await.expect(200);
    assert_eq!(tags.json()["tags"], json!(["latest"]));
    // What is refused is refused for the one thing that is wrong.
    let good = format!("Bearer {}", guarded.forged("boss", "nothing"));
    let path = format!("/v2/{THERE}/manifests/latest");
    guarded
        .send_with(&good, "GET", &path, b"")
        .await
        .expect(200);
}

/// Guards: the list of repositories has what its reader may pull, over all its pages; the links to next pages name no
/// other repository.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_has_what_may_be_pulled() {
    let guarded = Guarded::start().await;
    for name in [
        "aaa/secret",
        "open",
        "other/a",
        "other/b",
        "team/a",
        "zzz/secret",
    ] {
        guarded.push(name).await;
    }
    for (who, expected) in [
        ("reader", &["open", "team/a"][..]),
        ("other", &["open", "other/a", "other/b"]),
        ("deleter", &["open"]),
        (
            "boss",
            &[
                "aaa/secret",
                "open",
                "other/a",
                "other/b",
                "team/a",
                "zzz/secret",
            ],
        ),
    ] {
        for n in [1, 2, 100] {
            let (mut found, mut next) = (Vec::new(), Some(format!("/v2/_catalog?n={n}")));
            while let Some(path) = next {
                let answer = guarded
                    .send((who, "right"), "GET", &path, b"")
                    .await
                    .expect(200);
                let page = answer.json();
                let names = page["repositories"].as_array().unwrap();
                assert!(names.len() <= n);
                found.extend(names.iter().map(|name| name.as_str().unwrap().to_owned()));
                next = answer.find("link").map(|link| {
                    let path = link.split(['<', '>']).nth(1).unwrap();
                    assert!(who == "boss" || !path.contains("secret"), "{link}");
                    path.to_owned()
                });
                let is_last = found.len() == expected.len();
                assert_eq!(
                    next.is_none(),
                    is_last,
                    "{who} by {n}: a link says that more follow"
                );
            }
            assert_eq!(found, expected, "{who} by {n}");
        }
    }
}

/// Guards: a tag is pointed at something else only by who may overwrite, and an immutable one by nobody; the same
/// content may be pushed again. Nobody mounts what they may not pull.
#[tokio::test(flavor = "multi_thread")]
async fn tags_are_protected() {
    let guarded = Guarded::start().await;
    let (first, layer) = guarded.push(THERE).await;
    let second = [&first[..], b" "].concat();
    let (pusher, boss) = (("pusher", "right"), ("boss", "right"));
    let path = |tag: &str| format!("/v2/{THERE}/manifests/{tag}");
    for (who, tag, body, expected) in [
        (pusher, "new", &second, 201),
        (pusher, "new", &second, 201),
        (pusher, "new", &first, 403),
        (pusher, "latest", &second, 403),
        (pusher, "latest", &first, 201),
        (boss, "latest", &second, 201),
        (boss, "v1", &first, 201),
        (boss, "v1", &first, 201),
        (boss, "v1", &second, 403),
    ] {
        let answer = guarded.send(who, "PUT", &path(tag), body).await;
        assert_eq!(answer.status, expected, "{who:?} {tag} {:?}", answer.body);
    }
    // Nor is it deleted, so that nobody sets it anew.
    guarded
        .send(boss, "DELETE", &path("v1"), b"")
        .await
        .expect_error(403, "DENIED");
    guarded
        .send(boss, "DELETE", &path("new"), b"")
        .await
        .expect(202);
    let further = format!("{}?tag=v1&tag=v2", path(&sha256(&second).to_string()));
    guarded
        .send(boss, "PUT", &further, &second)
        .await
        .expect_error(403, "DENIED");
    guarded
        .send(boss, "GET", &path("v2"), b"")
        .await
        .expect(404);

    let mut seen_by_other = BTreeSet::new();
    for (from, digest) in [(THERE, layer), (NOWHERE, layer), (THERE, sha256(b"absent"))] {
        let mount = format!("/v2/other/x/blobs/uploads/?mount={digest}&from={from}");
        let answer = guarded.send(("other", "right"), "POST", &mount, b"").await;
        let location = answer.header("location").to_owned();
        let (_, id) = location.rsplit_once('/').unwrap();
        let seen = seen(&answer.expect(202)).replace(id, "UPLOAD");
        seen_by_other.insert(seen);
    }
    assert_eq!(seen_by_other.len(), 1);
}

/// Guards: a token is for the repository that it was issued for, and not for a later one of the same name. One that was
/// issued before there was a repository is for the first.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_one_repository() {
    let guarded = Guarded::start().await;
    let path = "/token?scope=repository:team/app:pull,push";
    let token = async || {
        let answer = guarded
            .send(("pusher", "right"), "GET", path, b"")
            .await
            .expect(200);
        format!("Bearer {}", answer.json()["token"].as_str().unwrap())
    };
    let pull = async |bearer: &str| {
        let manifest = format!("/v2/{THERE}/manifests/latest");
        guarded.send_with(bearer, "GET", &manifest, b"").await
    };
    let before = token().await;
    guarded.push(THERE).await;
    pull(&before).await.expect(200);
    let first = token().await;
    pull(&first).await.expect(200);
    delete_repository(&guarded.registry.store, THERE)
        .await
        .unwrap();
    pull(&first).await.expect(401);
    guarded.push(THERE).await;
    let refused = pull(&first).await.expect(401);
    assert!(
        refused
            .header("www-authenticate")
            .contains("scope=\"repository:team/app:pull\"")
    );
    pull(&token().await).await.expect(200);
}

/// Guards: an upload is continued, asked about and cancelled only by who began it, although others may push to the
/// repository and know its name. They are told the same as of an upload that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_belong_to_who_began_them() {
    let guarded = Guarded::start().await;
    let (pusher, boss) = (("pusher", "right"), ("boss", "right"));
    let begun = guarded
        .send(pusher, "POST", "/v2/team/app/blobs/uploads/", b"")
        .await;
    let begun = begun.expect(202);
    let upload = begun.header("location");
    let (_, id) = upload.rsplit_once('/').unwrap();
    let absent = "00000000-0000-4000-8000-000000000000";
    let digest = sha256(b"content");
    for (method, query) in [
        ("GET", String::new()),
        ("PATCH", String::new()),
        ("DELETE", String::new()),
        ("PUT", format!("?digest={digest}")),
    ] {
        let path = format!("{upload}{query}");
        let answer = guarded.send(boss, method, &path, b"content").await;
        let missing = guarded
            .send(boss, method, &path.replace(id, absent), b"content")
            .await;
        assert_eq!(
            seen(&answer).replace(id, absent),
            seen(&missing),
            "{method}"
        );
        answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    guarded.send(pusher, "GET", upload, b"").await.expect(204);
    let close = format!("{upload}?digest={digest}");
    guarded
        .send(pusher, "PUT", &close, b"content")
        .await
        .expect(201);
}

/// Guards: who is removed from the list of users, or gets another password, is refused soon, although the password was
/// right a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn removed_users_are_refused() {
    let guarded = Guarded::start().await;
    let who = ("reader", "right");
    guarded.send(who, "GET", "/v2/", b"").await.expect(200);
    let token = guarded
        .send(("pusher", "right"), "GET", "/token", b"")
        .await;
    let token = format!(
        "Bearer {}",
        token.expect(200).json()["token"].as_str().unwrap()
    );
    guarded
        .send_with(&token, "GET", "/v2/", b"")
        .await
        .expect(200);
    let other = format!("pusher:{}", bcrypt::hash("another", 4).unwrap());
    std::fs::write(guarded.directory.path().join("htpasswd"), other).unwrap();
    let refused = async { while guarded.send(who, "GET", "/v2/", b"").await.status != 401 {} };
    assert!(tokio::time::timeout(NOTICED, refused).await.is_ok());
    // A token of another password of the same user.
    guarded
        .send_with(&token, "GET", "/v2/", b"")
        .await
        .expect(401);
}

/// Guards: a refresh token gets tokens without the password, by the form only, until its credential ends: another
/// password, or a key that is revoked. So do tokens. Nobody anonymous gets one, and none is given unasked.
#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_end_with_their_credential() {
    let guarded = Guarded::start().await;
    let key = guarded.keys[&("robot", "key")].clone();
    let get = async |who: (&str, &str), query: &str| {
        let path = format!("/token?scope=repository:team/app:pull,push{query}");
        guarded
            .send(who, "GET", &path, b"")
            .await
            .expect(200)
            .json()
    };
    let refresh = async |token: &str| {
        let form = format!(
            "grant_type=refresh_token&service=tonnage&refresh_token={token}&scope=repository:team/app:push"
        );
        guarded
            .send(("", ""), "POST", "/token", form.as_bytes())
            .await
    };
    let text =
        |answer: &serde_json::Value, name: &str| answer[name].as_str().map(ToOwned::to_owned);
    assert_eq!(
        text(&get(("pusher", "right"), "").await, "refresh_token"),
        None
    );
    assert_eq!(
        text(&get(("", ""), "&offline_token=true").await, "refresh_token"),
        None
    );
    let by_password = get(("pusher", "right"), "&offline_token=true").await;
    let by_password = text(&by_password, "refresh_token").unwrap();
    let form = format!("grant_type=password&access_type=offline&username=robot&password={key}");
    let by_key = guarded
        .send(("", ""), "POST", "/token", form.as_bytes())
        .await
        .expect(200)
        .json();
    let by_key = text(&by_key, "refresh_token").unwrap();
    for token in [&by_password, &by_key] {
        let answer = refresh(token).await.expect(200).json();
        assert_eq!(answer["scope"], "repository:team/app:push");
        assert_eq!(text(&answer, "refresh_token"), None);
        let path = "/v2/team/app/blobs/uploads/";
        let bearer = format!("Bearer {}", text(&answer, "token").unwrap());
        guarded
            .send_with(&bearer, "POST", path, b"")
            .await
            .expect(202);
    }
    let token = format!(
        "Bearer {}",
        text(&get(("robot", &key), "").await, "token").unwrap()
    );
    guarded
        .send_with(&token, "GET", "/v2/", b"")
        .await
        .expect(200);
    let keys = OwnUsers::of(guarded.directory.path()).keys();
    let id = key.split('_').nth(1).unwrap();
    assert!(keys.revoke(id).unwrap());
    let other = format!("pusher:{}", bcrypt::hash("another", 4).unwrap());
    std::fs::write(guarded.directory.path().join("htpasswd"), other).unwrap();
    for token in [&by_password, &by_key] {
        let refused = async { while refresh(token).await.status != 401 {} };
        assert!(tokio::time::timeout(NOTICED, refused).await.is_ok());
    }
    guarded
        .send_with(&token, "GET", "/v2/", b"")
        .await
        .expect(401);
}

/// Guards: docker's way to pull without credentials from a registry that asks for them: the challenge of `/v2/` names
/// the token service, which gives anyone a token for what anyone may pull, and nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn anyone_gets_a_token_for_what_is_open() {
    let guarded = Guarded::start().await;
    guarded.push("open").await;
    let ping = guarded.send(("", ""), "GET", "/v2/", b"").await.expect(401);
    let address = guarded.client().address();
    assert_eq!(
        ping.header("www-authenticate"),
        format!("Bearer realm=\"http://{address}/token\",service=\"tonnage\"")
    );
    let pull = guarded
        .send(("", ""), "GET", "/v2/team/app/manifests/latest", b"")
        .await;
    assert!(
        pull.header("www-authenticate")
            .ends_with(",scope=\"repository:team/app:pull\"")
    );
    let path =
        "/token?service=tonnage&scope=repository:open:pull,push&scope=repository:team/app:pull";
    let answer = guarded.send(("", ""), "GET", path, b"").await.expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let bearer = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
    let manifest = |name: &str| format!("/v2/{name}/manifests/latest");
    guarded
        .send_with(&bearer, "GET", &manifest("open"), b"")
        .await
        .expect(200);
    for (method, name) in [("PUT", "open"), ("GET", "team/app")] {
        guarded
            .send_with(&bearer, method, &manifest(name), b"{}")
            .await
            .expect(401);
    }
}

/// Guards: the form of tokens (RFC 6749 section 4.3): the answer says what was granted; wrong passwords, other grants
/// and bad scopes are errors; a forged or broken token is `invalid_token`.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_issued_by_form() {
    let guarded = Guarded::start().await;
    let form = async |text: &str| {
        guarded
            .send(("", ""), "POST", "/token", text.as_bytes())
            .await
    };
    let good = "grant_type=password&service=tonnage&client_id=x&username=reader&password=right";
    let scope = "&scope=repository:team/a:pull,push+repository:other/a:pull";
    let answer = form(&format!("{good}{scope}")).await.expect(200).json();
    assert_eq!(answer["scope"], "repository:team/a:pull");
    assert_eq!(answer["token_type"], "Bearer");
    let expires = answer["issued_at"].as_str().unwrap();
    assert!(
        expires.ends_with('Z') && expires.starts_with("20"),
        "{expires}"
    );
    let refused = form(&good.replace("right", "wrong")).await;
    refused.expect_error(401, "UNAUTHORIZED");
    for wrong in [
        "",
        "grant_type=client_credentials",
        &format!("{good}&scope=nonsense"),
        &format!("{good}&scope={}", "repository:a:pull+".repeat(101)),
        &"x".repeat(70_000),
    ] {
        form(wrong).await.expect_error(400, "UNSUPPORTED");
    }
    let broken = form("grant_type=refresh_token&refresh_token=x").await;
    broken.expect_error(401, "UNAUTHORIZED");
    let token = answer["token"].as_str().unwrap();
    let broken = format!("Bearer {}x", &token[..token.len() - 2]);
    let refused = guarded
        .send_with(&broken, "GET", "/v2/", b"")
        .await
        .expect(401);
    assert!(
        refused
            .header("www-authenticate")
            .ends_with(",error=\"invalid_token\"")
    );
}
