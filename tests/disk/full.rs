//! A disk that becomes full under a running registry.

use std::path::Path;

use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::content::{Content, digest_of_bytes};
use tonnage_tests::mount::SmallDisk;
use tonnage_tests::push::{EMPTY_JSON, MANIFEST, Pusher};

use crate::served::{Served, run};

pub const MIB: u64 = 1 << 20;
pub const DISK_MIB: u64 = 192;
/// No watermark, so that the disk can be filled to its end.
const TO_THE_END: [&str; 2] = ["--storage-free-space-min", "0 B"];
const BALLAST: usize = 40 << 20;

/// Pushes blobs and records what was acknowledged.
struct Pushed {
    client: Client,
    stored: Vec<Content>,
    seed: u64,
}

pub fn path_of(content: Content) -> String {
    format!("/v2/full/blobs/{}", content.digest())
}

pub async fn put(client: &Client, bytes: Vec<u8>) -> Answer {
    let digest = digest_of_bytes(&bytes);
    let opened = client.post("/v2/full/blobs/uploads/").await;
    if opened.status != 202 {
        return opened;
    }
    let target = format!("{}?digest={digest}", opened.header("location"));
    client.put(&target, bytes).await
}

impl Pushed {
    /// Pushes blobs of `bytes` until one is rejected. Returns that answer.
    async fn until_refused(&mut self, bytes: u64) -> Answer {
        let most = self.stored.len() as u64 + DISK_MIB * MIB / bytes + 1;
        loop {
            assert!((self.stored.len() as u64) < most, "more than the disk has");
            self.seed += 1;
            let content = Content::new(self.seed, bytes);
            let answer = put(&self.client, content.bytes()).await;
            if answer.status != 201 {
                return answer;
            }
            self.stored.push(content);
        }
    }

    async fn check_all(&self) {
        for content in &self.stored {
            let answer = self.client.get(&path_of(*content)).await.expect(200);
            assert!(
                answer.body[..] == content.bytes()[..],
                "{content:?} differs"
            );
        }
    }
}

/// Checks the answer to a push on a full disk: an OCI error that says so, without internals.
fn check_refusal(answer: Answer, data: &Path) {
    let answer = answer.expect_error(507, "UNKNOWN");
    let said = String::from_utf8(answer.body.to_vec()).unwrap();
    // A large blob is refused before its first byte, because its length is announced.
    let says_why = said.contains("disk is full") || said.contains("do not fit");
    assert!(says_why, "{said}");
    for inside in [data.to_str().unwrap(), "segment", "journal", "os error"] {
        assert!(!said.contains(inside), "{inside} in {said}");
    }
}

async fn check_admin(served: &Served) {
    let admin = Client::new(served.admin);
    let ready = admin.get("/readyz").await.expect(200);
    assert_eq!(&ready.body[..], b"ready\n");
    let metrics = admin.get("/metrics").await.expect(200);
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(
        metrics.contains("registry_storage_read_only 0"),
        "{metrics}"
    );
    let refused = |line: &&str| line.contains("requests_total") && line.contains("code=\"507\"");
    assert!(metrics.lines().any(|line| refused(&line)), "{metrics}");
}

/// Pushes an image of one layer under a tag.
pub async fn push_image(client: &Client, layer: Content, tag: &str) {
    put(client, EMPTY_JSON.to_vec()).await.expect(201);
    let manifest = Pusher::manifest(&[(layer.digest(), layer.length)], 1);
    let path = format!("/v2/full/manifests/{tag}");
    let call = client.call(http::Method::PUT, &path);
    let call = call.header("content-type", MANIFEST).body(whole(manifest));
    call.send().await.expect(201);
}

