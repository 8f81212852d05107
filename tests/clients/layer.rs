//! One layer of random bytes: 64 MiB, or 6 GiB in full runs. It is streamed and compared without a copy on disk where
//! the client allows.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use tonnage_tests::content::{Content, same_bytes};
use tonnage_tests::http;
use tonnage_tests::process::free_bytes;
use tonnage_tests::push::{Pusher, Shape};
use tonnage_tests::say;

use crate::call::Call;
use crate::lane::{Lane, Registry};
use crate::program::{Client, Required};

const PLAIN: u64 = 64 << 20;
const FULL: u64 = 6 << 30;
/// The limit for a commit, checked in full runs only. The goal is one second plus the drive's flush of 64 MiB, which is
/// printed. Drives of test machines stall for seconds, so the test only requires that no client times out: the
/// strictest waits 30 s for the answer to a PUT.
const COMMIT_BOUND: Duration = Duration::from_secs(30);

/// Guards: a layer of any size that one client pushes is pulled by another with the same bytes. The 201 takes no longer
/// for a larger layer: the server neither reads it again nor copies it.
pub fn round_trips(lane: &Lane) -> Result<(), String> {
    let registry = lane.registry()?;
    let length = length(registry.folder.path())?;
    let seed = u64::from(std::process::id());
    say::print_line(&format!("layer of {} MiB, seed {seed}", length >> 20));
    own_push(lane, &registry, Content::new(seed, length))?;
    // The second content has other bytes, so that the first one's blob cannot answer for it.
    client_push(lane, &registry, Content::new(seed.wrapping_add(1), length))
}

fn length(folder: &Path) -> Result<u64, String> {
    if !say::full() {
        return Ok(PLAIN);
    }
    // Two blobs in the registry, one file at the pushing client, and some reserve.
    let (free, needed) = (free_bytes(folder)?, 4 * FULL);
    if free >= needed {
        return Ok(FULL);
    }
    let why = format!(
        "{} GiB are free and {} are needed",
        free >> 30,
        needed >> 30
    );
    say::skipped("the 6 GiB layer (64 MiB instead)", &why);
    if Required::of_environment() != Required::None {
        return Err(format!("the 6 GiB layer: {why}"));
    }
    Ok(PLAIN)
}

/// Pushes with the tests' own client, which knows when its last byte was sent, and pulls with external clients.
fn own_push(lane: &Lane, registry: &Registry, content: Content) -> Result<(), String> {
    let name = lane.repository("layer-own");
    let digest = content.digest();
    let small = Content::new(content.seed ^ 1, 9 << 20);
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    for (shape, what) in [
        (Shape::Streamed, "PATCH and PUT"),
        (Shape::Monolithic, "one PUT"),
    ] {
        let (commit, commit_small, took) = runtime.block_on(async {
            let client = http::Connection::connect(registry.address).await?;
            let mut pusher = Pusher::new(client, &name);
            let commit_small = pusher.blob(small, &small.digest(), shape).await?;
            let begin = Instant::now();
            let commit = pusher.blob(content, &digest, shape).await?;
            Ok::<_, String>((commit, commit_small, begin.elapsed()))
        })?;
        say::print_line(&format!(
            "layer by {what}: {} MiB in {:.1} s; last byte to 201: {:.3} s; for 9 MiB: {:.3} s",
            content.length >> 20,
            took.as_secs_f64(),
            commit.as_secs_f64(),
            commit_small.as_secs_f64()
        ));
        if content.length == FULL && registry.server.is_some() && commit > COMMIT_BOUND {
            return Err(format!(
                "{commit:?} from the last byte to the 201 of {what}"
            ));
        }
    }
    let image = format!("{}@{digest}", registry.image(&name));
    for (client, verb) in [(Client::Crane, CRANE), (Client::Oras, ORAS)] {
        if lane.has(client, "layer")? {
            let operation = "pull a layer of random bytes, compare";
            lane.step(client, operation, || {
                compare(lane, client, verb, &image, content)
            })?;
        }
    }
    Ok(())
}

/// Pushes with oras from a file, and pulls with crane.
fn client_push(lane: &Lane, registry: &Registry, content: Content) -> Result<(), String> {
    if !lane.has(Client::Oras, "layer")? {
        return Ok(());
    }
    let file = registry.path("layer.bin");
    write(&file, content)?;
    let image = registry.image(&lane.repository("layer-oras"));
    let digest = lane.run(Client::Oras, "push a layer of random bytes", |call| {
        call.args(["blob", "push", "--plain-http", "--no-tty", &image])
            .arg(&file)
    });
    std::fs::remove_file(&file).map_err(|e| format!("remove {}: {e}", file.display()))?;
    digest?;
    let blob = format!("{image}@{}", content.digest());
    if lane.has(Client::Crane, "layer")? {
        lane.step(
            Client::Crane,
            "pull the layer that oras pushed, compare",
            || compare(lane, Client::Crane, CRANE, &blob, content),
        )?;
    }
    Ok(())
}

type Verb = fn(Call, &str) -> Call;
const CRANE: Verb = |call, blob| call.args(["blob", "--insecure", blob]);
const ORAS: Verb = |call, blob| call.args(["blob", "fetch", "--plain-http", "--output", "-", blob]);

fn compare(
    lane: &Lane,
    client: Client,
    verb: Verb,
    blob: &str,
    content: Content,
) -> Result<(), String> {
    let call = verb(lane.programs.call(client)?, blob);
    let begin = Instant::now();
    call.stream(|bytes: &mut dyn Read| same_bytes(bytes, content.reader(0)).map(drop))?;
    let rate = (content.length >> 20) as f64 / begin.elapsed().as_secs_f64();
    say::print_line(&format!(
        "{} pulled and compared at {rate:.0} MiB/s",
        client.name()
    ));
    Ok(())
}

fn write(path: &Path, content: Content) -> Result<(), String> {
    let file = File::create(path).map_err(|e| format!("create {}: {e}", path.display()))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    io::copy(&mut content.reader(0), &mut file)
        .and_then(|_| io::Write::flush(&mut file))
        .map_err(|e| format!("write {}: {e}", path.display()))
}
