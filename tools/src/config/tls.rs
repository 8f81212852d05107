//! The options of TLS.
//!
//! Owns: [`TlsConfig`], its rules, and how it becomes the server's. Refuses: reading certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tonnage_server::tls::{
    AcmeOptions, AlpnPreference, ClientCertificates, LETS_ENCRYPT, NameKind, OwnAuthority,
    TlsOptions, TlsSource,
};
use tonnage_server::{Host, Hostname, ServerOptions};

use crate::config::reader::Reader;

/// How connections are encrypted.
#[derive(Debug)]
pub(crate) struct TlsConfig {
    /// `auto`, `off`, `self`, `files` or `acme`; `auto` is what the other options are for, else `off`.
    pub(super) mode: &'static str,
    /// Chain of certificates.
    pub(super) cert: Option<PathBuf>,
    /// Private key.
    pub(super) key: Option<PathBuf>,
    /// Hosts for which a certificate is fetched.
    pub(super) acme: Vec<Host>,
    /// Where it is fetched.
    pub(super) acme_directory: String,
    /// Authorities to trust there.
    pub(super) acme_ca: Option<PathBuf>,
    /// Address of the operator.
    pub(super) acme_contact: Option<String>,
    /// `http2` or `http1`.
    pub(super) prefer: &'static str,
    /// Authorities of client certificates.
    pub(crate) client_ca: Option<PathBuf>,
    /// Which names in them count.
    pub(super) client_names: Vec<NameKind>,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            mode: "auto",
            cert: None,
            key: None,
            acme: Vec::new(),
            acme_directory: LETS_ENCRYPT.to_owned(),
            acme_ca: None,
            acme_contact: None,
            prefer: "http2",
            client_ca: None,
            client_names: NameKind::ALL.map(|(_, kind)| kind).into(),
        }
    }
}

impl TlsConfig {
    /// Reports broken rules between the options.
    pub(super) fn check(&self, reader: &mut Reader) {
        let files = self.cert.is_some() || self.key.is_some();
        if self.mode == "files" && !files {
            reader.reject("tls.mode", "set tls.cert and tls.key, too");
        }
        if ["off", "self"].contains(&self.mode) && files {
            let key = if self.cert.is_some() {
                "tls.cert"
            } else {
                "tls.key"
            };
            let what = format!("tls.mode is {}; remove one of the two", self.mode);
            reader.reject(key, &what);
        } else if files && self.cert.is_none() {
            reader.reject("tls.key", "set tls.cert, too");
        } else if files && self.key.is_none() {
            reader.reject("tls.cert", "set tls.key, too");
        }
        self.check_acme(reader);
        if self.client_ca.is_none() && self.client_names != Self::default().client_names {
            reader.reject("tls.client_names", "it has no effect without tls.client_ca");
        }
    }

    fn check_acme(&self, reader: &mut Reader) {
        if self.mode == "acme" && self.acme.is_empty() {
            reader.reject("tls.mode", "set tls.acme, too");
        }
        let files = self.cert.is_some() || self.key.is_some();
        if !self.acme.is_empty() && ["off", "self", "files"].contains(&self.mode) {
            let what = format!("tls.mode is {}; remove one of the two", self.mode);
            reader.reject("tls.acme", &what);
        } else if !self.acme.is_empty() && files {
            let what = "tls.cert and tls.key name another certificate; remove one of the two";
            reader.reject("tls.acme", what);
        }
        for (key, is_set) in [
            ("tls.acme_directory", self.acme_directory != LETS_ENCRYPT),
            ("tls.acme_ca", self.acme_ca.is_some()),
            ("tls.acme_contact", self.acme_contact.is_some()),
        ] {
            if self.acme.is_empty() && is_set {
                reader.reject(key, "it has no effect without tls.acme");
            }
        }
    }

