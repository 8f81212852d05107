//! One client pulls one blob over TLS: by HTTP/1.1 with the load client, by HTTP/2 with curl.
//!
//! All use TLS 1.3 with the cipher that `tonnage` negotiates with a client that offers all.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::Bench;
use crate::content::digest_text;
use crate::fleet::{Per, Server};
use crate::limits::Limit;
use crate::load::blob_path;
use crate::load::job::{Blob, Outcome, Until, Work};

const NAME: &str = "tls-pull";

pub fn run(bench: &mut Bench) -> Result<(), String> {
    let (large, repeat, rounds) = (bench.sizes.large, bench.sizes.repeat, bench.sizes.rounds);
    let members = bench.members(&[Limit::Nginx]);
    bench.need_space(large * members.len() as u64)?;
    let fleet = bench.fleet(NAME, &members, true)?;
    let content = bench.content(large);
    let blobs = fleet.store(&[content], true)?;
    let blob = blobs.first().ok_or("no blob")?;
    let ca = &fleet
        .certificate
        .as_ref()
        .ok_or("no certificate")?
        .certificate;
    bench.rounds(NAME, 0..rounds, &fleet, |server| {
        let work = Work::Pull {
            blobs: blobs.clone(),
        };
        let values = server.measure(1, Until::Count(repeat), work, Per::Bytes)?;
        Ok(vec![("HTTP/1.1", Per::Bytes, values)])
    })?;
    if let Err(why) = fleet
        .servers
        .iter()
        .try_for_each(|server| check(server, blob, ca))
    {
        bench.report.skip(NAME, &why);
        return Ok(());
    }
    bench.rounds(NAME, 0..rounds, &fleet, |server| {
        let values = server.beside(Per::Bytes, || by_curl(server, blob, ca, repeat))?;
        Ok(vec![("HTTP/2", Per::Bytes, values)])
    })
}

fn curl(server: &Server, blob: &Blob, ca: &Path) -> Result<(Command, String), String> {
    let digest = blob.digest.as_deref().ok_or("a blob without digest")?;
    let url = format!("https://{}{}", server.endpoint.address, blob_path(digest));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--http2", "--tlsv1.3"]);
    command
        .args(["--tls13-ciphers", "TLS_AES_256_GCM_SHA384", "--cacert"])
        .arg(ca);
    Ok((command, url))
}

/// Pulls once by HTTP/2 and compares the SHA-256.
fn check(server: &Server, blob: &Blob, ca: &Path) -> Result<(), String> {
    let (mut command, url) = curl(server, blob, ca)?;
    let child = command.arg(&url).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| format!("HTTP/2: run curl: {e}; apt-get install curl"))?;
    let mut body = child.stdout.take().ok_or("no pipe from curl")?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match body
            .read(&mut buffer)
            .map_err(|e| format!("read from curl: {e}"))?
        {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let status = child.wait().map_err(|e| format!("wait for curl: {e}"))?;
    if !status.success() || Some(digest_text(hasher)) != blob.digest {
        return Err(format!(
            "HTTP/2 with {}: curl ended with {status}, or other content",
            server.name
        ));
    }
    Ok(())
}

/// Pulls several times over one connection. The time is what curl reports of each transfer.
fn by_curl(server: &Server, blob: &Blob, ca: &Path, repeat: u64) -> Result<Outcome, String> {
    let (mut command, url) = curl(server, blob, ca)?;
    command.args([
        "--write-out",
        "%{http_version} %{size_download} %{time_total}\n",
    ]);
    for _ in 0..repeat {
        command.args(["--output", "/dev/null", &url]);
    }
    let output = command.output().map_err(|e| format!("run curl: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut times = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        match fields[..] {
            ["2", size, time] if size == blob.content.length.to_string() => {
                times.push(time.parse::<f64>().map_err(|e| format!("{line}: {e}"))?);
            }
            _ => return Err(format!("HTTP/2 with {}: unexpected {line}", server.name)),
        }
    }
    times.sort_by(f64::total_cmp);
    let millis = |at: usize| times.get(at).map_or(0.0, |seconds| seconds * 1e3);
    Ok(Outcome {
        seconds: times.iter().sum(),
        units: times.len() as u64,
        bytes: blob.content.length * times.len() as u64,
        p50_ms: millis(times.len() / 2),
        p99_ms: millis(times.len().saturating_sub(1)),
        ..Outcome::default()
    })
}
