//! The token requests of docker, which has no engine here: a login, a push after it, and a pull without one.
//!
//! Owns: the requests, and docker's checks of the answers. Refuses: to be more lenient than docker.

use base64::Engine as _;
use hyper::{Method, StatusCode};
use serde_json::json;
use tonnage_tests::http::Upload;

use crate::checks::{json, same};
use crate::lane::Lane;
use crate::login::{Guarded, PASSWORD, USER};
use crate::replay_push::{
    DOCKER, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Session, contents, descriptor,
    docker_blob, header, run,
};

/// Guards: docker asks `/v2/` what the registry wants, gets a token at the realm of that challenge, with the parameters
/// that it sends, and uses it. A wrong password is refused there. What anyone may pull needs a token, too.
pub fn docker(lane: &Lane) -> Result<(), String> {
    let guarded = Guarded::start(lane, &[])?;
    let (address, name) = (guarded.server.address(), "open/docker");
    let [config, layer, _] = contents();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(DOCKER_CONFIG, config),
        "layers": [descriptor(DOCKER_LAYER, layer)],
    });
    lane.replay(DOCKER, "log in: challenge, token, GET /v2/", || {
        run(address, name, async |mut docker| {
            docker.log_in(Some(PASSWORD), "").await?;
            let empty = Upload::empty();
            let answer = docker.send(Method::GET, "/v2/", &[], empty, StatusCode::OK);
            answer.await.map(drop)
        })
    })?;
    lane.replay(DOCKER, "log in with a wrong password", || {
        run(address, name, async |mut docker| {
            match docker.log_in(Some("wrong"), "").await {
                Ok(_) => Err("it was accepted".to_owned()),
                Err(why) if why.contains("401") => Ok(()),
                Err(why) => Err(why),
            }
        })
    })?;
    lane.replay(DOCKER, "push with a token", || {
        run(address, name, async |mut docker| {
            let scope = format!("repository:{name}:push,pull");
            docker.log_in(Some(PASSWORD), &scope).await?;
            for blob in [layer, config] {
                docker_blob(&mut docker, blob).await?;
            }
            let pushed = docker.manifest("latest", DOCKER_MANIFEST, &manifest);
            pushed.await.map(drop)
        })
    })?;
    lane.replay(DOCKER, "push with a refresh token", || {
        run(address, name, async |mut docker| {
            let refresh = docker.log_in(Some(PASSWORD), "").await?;
            let refresh = refresh.ok_or("the login had no refresh token")?;
            let scope = format!("repository:{name}:push,pull");
            docker.refresh(&refresh, &scope).await?;
            let pushed = docker.manifest("refreshed", DOCKER_MANIFEST, &manifest);
            pushed.await.map(drop)
        })
    })?;
    lane.replay(DOCKER, "pull with a token, without a login", || {
        run(address, name, async |mut docker| {
            let scope = format!("repository:{name}:pull");
            docker.log_in(None, &scope).await?;
            let get = ("manifests/latest", [("accept", DOCKER_MANIFEST)]);
            let got = docker.send(Method::GET, get.0, &get.1, Upload::empty(), StatusCode::OK);
            same(
                "manifest",
                &*got.await?.body,
                manifest.to_string().as_bytes(),
            )?;
            let blob = format!("blobs/{}", layer.digest());
            let got = docker.send(Method::GET, &blob, &[], Upload::empty(), StatusCode::OK);
            same("size", got.await?.body.len() as u64, layer.length)
        })
    })
}

impl Session {
    /// Asks the registry where tokens are. Returns the realm and the service.
    async fn challenge(&mut self) -> Result<(String, String), String> {
        self.authorization = None;
        let (empty, refused) = (Upload::empty(), StatusCode::UNAUTHORIZED);
        let answer = self.send(Method::GET, "/v2/", &[], empty, refused).await?;
        same(
            "version",
            header(&answer, "docker-distribution-api-version")?,
            "registry/2.0",
        )?;
        let challenge = header(&answer, "www-authenticate")?;
        let find = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let found = find("realm").zip(find("service"));
        found.ok_or(format!("no realm or no service: {challenge}"))
    }

    /// Gets a token for a scope with a refresh token, as docker does. Later requests have it.
    async fn refresh(&mut self, token: &str, scope: &str) -> Result<(), String> {
        let (realm, service) = self.challenge().await?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("client_id", "docker"),
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("scope", scope),
            ("service", &service),
        ] {
            form.append_pair(name, value);
        }
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let body = Upload::bytes(form.finish());
        let answer = self
            .send(Method::POST, &realm, &kind, body, StatusCode::OK)
            .await?;
        let answer = json(&String::from_utf8_lossy(&answer.body))?;
        // Docker reads no other field.
        let token = answer["access_token"].as_str().ok_or("no access_token")?;
        self.authorization = Some(format!("Bearer {token}"));
        Ok(())
    }

    /// Gets a token for a scope, as docker does. Later requests have it. Returns the refresh token, if there is one.
    async fn log_in(
        &mut self,
        password: Option<&str>,
        scope: &str,
    ) -> Result<Option<String>, String> {
        let (realm, service) = self.challenge().await?;
        // Docker sorts the parameters. A login is for no scope, and asks for a refresh token, too.
        let mut query = Vec::new();
        if password.is_some() {
            query.push(format!("account={USER}"));
        }
        if scope.is_empty() {
            query.push("client_id=docker&offline_token=true".to_owned());
        } else {
            query.push(format!(
                "scope={}",
                scope
                    .replace(':', "%3A")
                    .replace(',', "%2C")
                    .replace('/', "%2F")
            ));
        }
        query.push(format!("service={service}"));
        let target = format!("{realm}?{}", query.join("&"));
        let basic = password.map(|password| {
            let text = format!("{USER}:{password}");
            let text = base64::engine::general_purpose::STANDARD.encode(text);
            ("authorization", format!("Basic {text}"))
        });
        let headers: Vec<_> = basic
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let empty = Upload::empty();
        let answer = self
            .send(Method::GET, &target, &headers, empty, StatusCode::OK)
            .await?;
        let answer = json(&String::from_utf8_lossy(&answer.body))?;
        // A shorter life counts as 60 s, and none as one.
        if answer["expires_in"]
            .as_u64()
            .is_none_or(|seconds| seconds < 60)
        {
            return Err(format!("expires_in: {}", answer["expires_in"]));
        }
        let token = answer["token"].as_str().or(answer["access_token"].as_str());
        let token = token.ok_or("the answer has no token")?;
        self.authorization = Some(format!("Bearer {token}"));
        Ok(answer["refresh_token"].as_str().map(str::to_owned))
    }
}
