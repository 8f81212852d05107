//! Who may do what: every route and method, for every kind of sender.

use serde_json::json;
use tonnage_server::fuzz_entry::routes;

use crate::guarded::{Guarded, NOWHERE, Needs, SENDERS, THERE, seen};
use crate::sha256;

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
