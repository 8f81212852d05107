//! A disk that becomes nearly full under a running registry: pushes are refused early, everything else works.

use std::time::Instant;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::content::Content;
use tonnage_tests::mount::SmallDisk;
use tonnage_tests::push::{MANIFEST, Pusher};

use crate::full::{DISK_MIB, MIB, path_of, push_image, put};
use crate::served::{Served, run};

/// The default watermark of the disk: a twentieth.
const MIN_BYTES: u64 = DISK_MIB * MIB / 20;

/// Checks that a push was refused by the watermark: an OCI error that names it, and what to do.
fn check_refusal(answer: Answer) {
    let answer = answer.expect_error(507, "UNKNOWN");
    let said = String::from_utf8(answer.body.to_vec()).unwrap();
    for part in ["nearly full", &MIN_BYTES.to_string(), "free space"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}

async fn check_admin(served: &Served, low: bool) {
    let admin = Client::new(served.admin);
    let ready = admin.get("/readyz").await.expect(200);
    assert_eq!(ready.body.starts_with(b"pushes are refused"), low);
    let metrics = admin.get("/metrics").await.expect(200);
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        format!("registry_storage_free_min_bytes {MIN_BYTES}"),
        format!("registry_storage_nearly_full {}", u64::from(low)),
        "registry_storage_read_only 0".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

/// Writes a file so that `free` bytes of the disk are left.
fn leave_free(disk: &SmallDisk, name: &str, free: u64) {
    let bytes = usize::try_from(disk.free() - free).unwrap();
    std::fs::write(disk.path().join(name), vec![1; bytes]).unwrap();
}

/// Begins an upload, sends a part and disconnects. Returns its path.
async fn abandon(client: &Client, seed: u64) -> String {
    let opened = client.post("/v2/full/blobs/uploads/").await.expect(202);
    let path = opened.header("location").to_owned();
    let part = Content::new(seed, 3 * MIB).bytes();
    client.patch(&path, part).await.expect(202);
    path
}

/// Sends the head of a push of a whole blob, and no body. Returns the beginning of the answer.
async fn answer_to_head(served: &Served) -> String {
    let head = format!(
        "POST /v2/full/blobs/uploads/?digest=sha256:{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MIB}\r\n\r\n",
        "0".repeat(64)
    );
    let stream = tokio::net::TcpStream::connect(served.address).await;
    let mut stream = stream.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    String::from_utf8_lossy(&start).into_owned()
}

/// Guards: below the watermark, abandoned uploads are ended first. Then new uploads, whole blobs and chunks are refused
/// before their bytes are read, while pulls, manifests, mounts, tags and deletes work. Collection gives the space back,
/// and pushes work again by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_refuses_pushes_early() {
    let Some(disk) = SmallDisk::mount(DISK_MIB, "a registry whose disk is nearly full") else {
        return;
    };
    let data = disk.path().join("data");
    let served = Served::start_with(
        &data,
        &[
            "--collection-grace",
            "5s",
            "--storage-spill-threshold",
            "64 KiB",
        ],
    )
    .unwrap();
    let client = Client::new(served.address);
    let layer = Content::new(1, 20 * MIB);
    put(&client, layer.bytes()).await.expect(201);
    push_image(&client, layer, "first").await;
    let manifest = client.get("/v2/full/manifests/first").await.expect(200);
    let digest = manifest.header("docker-content-digest").to_owned();
    check_admin(&served, false).await;
    let abandoned = [abandon(&client, 7).await, abandon(&client, 8).await];

    // Both have to be ended to reach the watermark.
    leave_free(&disk, "first", MIN_BYTES - 5 * MIB);
    let begun = Instant::now();
    let opened = loop {
        // The first answers may be to an older measurement.
        let opened = client.post("/v2/full/blobs/uploads/").await;
        if client.get(&abandoned[1]).await.status == 404 {
            break opened;
        }
        assert!(begun.elapsed().as_secs() < 120, "none is ended");
    };
    client.get(&abandoned[0]).await.expect(404);
    let upload = opened.expect(202).header("location").to_owned();
    leave_free(&disk, "second", MIN_BYTES - MIB);
    let begun = Instant::now();
    while client.post("/v2/full/blobs/uploads/").await.status != 507 {
        assert!(begun.elapsed().as_secs() < 120, "pushes are not refused");
    }
    check_refusal(client.post("/v2/full/blobs/uploads/").await);
    check_refusal(client.patch(&upload, &b"chunk"[..]).await);
    client.get(&upload).await.expect(204);
    assert_eq!(answer_to_head(&served).await, "HTTP/1.1 507");
    check_admin(&served, true).await;
    let (code, said) = run(&["stats"], &data);
    assert!(
        code == Some(0) && said.contains("pushes are refused"),
        "{said}"
    );
    assert!(
        disk.free() > MIN_BYTES / 2,
        "{} bytes are free",
        disk.free()
    );

    client.get(&path_of(layer)).await.expect(200);
    let again = Pusher::manifest(&[(layer.digest(), layer.length)], 2);
    let call = client.call(Method::PUT, "/v2/full/manifests/second");
    let call = call.header("content-type", MANIFEST).body(whole(again));
    let second = call.send().await.expect(201);
    let second = second.header("docker-content-digest").to_owned();
    let mount = format!(
        "/v2/other/blobs/uploads/?mount={}&from=full",
        layer.digest()
    );
    client.post(&mount).await.expect(201);
    client.delete("/v2/full/manifests/second").await.expect(202);
    for manifest in [digest, second] {
        let path = format!("/v2/full/manifests/{manifest}");
        client.delete(&path).await.expect(202);
        client.get(&path).await.expect(404);
    }
    let begun = Instant::now();
    while client.post("/v2/full/blobs/uploads/").await.status != 202 {
        assert!(begun.elapsed().as_secs() < 120, "no space comes back");
    }
    put(&client, Content::new(9, MIB).bytes()).await.expect(201);
    let (code, said) = served.stop();
    assert_eq!(code, Some(0), "{said}");
}
