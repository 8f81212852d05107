//! Measures the limits of the machine for a push and a pull, in the same run.
//!
//! Owns: [`receive_hash_write_sync`], [`write_from_memory`], [`flush_millis`]. Refuses: the other work of a registry.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

const PIECE: usize = 1 << 20;

/// Measures one thread that receives from a loopback socket, hashes and writes, with one fdatasync at the end. Returns
/// the time until the sync returned.
pub fn receive_hash_write_sync(path: &Path, bytes: &[u8]) -> Result<Duration, String> {
    let took = over_loopback(bytes, |mut stream, begin| {
        let mut file = File::create(path)?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; PIECE]);
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
        }
        file.sync_data()?;
        std::hint::black_box(hasher.finalize());
        Ok(begin.elapsed())
    });
    took.map_err(|e| format!("receive, hash, write, sync: {e}"))
}

/// Measures one thread that writes a file in memory to a loopback socket, while another receives and discards it.
/// Returns the time until all was received.
pub fn write_from_memory(path: &Path) -> Result<Duration, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let took = over_loopback(&bytes, |mut stream, begin| {
        let mut buffer = vec![0; PIECE];
        while stream.read(&mut buffer)? > 0 {}
        Ok(begin.elapsed())
    });
    took.map_err(|e| format!("write from memory: {e}"))
}

/// Sends `bytes` from a thread. Passes the other end to `receive`, with the time at which sending began.
fn over_loopback(
    bytes: &[u8],
    receive: impl FnOnce(TcpStream, Instant) -> io::Result<Duration>,
) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let begin = Instant::now();
        let sender = scope.spawn(move || {
            let mut stream = TcpStream::connect(address)?;
            bytes
                .chunks(PIECE)
                .try_for_each(|piece| stream.write_all(piece))
        });
        let (stream, _) = listener.accept()?;
        let took = receive(stream, begin)?;
        match sender.join() {
            Ok(sent) => sent.map(|()| took),
            Err(_) => Err(io::Error::other("the sender panicked")),
        }
    })
}

/// Returns the median of 50 fdatasyncs after a write of 4 KiB each, in milliseconds: the minimum cost of a durable
/// commit.
pub fn flush_millis(path: &Path) -> Result<f64, String> {
    let one = |file: &mut File| {
        let begin = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        Ok::<_, io::Error>(begin.elapsed().as_secs_f64() * 1e3)
    };
    let all = || {
        let mut file = File::create(path)?;
        (0..50)
            .map(|_| one(&mut file))
            .collect::<io::Result<Vec<f64>>>()
    };
    let mut times = all().map_err(|e| format!("measure the flush of {}: {e}", path.display()))?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
