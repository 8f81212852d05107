//! The request of the kubelet and its response, version `credentialprovider.kubelet.k8s.io/v1`.
//!
//! Owns: [`Request`], [`Credentials`], and the response with how long it may be remembered. Invariants: no error and no
//! `Debug` output has a token or a password. A response has only fields of the first version of this API: the kubelet
//! rejects a field that it does not know.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::registry::{Registry, registry_of};

/// Largest request. A token has a few KiB, and so have annotations.
pub(crate) const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// The version of the API.
pub(super) const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
/// Name that goes with a token, which alone says who its owner is.
const TOKEN_USERNAME: &str = "oidc";
/// For how long the kubelet may remember a password from a file. A new password is used after that time.
pub(super) const PASSWORD_CACHE: Duration = Duration::from_mins(5);

/// What the kubelet asks. Fields that are not needed are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    api_version: String,
    kind: String,
    image: String,
    /// Token of the service account of the pod. Without one, the kubelet leaves it out.
    #[serde(default)]
    service_account_token: String,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Parses a request. The error is what to tell the operator of the node.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The message of the parser may quote a value.
        let request: Self = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("the request is not a CredentialProviderRequest (line {line}, column {column})")
        })?;
        if request.kind != "CredentialProviderRequest" {
            return Err("the request is not a CredentialProviderRequest (kind)".to_owned());
        }
        if request.api_version != API_VERSION {
            return Err(format!(
                "the apiVersion of the request is not {API_VERSION}"
            ));
        }
        Ok(request)
    }

    /// Returns the token of the pod's service account as credentials, if the kubelet sent one.
    pub(crate) fn token(&self) -> Option<Credentials> {
        let token = &self.service_account_token;
        (!token.is_empty()).then(|| Credentials {
            username: TOKEN_USERNAME.to_owned(),
            password: token.clone(),
            // A token ends, and is replaced, at times that only the kubelet knows.
            cache: Duration::ZERO,
        })
    }

    /// Returns the registry of the image, if credentials may be given for it.
    pub(crate) fn registry(&self, allowed: &[Registry]) -> Option<&str> {
        let named = registry_of(&self.image);
        allowed.iter().any(|one| one.is(named)).then_some(named)
    }
}

/// What a registry is logged in to with.
#[derive(Serialize)]
pub(crate) struct Credentials {
    username: String,
    password: String,
    #[serde(skip)]
    cache: Duration,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Returns a name with its password from a file.
    pub(crate) fn of_file(username: &str, password: String) -> Self {
        Self {
            username: username.to_owned(),
            password,
            cache: PASSWORD_CACHE,
        }
    }
}

/// Returns the response: the credentials for a registry, or none.
pub(crate) fn respond(given: Option<(&str, &Credentials)>) -> serde_json::Result<Value> {
    let cache = given.map_or(Duration::ZERO, |(_, credentials)| credentials.cache);
    let auth = given
        .map(|(registry, credentials)| {
            serde_json::to_value(credentials).map(|value| (registry.to_owned(), value))
        })
        .transpose()?;
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry",
        "cacheDuration": duration(cache),
        "auth": Map::from_iter(auth),
    }))
}

/// Returns a duration as Go reads it.
pub(super) fn duration(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &str) -> String {
        format!(
            r#"{{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1",{fields}}}"#
        )
    }

    fn response(fields: &str, allowed: &[&str]) -> String {
        let request = Request::parse(request(fields).as_bytes()).unwrap();
        let allowed: Vec<Registry> = allowed.iter().map(|one| one.parse().unwrap()).collect();
        let credentials = request
            .token()
            .unwrap_or_else(|| Credentials::of_file("ci", "secret".into()));
        let given = request
            .registry(&allowed)
            .map(|registry| (registry, &credentials));
        respond(given).unwrap().to_string()
    }

    /// Guards: the token of a pod's service account is the password, for the registry of the image alone, and the
    /// kubelet does not remember it.
    #[test]
    fn a_token_is_the_password() {
        let fields = r#""image":"registry.example:5000/team/app","serviceAccountToken":"a.b.c","serviceAccountAnnotations":{"x":"y"}"#;
        let expected = concat!(
            r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","#,
            r#""cacheKeyType":"Registry","cacheDuration":"0s","#,
            r#""auth":{"registry.example:5000":{"username":"oidc","password":"a.b.c"}}}"#
        );
        assert_eq!(
            response(fields, &["a.b", "registry.example:5000"]),
            expected
        );
    }

    /// Guards: without a token, the password of the file is given, and the kubelet may remember it.
    #[test]
    fn a_file_has_the_password() {
        let fields = r#""image":"registry.example/team/app""#;
        let said = response(fields, &["registry.example"]);
        assert!(said.contains(r#""cacheDuration":"300s""#), "{said}");
        assert!(
            said.contains(r#"{"registry.example":{"username":"ci","password":"secret"}}"#),
            "{said}"
        );
    }

    /// Guards: no other registry gets credentials, also not one whose name begins or ends like an allowed one.
    #[test]
    fn other_registries_get_nothing() {
        for image in [
            "registry.example.evil.example/a",
            "evil.example/registry.example/a",
            "registry.example:5000/a",
            "registry.example@evil.example/a",
            "registry/a",
            "",
        ] {
            let fields = format!(r#""image":"{image}","serviceAccountToken":"a.b.c""#);
            let said = response(&fields, &["registry.example"]);
            assert!(
                said.ends_with(r#""auth":{}}"#) && !said.contains("a.b.c"),
                "{said}"
            );
        }
    }

    /// Guards: what is not a request of this version is an error, which quotes nothing of it.
    #[test]
    fn other_requests_are_errors_without_secrets() {
        let canary = "canary";
        for text in [
            String::new(),
            format!("{canary:?}"),
            format!(r#"{{"image":"a","serviceAccountToken":["{canary}"]}}"#),
            request(&format!(r#""image":{{"{canary}":1}}"#)),
            format!(
                r#"{{"kind":"{canary}","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"a"}}"#
            ),
            format!(
                r#"{{"kind":"CredentialProviderRequest","apiVersion":"{canary}","image":"a"}}"#
            ),
        ] {
            let why = Request::parse(text.as_bytes()).unwrap_err();
            assert!(!why.contains(canary), "{why}");
        }
        let fields = format!(r#""image":"a","serviceAccountToken":"{canary}""#);
        let request = Request::parse(request(&fields).as_bytes()).unwrap();
        assert!(!format!("{request:?} {:?}", request.token()).contains(canary));
    }
}
