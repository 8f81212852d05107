//! Issuers of workloads' tokens, and whom their tokens log in.
//!
//! Owns: [`Issuer`], [`WorkloadUser`], and the comparison of claims. Pure. Refuses: the verification of a token
//! (`key_sets`).
//!
//! Invariant: a token logs somebody in only if every claim that the operator named has an expected value.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::access::Provenance;
use crate::access::key_sets::KeySource;

/// Claims that are kept with a push, if the operator names none: those that lead from an image to its build on GitHub,
/// GitLab and Kubernetes.
const KEPT: [&str; 22] = [
    "repository",
    "repository_id",
    "ref",
    "sha",
    "workflow",
    "workflow_ref",
    "job_workflow_ref",
    "run_id",
    "run_number",
    "run_attempt",
    "event_name",
    "environment",
    "actor",
    "project_path",
    "project_id",
    "pipeline_id",
    "job_id",
    "ci_config_ref_uri",
    "ci_config_sha",
    "kubernetes.io/namespace",
    "kubernetes.io/pod/name",
    "kubernetes.io/serviceaccount/name",
];

/// Somebody whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) struct Issuer {
    /// The value of `iss`.
    pub(in crate::access) url: String,
    /// The values of `aud`, of which a token must have one.
    pub(in crate::access) audiences: Vec<String>,
    pub(in crate::access) keys: KeySource,
    /// Whom tokens log in; the first that fits.
    pub(in crate::access) users: Vec<WorkloadUser>,
    /// Claims that are kept with a push.
    pub(in crate::access) kept: Option<Vec<String>>,
}

/// A user with the claims of the workloads that are this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) struct WorkloadUser {
    pub(in crate::access) name: String,
    /// Each claim with the values of which it must have one. One that ends in `*` stands for all that begin like it.
    pub(in crate::access) claims: BTreeMap<String, Vec<String>>,
}

impl Issuer {
    /// Returns the user that a token with these claims logs in.
    pub(super) fn user(&self, claims: &Map<String, Value>) -> Option<&str> {
        let found = self.users.iter().find(|user| user.fits(claims));
        found.map(|user| &*user.name)
    }

    /// Returns whether tokens may log in a user of this name.
    pub(in crate::access) fn has_user(&self, name: &str) -> bool {
        self.users.iter().any(|user| user.name == name)
    }

    /// Returns what is kept of a token with a push.
    pub(super) fn provenance(&self, claims: &Map<String, Value>) -> Provenance {
        let subject = claims
            .get("sub")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let names: Vec<&str> = match &self.kept {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => KEPT.to_vec(),
        };
        let kept = names.into_iter().filter_map(|name| {
            let text = text(find(claims, name)?)?;
            Some((name.to_owned(), text))
        });
        Provenance::new(self.url.clone(), subject.to_owned(), kept.collect())
    }
}

impl WorkloadUser {
    fn fits(&self, claims: &Map<String, Value>) -> bool {
        self.claims.iter().all(|(name, expected)| {
            let found = find(claims, name);
            found.is_some_and(|found| expected.iter().any(|expected| matches(found, expected)))
        })
    }
}

/// Returns a claim. `a/b` is the claim of that name, else `b` in the object `a`.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let (outer, inner) = name.split_once('/')?;
    find(claims.get(outer)?.as_object()?, inner)
}

/// Returns whether a claim, or one of its values if it is a list, is the expected one.
fn matches(found: &Value, expected: &str) -> bool {
    if let Value::Array(values) = found {
        return values
            .iter()
            .any(|value| !value.is_array() && matches(value, expected));
    }
    text(found).is_some_and(|found| match expected.strip_suffix('*') {
        Some(prefix) => found.starts_with(prefix),
        None => found == expected,
    })
}

/// Returns a claim as text; `None` if it is neither text, a number nor a truth value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Guards: every named claim must have an expected value, of its own kind, wherever it is; the first user that fits
    /// counts.
    #[test]
    fn claims_choose_the_user() {
        let user = |name: &str, claims: &[(&str, &[&str])]| WorkloadUser {
            name: name.to_owned(),
            claims: claims
                .iter()
                .map(|(name, values)| {
                    let values = values.iter().map(ToString::to_string).collect();
                    ((*name).to_owned(), values)
                })
                .collect(),
        };
        let issuer = Issuer {
            url: "https://issuer".to_owned(),
            audiences: Vec::new(),
            keys: KeySource {
                place: crate::access::key_sets::KeyPlace::File("keys".into()),
                authorities: None,
            },
            users: vec![
                user(
                    "main",
                    &[("repository_id", &["7"]), ("ref", &["refs/heads/main"])],
                ),
                user(
                    "tags",
                    &[("repository_id", &["7"]), ("ref", &["refs/tags/*"])],
                ),
                user("pod", &[("kubernetes.io/namespace", &["prod", "stage"])]),
                user("group", &[("groups", &["ops"])]),
            ],
            kept: None,
        };
        for (claims, expected) in [
            (
                json!({"repository_id": "7", "ref": "refs/heads/main"}),
                Some("main"),
            ),
            (
                json!({"repository_id": 7, "ref": "refs/tags/v1"}),
                Some("tags"),
            ),
            (
                json!({"repository_id": "7", "ref": "refs/heads/mainline"}),
                None,
            ),
            (json!({"repository_id": "7"}), None),
            (
                json!({"repository_id": ["8", "9"], "ref": "refs/heads/main"}),
                None,
            ),
            (
                json!({"kubernetes.io": {"namespace": "stage"}}),
                Some("pod"),
            ),
            (json!({"kubernetes.io/namespace": "prod"}), Some("pod")),
            (json!({"kubernetes.io": "prod"}), None),
            (json!({"groups": ["dev", "ops"]}), Some("group")),
            (json!({"groups": [["ops"]]}), None),
            (json!({"groups": {"ops": true}}), None),
            (json!({}), None),
        ] {
            let Value::Object(claims) = claims else {
                unreachable!("all are objects")
            };
            assert_eq!(issuer.user(&claims), expected, "{claims:?}");
        }
    }
}
