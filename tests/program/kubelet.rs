//! The kubelet credential provider as the kubelet runs it: a request on standard input, a response on standard output.

use crate::serving::{run, run_with, tonnage};

/// Returns a request for `image`, with more fields.
fn request(image: &str, fields: &str) -> String {
    format!(
        r#"{{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"{image}"{fields}}}"#
    )
}

/// Guards: the token or the password of the file is given for the named registry, and nothing for another one. What
/// cannot be answered is an error that says what to do, with an empty standard output and no secret.
#[test]
fn the_kubelet_gets_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "correct horse\n").unwrap();
    let file = file.to_str().unwrap();
    let provider = |more: &[&str], request: &str| {
        let mut command = tonnage(&["credential-provider", "--registry", "registry.example:5000"]);
        run_with(command.args(more), request.as_bytes())
    };
    let password = ["--username", "ci", "--password-file", file];
    let token = r#","serviceAccountToken":"canary""#;
    let (own, other) = ("registry.example:5000/a", "registry.example/a");
    for (more, request, name, secret) in [
        (&[][..], request(own, token), "oidc", "canary"),
        (&password, request(own, token), "oidc", "canary"),
        (&password, request(own, ""), "ci", "correct horse"),
    ] {
        let (code, stdout, stderr) = provider(more, &request);
        assert_eq!((code, &*stderr), (0, ""));
        let response: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let expected = serde_json::json!({ "username": name, "password": secret });
        assert_eq!(response["auth"]["registry.example:5000"], expected);
    }
    let (code, stdout, _) = provider(&password, &request(other, token));
    assert!(code == 0 && stdout.contains(r#""auth":{}"#), "{stdout}");
    let long = request(own, &format!(r#","x":"{}""#, "canary ".repeat(200_000)));
    for (request, expected) in [
        (request(own, ""), "--password-file"),
        (long, "too long"),
        (r#"["canary"]"#.to_owned(), "CredentialProviderRequest"),
    ] {
        let (code, stdout, stderr) = provider(&[], &request);
        assert_eq!((code, &*stdout), (2, ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert!(!stderr.contains("canary"), "{stderr}");
    }
    let registry = ["credential-provider", "--registry", "registry.example"];
    let mut print = tonnage(&registry);
    let (code, stdout, _) = run(print.args(["--print-config", "--audience", "aud"]));
    let expected = "serviceAccountTokenAudience: \"aud\"";
    assert!(code == 0 && stdout.contains(expected), "{stdout}");
    assert_eq!(run(tonnage(&registry).arg("--print-config")).0, 2);
    assert_eq!(run(&mut tonnage(&["credential-provider"])).0, 2);
}
