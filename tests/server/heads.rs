//! Checks of request heads: framing, hosts, expectations, sites; and the form of locations.

use std::net::SocketAddr;

use http::Method;
use tonnage_server::{Locations, ServerOptions};
use tonnage_tests::registry::TestRegistry;

use crate::wire::say;

/// Sends a request. Returns its status line and everything received until the connection ends.
async fn status(address: SocketAddr, request: &str) -> (String, String) {
    let said = say(address, request).await;
    let status = said.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, said)
}

/// Guards: RFC 9112 sections 3.2 and 3.2.2: an HTTP/1.1 request has exactly one valid Host, also beside a target in
/// absolute form, which takes precedence. HTTP/1.0 may omit it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_host() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let get = "GET /v2/ HTTP/1.1";
    for (line, hosts, expected) in [
        (get, &["localhost"][..], "200"),
        (get, &["[::1]:5000"], "200"),
        (get, &[], "400"),
        (get, &["localhost", "localhost"], "400"),
        (get, &["localhost", "x"], "400"),
        (get, &[""], "400"),
        (get, &["a b"], "400"),
        (get, &["user@localhost"], "400"),
        (get, &["localhost:x"], "400"),
        (get, &["localhost/v2/"], "400"),
        (get, &["localhost, x"], "400"),
        ("GET /v2/ HTTP/1.0", &[], "200"),
        ("GET /v2/ HTTP/1.0", &["localhost", "localhost"], "400"),
        ("GET /nothing HTTP/1.1", &[], "400"),
        (
            "GET http://localhost/v2/ HTTP/1.1",
            &["other.example"],
            "200",
        ),
        ("GET http://localhost/v2/ HTTP/1.1", &[], "400"),
        (
            "GET http://other.example/v2/ HTTP/1.1",
            &["localhost"],
            "403",
        ),
        ("OPTIONS * HTTP/1.1", &["localhost"], "204"),
        ("CONNECT localhost:80 HTTP/1.1", &["localhost"], "405"),
    ] {
        let hosts: String = hosts
            .iter()
            .map(|host| format!("Host: {host}\r\n"))
            .collect();
        let request = format!("{line}\r\n{hosts}Connection: close\r\n\r\n");
        let (status, said) = status(address, &request).await;
        assert_eq!(status, expected, "{request}{said}");
        assert!(status != "400" || said.contains("Host"), "{request}{said}");
    }
}

/// Guards: on loopback a request for an unknown host is rejected, on both listeners and both versions of HTTP. It may
/// come from a page whose name was resolved to loopback (DNS rebinding). Names can be configured, and the answer says
/// how.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_are_rejected_on_loopback() {
    let options = ServerOptions {
        hostnames: vec!["registry.example".parse().unwrap()],
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    for address in [registry.client().address(), registry.admin().address()] {
        for (host, expected) in [
            ("localhost:5000", true),
            ("LOCALHOST", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("Registry.Example.:443", true),
            ("rebound.example", false),
            ("rebound.example:5000", false),
            ("localhost.rebound.example", false),
            ("127.0.0.1.rebound.example", false),
            ("192.168.0.7:5000", false),
            ("0.0.0.0:5000", false),
        ] {
            for line in ["GET /v2/", "POST /v2/a/blobs/uploads/", "GET /metrics"] {
                let request =
                    format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let (status, said) = status(address, &request).await;
                assert_eq!(status != "403", expected, "{request}{said}");
                assert!(expected || said.contains("TONNAGE_HOSTNAMES"), "{said}");
            }
        }
    }
    let list = registry.client().get("/v2/_catalog").await.expect(200);
    assert_eq!(list.json()["repositories"], serde_json::json!([]));
    for (host, status) in [("rebound.example", 403), ("registry.example", 200)] {
        let call = registry.client().call(Method::GET, "/v2/");
        call.header("host", host).send_h2().await.expect(status);
    }
}

/// Guards: a page of another site cannot make a browser write, whatever the host is. Reads, and clients that are no
/// browsers, are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn other_sites_do_not_write() {
    let options = ServerOptions {
        hostnames: vec!["registry.example".parse().unwrap()],
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let address = registry.client().address();
    let site = |site: &str| format!("Sec-Fetch-Site: {site}\r\n");
    let origin = |origin: &str| format!("Origin: {origin}\r\n");
    let cases = [
        (String::new(), true),
        (site("same-origin"), true),
        (site("none"), true),
        (site("cross-site"), false),
        (site("same-site"), false),
        (site("cross-site") + &origin("http://localhost:5000"), false),
        (origin("http://localhost:5000"), true),
        (origin("https://registry.example"), true),
        (origin("http://localhost:3000"), false),
        (origin("http://evil.example"), false),
        (origin("null"), false),
        (origin(""), false),
    ];
    for (headers, allowed) in cases {
        for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD"] {
            let request = format!(
                "{method} /v2/a/manifests/t HTTP/1.1\r\nHost: localhost:5000\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let (status, said) = status(address, &request).await;
            let reads = ["GET", "HEAD"].contains(&method);
            assert_eq!(status != "403", allowed || reads, "{request}{said}");
        }
    }
}

/// Guards: RFC 9112 section 6: a body whose framing two readers could read differently ends the connection, and what
/// follows is not read as a request. An unsupported transfer coding is 501.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_ends_the_connection() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let te = |value: &str| format!("Transfer-Encoding: {value}\r\n");
    let length = |value: &str| format!("Content-Length: {value}\r\n");
    for (headers, expected) in [
        (te("chunked") + &te("chunked"), "400"),
        (te("chunked, chunked"), "400"),
        (te("Chunked,CHUNKED"), "400"),
        (te(", chunked"), "400"),
        (te("chunked, gzip"), "400"),
        (te("identity"), "400"),
        (te("xchunked"), "400"),
        (te("gzip, chunked"), "501"),
        (te("identity") + &te("chunked"), "501"),
        (length("0") + &length("5"), "400"),
        (length("0, 5"), "400"),
        (length("+0"), "400"),
        (length("0x0"), "400"),
        (length("-1"), "400"),
        (length("5") + &te("chunked"), "202"),
        (te("chunked") + &length("5"), "202"),
        ("Content-Length : 0\r\n".to_owned(), "400"),
        ("X-A: a\r\n Content-Length: 5\r\n".to_owned(), "400"),
        ("X-A: a\rContent-Length: 5\r\n".to_owned(), "400"),
        ("X-A: a\0b\r\n".to_owned(), "400"),
    ] {
        let next = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let request = format!(
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n{next}"
        );
        let (status, said) = status(address, &request).await;
        assert_eq!(status, expected, "{request}{said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{request}{said}");
    }
    for last in [
        "5\r\nabcde\r\n0\r\n\r\n",
        "5;a=b\r\nabcde\r\n0\r\nX-A: b\r\n\r\n",
    ] {
        let digest = crate::sha256(b"abcde");
        let headers = te("chunked") + "Connection: close\r\n";
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{last}");
        let (status, said) = status(address, &request).await;
        assert_eq!(status, "201", "{said}");
    }
}

