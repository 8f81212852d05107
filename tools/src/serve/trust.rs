//! How clients come to trust the registry's own authority.
//!
//! Owns: the commands for each client. Refuses: running them; they change other programs' configuration.

use std::net::IpAddr;

use tonnage_server::tls::OwnAuthority;

/// Returns the commands that let clients trust the authority, for a registry at `port`.
pub(super) fn commands(own: &OwnAuthority, port: u16) -> Vec<String> {
    let (ca, at) = (own.authority_path(), place_of(own, port));
    let ca = ca.display();
    vec![
        format!("to trust it, on every machine that pulls or pushes, with a copy of {ca}:"),
        format!("  docker      sudo install -D -m 644 {ca} /etc/docker/certs.d/{at}/ca.crt"),
        format!(
            "  podman      sudo install -D -m 644 {ca} /etc/containers/certs.d/{at}/ca.crt   # skopeo and buildah, too"
        ),
        format!(
            "  containerd  sudo install -D -m 644 {ca} /etc/containerd/certs.d/{at}/ca.crt && printf 'server = \"https://{at}\"\\nca = \"/etc/containerd/certs.d/{at}/ca.crt\"\\n' | sudo tee /etc/containerd/certs.d/{at}/hosts.toml"
        ),
        "  Kubernetes  the command for containerd, on every node; config_path = \"/etc/containerd/certs.d\" in /etc/containerd/config.toml".to_owned(),
    ]
}

/// Returns the host and port of a registry with an own authority as clients write them.
pub(super) fn place_of(own: &OwnAuthority, port: u16) -> String {
    place(own.hosts.first().map_or("localhost", String::as_str), port)
}

/// Returns a host and a port as clients write them.
pub(super) fn place(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}"),
    }
}
