//! The token service: what tokens are for, and when they end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_server::access::{KeyOwner, NewApiKey, OwnUsers};

use crate::guarded::{Guarded, NOTICED, THERE};
use crate::kept_answers::kept;
use crate::repositories::delete_repository;
use crate::sha256;

/// Guards: a token is for the repository that it was issued for, and not for a later one of the same name. One that was
/// issued before there was a repository is for the first.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_one_repository() {
    let guarded = Guarded::start().await;
    let path = "/token?scope=repository:team/app:pull,push&scope=repository:team/other:pull,push";
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
    let (_, layer) = guarded.push(THERE).await;
    // Also where the answer is kept in memory. What the deletion left to remove ends kept answers meanwhile.
    let (second, before) = (token().await, kept(&guarded.registry).await);
    let mut pulls = 0;
    while kept(&guarded.registry).await == before {
        pull(&second).await.expect(200);
        pulls += 1;
        assert!(pulls < 1000, "none is kept");
    }
    let refused = pull(&first).await.expect(401);
    assert!(
        refused
            .header("www-authenticate")
            .contains("scope=\"repository:team/app:pull\"")
    );
    // Nor for a push, or as the source of a mount, named or not.
    let upload = format!("/v2/{THERE}/blobs/uploads/");
    let to_other = format!("/v2/team/other/blobs/uploads/?mount={layer}");
    for (method, path, bearer, expected) in [
        ("POST", upload.clone(), &first, 401),
        ("PUT", format!("/v2/{THERE}/manifests/new"), &first, 401),
        ("POST", to_other.clone(), &first, 202),
        ("POST", format!("{to_other}&from={THERE}"), &first, 202),
        ("POST", upload, &token().await, 202),
        ("POST", to_other, &token().await, 201),
    ] {
        let answer = guarded.send_with(bearer, method, &path, b"{}").await;
        assert_eq!(answer.status, expected, "{method} {path}");
    }
    pull(&token().await).await.expect(200);
}

/// Guards: a key ends with its user, and is not one of a later user of the same name, whichever list has them. A robot
/// account and a user never share a name.
#[tokio::test(flavor = "multi_thread")]
async fn keys_end_with_their_user() {
    let guarded = Guarded::start().await;
    let users = OwnUsers::of(guarded.directory.path());
    let ping =
        async |name: &str, key: &str| guarded.send((name, key), "GET", "/v2/", b"").await.status;
    let until = async |name: &str, key: &str, expected: u16| {
        let seen = async { while ping(name, key).await != expected {} };
        assert!(tokio::time::timeout(NOTICED, seen).await.is_ok(), "{name}");
    };
    let of_file = guarded.keys[&("reader", "key")].clone();
    assert_eq!(ping("reader", &of_file).await, 200);
    let write =
        |line: String| std::fs::write(guarded.directory.path().join("htpasswd"), line).unwrap();
    write("other:$2b$04$abcdefghijklmnopqrstuuO7pWD2eR6GkQk8r9K3Z5l0hJ0J5oT0y".to_owned());
    until("reader", &of_file, 401).await;
    write(format!("reader:{}", bcrypt::hash("another", 4).unwrap()));
    until("reader", "another", 200).await;
    assert_eq!(ping("reader", &of_file).await, 401);

    let alice = "alice".parse().unwrap();
    users.add(&alice, "correct horse", true).unwrap();
    let (_, entry) = users.list().unwrap().remove(0);
    assert!(users.remove("alice").unwrap());
    // A command that found the user before it was removed.
    let late = users.keys().create(NewApiKey {
        user: alice.clone(),
        owner: KeyOwner::User(entry.id().to_owned()),
        label: String::new(),
        scopes: Vec::new(),
        expires_unix_s: None,
    });
    let late = late.unwrap().reveal();
    users.add(&alice, "correct horse", true).unwrap();
    assert_eq!(ping("alice", "correct horse").await, 200);
    assert_eq!(ping("alice", &late).await, 401);

    let robot = guarded.keys[&("robot", "key")].clone();
    assert_eq!(ping("robot", &robot).await, 200);
    users
        .add(&"robot".parse().unwrap(), "correct horse", true)
        .unwrap_err();
    write(format!("robot:{}", bcrypt::hash("another", 4).unwrap()));
    until("robot", &robot, 401).await;
}

/// Guards: a token that expires while an upload arrives does not fail it: it is verified when a request begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_expire_during_an_upload() {
    let guarded = Guarded::start().await;
    let bearer = format!("Bearer {}", guarded.forged("pusher", "soon"));
    let digest = sha256(b"0123456789");
    let mut stream = TcpStream::connect(guarded.client().address())
        .await
        .unwrap();
    let head = format!(
        "POST /v2/{THERE}/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\
         Authorization: {bearer}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once the request is authorized.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
    let expired =
        async { while guarded.send_with(&bearer, "GET", "/v2/", b"").await.status != 401 {} };
    assert!(tokio::time::timeout(NOTICED, expired).await.is_ok());
    stream.write_all(b"0123456789").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201"));
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
