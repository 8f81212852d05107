//! What rules protect: the catalog, tags and uploads; and users who are removed.

use std::collections::BTreeSet;

use crate::guarded::{Guarded, NOTICED, NOWHERE, THERE, seen};
use crate::sha256;

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
