//! Cancellation of an upload to which another request still writes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_tests::registry::TestRegistry;

use crate::{begin, sha256};

/// Guards: spec, "Cancel" (end-14): a DELETE of an upload is 204 although an abandoned request still writes to it. That
/// request then finds no upload, and closing it makes no blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_upload_can_be_cancelled() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = sha256(b"0123456789");
    for (method, query) in [
        ("PATCH", String::new()),
        ("PUT", format!("?digest={digest}")),
    ] {
        let location = begin(&client, "a").await;
        let mut stream = TcpStream::connect(client.address()).await.unwrap();
        let head = format!(
            "{method} {location}{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server asks for the body once the request has the upload's turn.
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
        client.delete(&location).await.expect(204);
        client
            .get(&location)
            .await
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client
            .delete(&location)
            .await
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        stream.write_all(b"0123456789").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(
            rest.starts_with(b"HTTP/1.1 404"),
            "{method}: {:?}",
            String::from_utf8_lossy(&rest)
        );
        client
            .head(&format!("/v2/a/blobs/{digest}"))
            .await
            .expect(404);
    }
}
