//! nginx with sendfile, serving files that have the paths of a registry.
//!
//! Owns: its configuration: Debian's defaults, no log, connections that are not closed after 1,000 requests.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tonnage_benches::process::{Process, free_address};

use crate::tls::Certificate;

/// Finds nginx, or says what to do.
pub fn find() -> Result<PathBuf, String> {
    let known = [
        "/usr/sbin/nginx",
        "/usr/local/sbin/nginx",
        "/usr/local/nginx/sbin/nginx",
    ];
    let found = known
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    found.ok_or_else(|| "there is no nginx; apt-get install nginx".into())
}

/// Returns the version that it reports.
pub fn version() -> String {
    let output = find()
        .ok()
        .and_then(|path| Command::new(path).arg("-v").output().ok());
    output.map_or("not found".into(), |out| {
        String::from_utf8_lossy(&out.stderr)
            .trim()
            .replace("nginx version: ", "")
    })
}

/// Starts nginx on the files in `www`, over TLS if there is a certificate.
pub fn start(
    folder: &Path,
    www: &Path,
    tls: Option<&Certificate>,
) -> Result<(SocketAddr, Process), String> {
    let (program, address) = (find()?, free_address()?);
    let absolute = |path: &Path| {
        let path = path
            .canonicalize()
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(path.display().to_string())
    };
    let (here, www) = (absolute(folder)?, absolute(www)?);
    let secure = match tls {
        None => String::new(),
        Some(of) => format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
            absolute(&of.certificate)?,
            absolute(&of.key)?
        ),
    };
    let listen = if tls.is_some() { " ssl http2" } else { "" };
    let config = format!(
        "daemon off;\nworker_processes auto;\nuser root;\npid {here}/nginx.pid;\nerror_log {here}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;\n  \
         default_type application/octet-stream;\n  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n  \
         fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n  \
         server {{ listen {address}{listen}; root {www}; {secure} }}\n}}\n"
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config).map_err(|e| format!("write {}: {e}", path.display()))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(absolute(&path)?).arg("-p").arg(&here);
    let mut process = Process::start("nginx", command, &folder.join("nginx.out"))?;
    process.wait_until(|| std::net::TcpStream::connect(address).is_ok())?;
    Ok((address, process))
}