/// Guards: on a full disk only pushes that do not fit fail, with a clear error. Pulls and deletes continue, also over a
/// kill and a start. With space, pushes work again, and the store is sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_pushes_alone() {
    let Some(disk) = SmallDisk::mount(DISK_MIB, "a registry whose disk runs full") else {
        return;
    };
    let (data, ballast) = (disk.path().join("data"), disk.path().join("ballast"));
    std::fs::write(&ballast, vec![1; BALLAST]).unwrap();
    let mut served = Served::start_with(&data, &TO_THE_END).unwrap();
    let client = Client::new(served.address);
    let mut pushed = Pushed {
        client,
        stored: vec![Content::new(1, MIB)],
        seed: 1,
    };
    put(&client, pushed.stored[0].bytes()).await.expect(201);
    push_image(&client, pushed.stored[0], "first").await;

    // Dedicated segments, then the shared one, then its last gaps.
    for bytes in [12 * MIB, 3 * MIB, 64 << 10] {
        check_refusal(pushed.until_refused(bytes).await, &data);
    }
    assert!(disk.free() < MIB, "{} bytes are free", disk.free());
    assert!(
        pushed.stored.len() > 4,
        "{} blobs fitted",
        pushed.stored.len()
    );
    pushed.check_all().await;
    check_admin(&served).await;
    let (code, said) = run(&["stats"], &data);
    assert!(code == Some(0) && said.contains("a server runs"), "{said}");
    let gone = pushed.stored.pop().unwrap();
    client.delete(&path_of(gone)).await.expect(202);
    client.get(&path_of(gone)).await.expect(404);
    client.get("/v2/full/manifests/first").await.expect(200);
    client.delete("/v2/full/manifests/first").await.expect(202);
    client.get("/v2/full/manifests/first").await.expect(404);
    assert!(served.runs());

    // Several times, because each start begins a journal file, and the space that a start frees must suffice.
    for _ in 0..4 {
        served.kill();
        served = Served::start_with(&data, &TO_THE_END).expect("a start on a full disk");
        pushed.client = Client::new(served.address);
        check_refusal(pushed.until_refused(64 << 10).await, &data);
    }
    pushed.check_all().await;
    let gone = pushed.stored.pop().unwrap();
    pushed.client.delete(&path_of(gone)).await.expect(202);

    std::fs::remove_file(&ballast).unwrap();
    let again = Content::new(0, 12 * MIB);
    put(&pushed.client, again.bytes()).await.expect(201);
    pushed.stored.push(again);
    push_image(&pushed.client, again, "again").await;
    pushed.check_all().await;
    let (code, said) = served.stop();
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["fsck", "--deep"], &data);
    assert!(code == Some(0) && said.ends_with("sound\n"), "{said}");
}

/// Guards: on a wholly full disk, deletes and collection work from the reserve, and what they free is enough for the
/// next push.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_frees_a_full_disk() {
    let Some(disk) = SmallDisk::mount(DISK_MIB, "collection on a full disk") else {
        return;
    };
    let data = disk.path().join("data");
    let options = [TO_THE_END[0], TO_THE_END[1], "--collection-grace", "5s"];
    let served = Served::start_with(&data, &options).unwrap();
    let client = Client::new(served.address);
    let layer = Content::new(1, 12 * MIB);
    put(&client, layer.bytes()).await.expect(201);
    push_image(&client, layer, "only").await;
    let manifest = client.get("/v2/full/manifests/only").await.expect(200);
    let manifest = manifest.header("docker-content-digest").to_owned();
    fill(&disk);
    check_refusal(put(&client, Content::new(2, MIB).bytes()).await, &data);

    let path = format!("/v2/full/manifests/{manifest}");
    client.delete(&path).await.expect(202);
    let begun = std::time::Instant::now();
    // The grace of 5 s has to pass.
    while disk.free() < 12 * MIB {
        let (code, said) = run(&["collect"], &data);
        assert_eq!(code, Some(0), "{said}");
        assert!(begun.elapsed().as_secs() < 120, "{said}");
    }
    client.get(&path_of(layer)).await.expect(404);
    let next = Content::new(3, 9 * MIB);
    put(&client, next.bytes()).await.expect(201);
    let (code, said) = served.stop();
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["fsck", "--deep"], &data);
    assert!(code == Some(0) && said.ends_with("sound\n"), "{said}");
}

/// Writes a file until the disk is full.
fn fill(disk: &SmallDisk) {
    use std::io::Write as _;
    let mut file = std::fs::File::create_new(disk.path().join("ballast")).unwrap();
    for bytes in [MIB, 4096] {
        let block = vec![1; usize::try_from(bytes).unwrap()];
        while file.write_all(&block).is_ok() {}
    }
    assert_eq!(disk.free(), 0);
}

/// Guards: a length that cannot fit is rejected when its first bytes arrive, and leaves no file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_terabyte_is_rejected_at_once() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Some(disk) = SmallDisk::mount(DISK_MIB, "a push of more than the disk has") else {
        return;
    };
    let data = disk.path().join("data");
    let served = Served::start(&data).unwrap();
    let free = disk.free();
    let head = format!(
        "POST /v2/full/blobs/uploads/?digest=sha256:{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        "0".repeat(64),
        1u64 << 40
    );
    let mut stream = tokio::net::TcpStream::connect(served.address)
        .await
        .unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![0; 1 << 20]).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 507");
    drop(stream);
    assert!(
        disk.free() + MIB > free,
        "{} of {free} bytes are left",
        disk.free()
    );
    let (code, said) = served.stop();
    assert_eq!(code, Some(0), "{said}");
}
