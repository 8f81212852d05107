//! distribution, and Debian's `docker-registry`, which is its version 2.8.
//!
//! Both write and sync each blob; version 2.8 does not sync directories, and has no option for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tls::Certificate;

const MODULE: &str = "github.com/distribution/distribution/v3/cmd/registry";

/// Builds the version that `benches/peers/go.mod` pins.
pub fn build() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = folder.join("../target/peers/registry");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&program).arg(MODULE);
    match command.current_dir(folder.join("peers")).status() {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("go build of {MODULE} ended with {status}")),
        Err(e) => Err(format!(
            "run go: {e}; install Go, or name a program by distribution=PATH"
        )),
    }
}

pub fn config(data: &Path, address: SocketAddr, tls: Option<&Certificate>) -> String {
    let data = data.display();
    let tls = tls.map_or(String::new(), |tls| {
        let (certificate, key) = (tls.certificate.display(), tls.key.display());
        format!(", tls: {{certificate: {certificate}, key: {key}}}")
    });
    format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {data}}}\n  \
         delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"{tls}}}\n"
    )
}
