//! A bare hyper server: the least that an answer of a server on hyper costs.
//!
//! Owns: answers with the bytes of a file, which is read once and stays in memory.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

type Files = Arc<RwLock<HashMap<String, Bytes>>>;

/// Serves until the process is killed, with one worker for each core, as `tonnage` does.
pub fn serve(address: SocketAddr, www: PathBuf) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|e| format!("listen on {address}: {e}"))?;
        let (files, www) = (Files::default(), Arc::<Path>::from(www));
        loop {
            let (stream, _) = listener
                .accept()
                .await
                .map_err(|e| format!("accept: {e}"))?;
            stream
                .set_nodelay(true)
                .map_err(|e| format!("set TCP_NODELAY: {e}"))?;
            let (files, www) = (Arc::clone(&files), Arc::clone(&www));
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &files, &www);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A connection that fails fails its client, which reports it.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

fn answer(path: &str, files: &Files, www: &Path) -> Response<Full<Bytes>> {
    let known = files.read().ok().and_then(|files| files.get(path).cloned());
    let bytes = known.or_else(|| {
        let bytes = Bytes::from(std::fs::read(www.join(path.trim_start_matches('/'))).ok()?);
        files.write().ok()?.insert(path.to_owned(), bytes.clone());
        Some(bytes)
    });
    let found = bytes.is_some();
    let mut answer = Response::new(Full::new(bytes.unwrap_or_default()));
    if !found {
        *answer.status_mut() = hyper::StatusCode::NOT_FOUND;
    }
    answer
}
