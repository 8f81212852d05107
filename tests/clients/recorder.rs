//! A proxy to the registry that records the requests of a client.
//!
//! Owns: [`Recorder`]. Refuses: request bodies, which it cannot distinguish from heads; it is for pulls.

use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A proxy that passes on every byte in both directions, until this value is dropped.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub fn start(to: SocketAddr) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("listen: {e}"))?;
        let address = listener.local_addr().map_err(|e| format!("listen: {e}"))?;
        let (ended, heads) = (Arc::<AtomicBool>::default(), Arc::default());
        let recorder = Self {
            address,
            ended: Arc::clone(&ended),
            heads: Arc::clone(&heads),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let heads = Arc::clone(&heads);
                // A connection that cannot be passed on is closed, which its client reports.
                std::thread::spawn(move || pass_on(client, to, &heads));
            }
        });
        Ok(recorder)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the heads of requests, in lower case, that contain `text`.
    pub fn heads_with(&self, text: &str) -> Vec<String> {
        let heads = self.heads.lock().expect("the lock is not poisoned");
        let found = heads.iter().filter(|head| head.contains(text));
        found.cloned().collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener, which then ends.
        drop(TcpStream::connect(self.address));
    }
}

fn pass_on(client: TcpStream, to: SocketAddr, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let server = TcpStream::connect(to)?;
    let (mut from, mut back) = (server.try_clone()?, client.try_clone()?);
    let answers = std::thread::spawn(move || {
        // The first close ends both directions, so the server sees that a client stopped reading.
        drop(copy(&mut from, &mut back));
        drop(back.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    });
    drop(requests(&client, &server, heads));
    drop(server.shutdown(Shutdown::Both));
    drop(answers.join());
    Ok(())
}

fn requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut piece, mut text) = (vec![0; 64 << 10], String::new());
    loop {
        let length = client.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        text.push_str(&String::from_utf8_lossy(&piece[..length]).to_lowercase());
        while let Some(end) = text.find("\r\n\r\n") {
            let rest = text.split_off(end + 4);
            let head = std::mem::replace(&mut text, rest);
            heads.lock().expect("the lock is not poisoned").push(head);
        }
        server.write_all(&piece[..length])?;
    }
}
