//! zot. With `commit`, it syncs what it writes; its default does not.

use std::net::SocketAddr;
use std::path::Path;

use crate::tls::Certificate;

pub fn config(data: &Path, address: SocketAddr, tls: Option<&Certificate>) -> String {
    let mut http = serde_json::json!({"address": address.ip().to_string(), "port": address.port().to_string()});
    if let Some(tls) = tls {
        http["tls"] = serde_json::json!({"cert": tls.certificate, "key": tls.key});
    }
    serde_json::json!({
        "distSpecVersion": "1.1.0",
        "storage": {"rootDirectory": data, "commit": true},
        "http": http,
        "log": {"level": "error"},
    })
    .to_string()
}
