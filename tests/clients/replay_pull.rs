//! Pulls of a client that is not installed, request by request: zstd:chunked.
//!
//! Owns: the requests, and each client's checks of the answers. Refuses: to be more lenient than the client.

use hyper::{Method, StatusCode};
use tonnage_tests::content::Content;
use tonnage_tests::http::{Answer, Connection, Upload};
use tonnage_tests::push::{Pusher, Shape};

use crate::checks::same;
use crate::lane::{Lane, Registry};

const CHUNKED: (&str, &str) = ("podman, zstd:chunked", "2026-04");

fn pushed(lane: &Lane, content: Content) -> Result<(Registry, String), String> {
    let registry = lane.registry()?;
    let name = lane.repository("replayed");
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    let digest = content.digest();
    runtime.block_on(async {
        let mut pusher = Pusher::new(Connection::connect(registry.address).await?, &name);
        pusher.blob(content, &digest, Shape::Monolithic).await
    })?;
    Ok((registry, format!("/v2/{name}/blobs/{digest}")))
}

/// Guards: a pull of zstd:chunked as in containers/storage: two ranges for the lists at the end, then up to 1024 ranges
/// for the missing files, returned as many parts in order. Too many are 400, which is the only status after which the
/// client halves the list.
pub fn zstd_chunked(lane: &Lane) -> Result<(), String> {
    let content = Content::new(5, 12 << 20);
    let (registry, path) = pushed(lane, content)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    let get = |ranges: &[(u64, u64)]| -> Result<Answer, String> {
        let list: Vec<String> = ranges
            .iter()
            .map(|(from, last)| format!("{from}-{last}"))
            .collect();
        let range = format!("bytes={}", list.join(","));
        runtime.block_on(async {
            let mut client = Connection::connect(registry.address).await?;
            let headers = [("range", range.as_str())];
            client
                .send(Method::GET, &path, &headers, Upload::empty())
                .await
        })
    };
    let end = content.length;
    let lists = [(end - 90_000, end - 30_001), (end - 30_000, end - 65)];
    lane.replay(CHUNKED, "pull: two ranges for the lists", || {
        parts(&get(&lists)?, &lists, content)
    })?;
    // The client merges ranges less than 1 KiB apart, so these are further apart.
    let files: Vec<_> = (0..2048_u64)
        .map(|n| (n * 5_000, n * 5_000 + 2_999))
        .collect();
    lane.replay(CHUNKED, "pull: 1024 ranges in one request", || {
        parts(&get(&files[..1024])?, &files[..1024], content)
    })?;
    lane.replay(
        CHUNKED,
        "pull: too many ranges are 400, halves are served",
        || {
            let refused = get(&files)?;
            same(
                "status",
                refused.status.as_u16(),
                StatusCode::BAD_REQUEST.as_u16(),
            )?;
            for half in files.chunks(1024) {
                parts(&get(half)?, half, content)?;
            }
            Ok(())
        },
    )?;
    lane.replay(CHUNKED, "pull: one range comes without parts", || {
        let answer = get(&files[7..8])?.wanted(StatusCode::PARTIAL_CONTENT, "GET")?;
        holds(&answer.body, files[7], content)
    })
}

/// Checks that there are as many parts as ranges, in their order, each with its bytes.
fn parts(answer: &Answer, ranges: &[(u64, u64)], content: Content) -> Result<(), String> {
    same(
        "status",
        answer.status.as_u16(),
        StatusCode::PARTIAL_CONTENT.as_u16(),
    )?;
    let kind = answer.find("content-type").unwrap_or_default();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.ok_or_else(|| format!("an answer of type {kind}"))?;
    let mut rest = &answer.body[..];
    for (from, last) in ranges {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = rest.split_at(end.ok_or("a part without a head")? + 4);
        let head = String::from_utf8_lossy(head).to_lowercase();
        let range = format!(
            "\r\ncontent-range: bytes {from}-{last}/{}\r\n",
            content.length
        );
        let begins = head
            .trim_start()
            .starts_with(&format!("--{}", boundary.to_lowercase()));
        if !begins || !head.contains(&range) {
            return Err(format!("a part of {from}-{last} that begins {head:?}"));
        }
        let length = (last - from + 1) as usize;
        let bytes = body.get(..length).ok_or("a part that is too short")?;
        holds(bytes, (*from, *last), content)?;
        rest = &body[length..];
    }
    same(
        "end",
        String::from_utf8_lossy(rest).trim(),
        format!("--{boundary}--"),
    )
}

fn holds(bytes: &[u8], (from, last): (u64, u64), content: Content) -> Result<(), String> {
    let mut wanted = vec![0; (last - from + 1) as usize];
    content.read_at(from, &mut wanted);
    if wanted == bytes {
        Ok(())
    } else {
        Err(format!("other bytes than those of {from}-{last}"))
    }
}