    /// Returns where the certificate comes from, for a server with its data in `data`; `None` without TLS.
    pub(crate) fn source(&self, data: &Path, server: &ServerOptions) -> Option<TlsSource> {
        if ["auto", "files"].contains(&self.mode)
            && let (Some(certificate), Some(key)) = (self.cert.clone(), self.key.clone())
        {
            return Some(TlsSource::Files { certificate, key });
        }
        if ["auto", "acme"].contains(&self.mode) && !self.acme.is_empty() {
            return Some(TlsSource::Acme(AcmeOptions {
                directory: data.join("tls/acme"),
                names: self.acme.iter().map(text).collect(),
                url: self.acme_directory.clone(),
                authorities: self.acme_ca.clone(),
                contact: self.acme_contact.clone(),
            }));
        }
        (self.mode == "self").then(|| {
            TlsSource::Own(OwnAuthority {
                directory: data.join("tls"),
                hosts: hosts(server),
            })
        })
    }

    /// Returns whether connections are encrypted.
    pub(super) fn is_on(&self) -> bool {
        match self.mode {
            "auto" => self.cert.is_some() || !self.acme.is_empty(),
            mode => mode != "off",
        }
    }

    /// Lets clients reach a server under the hosts of its certificate, if only some hosts are accepted.
    pub(crate) fn add_hostnames(&self, server: &mut ServerOptions) {
        let only_loopback = server.listen.ip().to_canonical().is_loopback();
        if only_loopback || !server.hostnames.is_empty() {
            let hosts = self.acme.iter().cloned();
            server.hostnames.extend(hosts.map(Hostname::Only));
        }
    }

    /// Returns how connections are encrypted, beside the certificate.
    pub(crate) fn options(&self) -> TlsOptions {
        TlsOptions {
            preference: match self.prefer {
                "http1" => AlpnPreference::Http1,
                _ => AlpnPreference::Http2,
            },
            clients: self
                .client_ca
                .clone()
                .map(|authorities| ClientCertificates {
                    authorities,
                    names: self.client_names.clone(),
                }),
        }
    }
}

/// Returns the names and addresses for which a certificate is made: those that are configured, or this machine's name;
/// the address that is listened on; and loopback's.
fn hosts(server: &ServerOptions) -> Vec<String> {
    let configured = server.hostnames.iter().filter_map(|host| match host {
        Hostname::Any => None,
        Hostname::Only(host) => Some(text(host)),
    });
    let mut hosts: Vec<_> = configured.collect();
    let listen = server.listen.ip().to_canonical();
    if hosts.is_empty() && !listen.is_loopback() {
        hosts.extend(machine_name());
    }
    if !listen.is_unspecified() {
        hosts.push(listen.to_string());
    }
    let loopback = [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    hosts.push("localhost".to_owned());
    hosts.extend(loopback.map(|address| address.to_string()));
    let mut seen = Vec::new();
    hosts.retain(|host| {
        !seen.contains(host) && {
            seen.push(host.clone());
            true
        }
    });
    hosts
}

fn text(host: &Host) -> String {
    match host {
        Host::Name(name) => name.to_string(),
        Host::Address(address) => address.to_string(),
    }
}

/// Returns the name of this machine, if it can be part of an address.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    match name.trim().parse() {
        Ok(Host::Name(name)) => Some(name.to_string()),
        Ok(Host::Address(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a certificate is for what clients use: configured hosts first, the address that is listened on, and
    /// loopback, each once.
    #[test]
    fn certificates_are_for_what_clients_use() {
        let options = |listen: &str, hostnames: &[&str]| ServerOptions {
            listen: listen.parse().unwrap(),
            hostnames: hostnames.iter().map(|host| host.parse().unwrap()).collect(),
            ..ServerOptions::default()
        };
        let loopback = ["localhost", "127.0.0.1", "::1"];
        assert_eq!(
            hosts(&options(
                "10.0.0.7:5000",
                &["Registry.example", "*", "10.0.0.7"]
            )),
            [&["registry.example", "10.0.0.7"][..], &loopback].concat()
        );
        let local = hosts(&options("127.0.0.1:5000", &[]));
        assert_eq!(local, ["127.0.0.1", "localhost", "::1"]);
        let any = hosts(&options("0.0.0.0:5000", &["a"]));
        assert_eq!(any, [&["a"][..], &loopback].concat());
    }
}
