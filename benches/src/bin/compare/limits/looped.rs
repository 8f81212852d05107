//! The loops that a pull and a push are compared with: blocking threads, one for each connection.
//!
//! Owns: just enough HTTP for the load client. A GET is a write loop from a mapped file. A push is received, hashed,
//! written and synced in one thread.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::mapped::Mapped;

const PIECE: usize = 1 << 20;

/// Serves until the process is killed.
pub fn serve(address: SocketAddr, www: &Path) -> Result<(), String> {
    let listener = TcpListener::bind(address).map_err(|e| format!("listen on {address}: {e}"))?;
    for stream in listener.incoming() {
        let (stream, www) = (stream.map_err(|e| format!("accept: {e}"))?, www.to_owned());
        std::thread::spawn(move || {
            // A client that drops its connection is part of the load.
            if let Err(why) = one_connection(stream, &www) {
                eprintln!("loop: {why}");
            }
        });
    }
    Ok(())
}

/// A request's head: the first line's words, the length of the body, the range.
struct Head {
    method: String,
    path: String,
    length: u64,
    range: Option<(usize, Option<usize>)>,
}

fn one_connection(stream: TcpStream, www: &Path) -> Result<(), String> {
    stream
        .set_nodelay(true)
        .map_err(|e| format!("set TCP_NODELAY: {e}"))?;
    let mut out = stream
        .try_clone()
        .map_err(|e| format!("share a socket: {e}"))?;
    let (mut input, mut files) = (BufReader::new(stream), HashMap::new());
    while let Some(head) = read_head(&mut input)? {
        match head.method.as_str() {
            "GET" => send_file(&mut out, &head, www, &mut files)?,
            "PATCH" => {
                receive(&mut input, head.length, www)?;
                answer(&mut out, "202 Accepted\r\nLocation: /upload")?;
            }
            "POST" => answer(&mut out, "202 Accepted\r\nLocation: /upload")?,
            _ => answer(&mut out, "201 Created")?,
        }
    }
    Ok(())
}

fn answer(out: &mut TcpStream, status: &str) -> Result<(), String> {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    out.write_all(text.as_bytes())
        .map_err(|e| format!("answer: {e}"))
}

fn read_head(input: &mut impl BufRead) -> Result<Option<Head>, String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = input
            .read_line(&mut line)
            .map_err(|e| format!("read a request: {e}"))?;
        match (read, line.trim_end()) {
            (0, _) => return Ok(None),
            (_, "") => break,
            (_, line) => lines.push(line.to_owned()),
        }
    }
    let mut words = lines
        .first()
        .ok_or("an empty request")?
        .split(' ')
        .map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let value = |name: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let range = value("Range: bytes=").and_then(|range| {
        let (start, end) = range.split_once('-')?;
        Some((
            start.parse().ok()?,
            end.parse::<usize>().ok().map(|last| last + 1),
        ))
    });
    let length = value("Content-Length:")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Ok(Some(Head {
        method,
        path,
        length,
        range,
    }))
}

fn send_file(
    out: &mut TcpStream,
    head: &Head,
    www: &Path,
    files: &mut HashMap<String, Mapped>,
) -> Result<(), String> {
    let file = match files.get(&head.path) {
        Some(file) => *file,
        None => {
            let file = Mapped::open(&www.join(head.path.trim_start_matches('/')))?;
            files.insert(head.path.clone(), file);
            file
        }
    };
    let whole = file.bytes();
    let (start, end) = head.range.unwrap_or((0, None));
    let end = end.unwrap_or(whole.len());
    let bytes = whole.get(start..end).ok_or("a range beyond the file")?;
    let status = if head.range.is_some() {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    let send = |piece: &[u8], out: &mut TcpStream| out.write_all(piece);
    let sent = send(text.as_bytes(), out);
    let sent = sent.and_then(|()| bytes.chunks(PIECE).try_for_each(|piece| send(piece, out)));
    sent.map_err(|e| format!("send: {e}"))
}

fn receive(input: &mut impl Read, length: u64, www: &Path) -> Result<(), String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path: PathBuf = www.join(format!("received{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let doing = |e| format!("receive {}: {e}", path.display());
    let mut file = File::create(&path).map_err(doing)?;
    let (mut hasher, mut buffer, mut left) = (Sha256::new(), vec![0; PIECE], length);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = input.read(&mut buffer[..most]).map_err(doing)?;
        if read == 0 {
            return Err("a push was cut off".into());
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(doing)?;
        left -= read as u64;
    }
    file.sync_data().map_err(doing)?;
    std::hint::black_box(hasher.finalize());
    Ok(())
}