/// Guards: an error says what is wrong with the request, and nothing false: chunks that are not framed, a length that
/// does not fit the disk, an invalid path. A digest without a value counts as absent.
#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_was_wrong() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let digest = crate::sha256(b"abcde");
    let push = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    let large = 1_u64 << 63;
    for (line, headers, expected, words) in [
        (
            &*push,
            "Transfer-Encoding: chunked\r\n\r\nzz\r\nabcde\r\n",
            "400",
            "not valid chunked coding",
        ),
        (
            &*push,
            &*format!("Content-Length: {large}\r\n\r\n{}", "x".repeat(1 << 10)),
            "507",
            "9223372036854775808 bytes do not fit",
        ),
        ("GET /V2/", "\r\n", "404", "begin with /v2/"),
        (
            "POST /v2/a/blobs/uploads/?digest=",
            "Content-Length: 0\r\n\r\n",
            "202",
            "",
        ),
    ] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
        let (status, said) = status(address, &request).await;
        assert_eq!(status, expected, "{request}{said}");
        assert!(said.contains(words), "{request}{said}");
    }
}

/// Guards: RFC 9110 section 10.1.1: an unknown expectation is 417. HTTP/1.0 has no expectations, and a client that
/// sends one gets its answer without 100 Continue.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_expectations_are_rejected() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let digest = crate::sha256(b"abcde");
    for (version, expect, expected) in [
        ("1.1", "100-continue", "100"),
        ("1.1", "100-Continue", "100"),
        ("1.1", "200-ok", "417"),
        ("1.1", "100-continue, x", "417"),
        ("1.1", "", "201"),
        ("1.1", "100-continue, 100-continue", "201"),
        ("1.0", "100-continue", "201"),
        ("1.0", "x", "201"),
    ] {
        let request = format!(
            "POST /v2/a/blobs/uploads/?digest={digest} HTTP/{version}\r\nHost: localhost\r\nExpect: {expect}\r\n\
             Connection: close\r\nContent-Length: 5\r\n\r\nabcde"
        );
        let (status, said) = status(address, &request).await;
        assert_eq!(status, expected, "{request}{said}");
        assert_eq!(expected != "417", said.contains(" 201 "), "{request}{said}");
    }
}

/// Guards: locations are paths, unless the operator configures absolute ones for clients that need them. Links to next
/// pages stay paths.
#[tokio::test(flavor = "multi_thread")]
async fn locations_can_be_absolute() {
    for (locations, prefix) in [
        ("relative", "/v2/"),
        ("request", "http://localhost:5000/v2/"),
        ("https://registry.example", "https://registry.example/v2/"),
    ] {
        let options = ServerOptions {
            locations: locations.parse::<Locations>().unwrap(),
            ..ServerOptions::default()
        };
        let registry = TestRegistry::with(options).await;
        let address = registry.client().address();
        let digest = crate::push_blob(&registry.client(), "a", b"one").await;
        let other = crate::sha256(b"other");
        let begun = registry
            .client()
            .post("/v2/a/blobs/uploads/")
            .await
            .expect(202);
        let id = begun.header("docker-upload-uuid");
        let mount = format!("mount={digest}&from=a");
        for (method, path, body, expected) in [
            ("POST", "/v2/a/blobs/uploads/".to_owned(), "", "202"),
            ("POST", format!("/v2/b/blobs/uploads/?{mount}"), "", "201"),
            ("PATCH", format!("/v2/a/blobs/uploads/{id}"), "ab", "202"),
            ("GET", format!("/v2/a/blobs/uploads/{id}"), "", "204"),
            // Errors of an upload carry its location too.
            (
                "PUT",
                format!("/v2/a/blobs/uploads/{id}?digest={other}"),
                "",
                "400",
            ),
        ] {
            let length = body.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost:5000\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let (status, said) = status(address, &request).await;
            assert_eq!(status, expected, "{request}{said}");
            assert!(
                said.contains(&format!("location: {prefix}")),
                "{request}{said}"
            );
        }
        let catalog = registry.client().get("/v2/_catalog?n=1").await.expect(200);
        assert!(catalog.header("link").starts_with("</v2/_catalog?"));
    }
}
