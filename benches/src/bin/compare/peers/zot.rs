//! zot. With `commit`, it syncs what it writes; its default does not.

use std::net::SocketAddr;
use std::path::Path;

pub fn config(data: &Path, address: SocketAddr) -> String {
    serde_json::json!({
        "distSpecVersion": "1.1.0",
        "storage": {"rootDirectory": data, "commit": true},
        "http": {"address": address.ip().to_string(), "port": address.port().to_string()},
        "log": {"level": "error"},
    })
    .to_string()
}
