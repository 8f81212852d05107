//! The options of TLS.

use std::path::Path;

use crate::serving::{Serving, run, tonnage, until};

pub(crate) fn smoke(url: &str, authority: &Path) -> (i32, String, String) {
    let mut command = tonnage(&["smoke", url, "--size", "9 MiB", "--strict", "--ca"]);
    run(command.arg(authority))
}

/// Guards: one option starts a registry with TLS and an authority of its own, and the banner has what clients need. A
/// client that trusts the authority works; others are told why not.
#[test]
fn one_option_starts_tls() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Serving::start(&data, &["--tls", "self", "--hostname", "registry.example"]);
    let authority = data.join("tls/ca.pem");
    for expected in [
        &*authority.display().to_string(),
        "for registry.example, 127.0.0.1",
        "SHA-256 ",
        "/etc/docker/certs.d/registry.example:",
        "/etc/containers/certs.d/registry.example:",
        "hosts.toml",
    ] {
        assert!(
            server.banner.contains(expected),
            "{expected}: {}",
            server.banner
        );
    }
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let (code, stdout, stderr) = smoke(&server.url, &authority);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (code, stdout, stderr) = run(&mut tonnage(&["smoke", &server.url]));
    assert!(code != 0 && stdout.contains("certificate"), "{stdout}");
    assert!(stderr.contains("--ca FILE"), "{stderr}");
    let plain = server.url.replace("https://", "http://");
    let (code, stdout, _) = run(&mut tonnage(&["smoke", &plain]));
    assert!(code != 0 && stdout.contains("400"), "{stdout}");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));

    // The certificate is one from files now, and the store's checks ignore the folder.
    let pair = ["--tls-cert", "server.pem", "--tls-key", "server.key"];
    let pair = pair.map(|part| match part.strip_prefix("server") {
        Some(end) => data.join(format!("tls/server{end}")).display().to_string(),
        None => part.to_owned(),
    });
    let server = Serving::start(&data, &pair.each_ref().map(String::as_str));
    assert_eq!(smoke(&server.url, &authority).0, 0);
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let (code, stdout, _) = run(tonnage(&["fsck", "--deep", "--data"]).arg(&data));
    assert_eq!(code, 0, "{stdout}");
}

/// Guards: a certificate that is replaced is shown to new connections without a restart.
#[test]
fn a_replaced_certificate_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["one", "two"] {
        let server = Serving::start(&at(name), &["--tls", "self"]);
        server.signal("-TERM");
        assert_eq!(server.end().0, Some(0));
    }
    let replace = |name: &str| {
        std::os::unix::fs::symlink(at(name).join("tls"), at("new")).unwrap();
        std::fs::rename(at("new"), at("now")).unwrap();
    };
    replace("one");
    let [cert, key] = ["server.pem", "server.key"].map(|name| at("now").join(name));
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let server = Serving::start(&at("data"), &["--tls-cert", &cert, "--tls-key", &key]);
    let [one, two] = ["one", "two"].map(|name| at(name).join("tls/ca.pem"));
    assert_eq!(smoke(&server.url, &one).0, 0);
    replace("two");
    // It looks at the files from time to time.
    until(|| smoke(&server.url, &two).0 == 0);
    assert_ne!(smoke(&server.url, &one).0, 0);
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    assert!(
        log.contains("new connections get another certificate"),
        "{log}"
    );
}

/// Guards: options that do not fit together, and files that cannot be used, are explained before anything is changed.
#[test]
fn wrong_options_of_tls_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "nothing").unwrap();
    let file = file.display().to_string();
    for (options, expected) in [
        (&["--tls", "files"][..], "tls.cert"),
        (&["--tls", "sell"], "auto or off or self or files"),
        (&["--tls-admin"], "no effect without TLS"),
        (
            &["--tls-client-ca", &file, "--auth"],
            "no effect without TLS",
        ),
        (
            &["--tls-client-ca", &file, "--tls", "self"],
            "no effect without auth.enabled",
        ),
        (
            &["--tls-client-names", "cn"],
            "no effect without tls.client_ca",
        ),
        (&["--tls-client-names", "uri,mail"], "uri, dns and cn"),
        (&["--tls", "acme"], "set tls.acme"),
        (
            &["--acme", "a.example", "--tls", "self"],
            "tls.mode is self",
        ),
        (&["--acme", "a.example", "--tls", "off"], "tls.mode is off"),
        (
            &["--tls", "off", "--tls-cert", &file, "--tls-key", &file],
            "tls.mode is off",
        ),
        (
            &[
                "--acme",
                "a.example",
                "--tls-cert",
                &file,
                "--tls-key",
                &file,
            ],
            "another certificate",
        ),
        (&["--acme", "*.a.example"], "a name or an IP address"),
        (&["--tls-acme-ca", &file], "no effect without tls.acme"),
        (
            &[
                "--acme",
                "a.example",
                "--tls-acme-directory",
                "http://b.example",
            ],
            "https://authority.example",
        ),
        (
            &["--acme", "a.example", "--tls-acme-directory", "https://["],
            "https://authority.example",
        ),
        (&["--tls-cert", &file], "tls.key"),
        (&["--tls-key", &file], "tls.cert"),
        (
            &["--tls", "self", "--tls-cert", &file, "--tls-key", &file],
            "remove one",
        ),
        (
            &["--tls-cert", &file, "--tls-key", &file],
            "no certificate in PEM",
        ),
        (&["--tls-cert", "/nowhere", "--tls-key", &file], "/nowhere"),
    ] {
        let data = directory.path().join("data");
        let (code, _, stderr) = run(tonnage(&["serve", "--data"]).arg(&data).args(options));
        assert!(
            code != 0 && stderr.contains(expected),
            "{options:?}: {stderr}"
        );
        assert!(!data.exists(), "{options:?}");
    }
}
