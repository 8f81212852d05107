//! The first lines of `serve`: addresses, state and the next commands.
//!
//! Owns: both forms, text for users and one log event for programs.
//! Refuses: standard output, because none of this is a result.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tonnage_engine::OpenReport;
use tonnage_engine::io::uring::Unavailable;
use tonnage_server::tls::{AcmeOptions, OwnAuthority, TlsSource};

use super::access::Access;
use super::trust;
use crate::output::note;

/// The facts about a server that is ready.
#[derive(Debug)]
pub(super) struct Started<'a> {
    pub(super) data: &'a Path,
    pub(super) address: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) backend: &'a str,
    pub(super) configured: &'a str,
    /// Why `io_uring` does not run although it might.
    pub(super) why_not_io_uring: Option<&'a Unavailable>,
    pub(super) report: &'a OpenReport,
    pub(super) tls: Option<&'a TlsSource>,
    /// Whether connections to `admin` are encrypted, too.
    pub(super) admin_tls: bool,
    pub(super) access: Option<&'a Access>,
    /// Whether the address that clients use is configured.
    pub(super) has_own_address: bool,
}

impl Started<'_> {
    /// Prints the facts as text.
    pub(super) fn print(&self) {
        let address = self.address;
        note(&format!("tonnage {}", env!("CARGO_PKG_VERSION")));
        note(&format!("  data      {}", self.data.display()));
        note(&format!("  registry  {}://{address}", self.scheme()));
        match self.admin {
            Some(admin) => {
                let scheme = if self.admin_tls {
                    self.scheme()
                } else {
                    "http"
                };
                note(&format!(
                    "  admin     {scheme}://{admin} (/metrics /healthz /readyz)"
                ));
            }
            None => note("  admin     off"),
        }
        note(&format!("  io        {} ({})", self.backend, self.why()));
        note(&format!(
            "  recovery  {:.1?}: {}",
            self.report.took,
            self.found()
        ));
        if self.access.is_some() {
            note("  access    users, by access rules");
            if self.passwords_are_readable() {
                note(
                    "            without TLS, others on the network can read passwords; see --tls",
                );
            }
            self.print_first_admin();
        } else {
            note(&format!(
                "  access    anyone who reaches {address} may push, pull and delete"
            ));
        }
        match self.tls {
            Some(TlsSource::Own(own)) => self.print_authority(own),
            Some(TlsSource::Acme(acme)) => self.print_acme(acme),
            Some(TlsSource::Files { certificate, .. }) => {
                note(&format!("  tls       {}", certificate.display()));
                self.print_next(&reachable(address).to_string(), "");
            }
            None => self.print_next(&reachable(address).to_string(), "=false"),
        }
    }

    /// Prints the password of the first admin, which no log gets.
    pub(super) fn print_first_admin(&self) {
        if let Some((name, password)) = self.access.and_then(|access| access.first_admin.as_ref()) {
            note(&format!(
                "            there was no user: log in as {name} with the password {}",
                password.0
            ));
            note(&format!(
                "            it is not shown again; to change it: tonnage user set-password {name} --data {}",
                self.data.display()
            ));
        }
    }

    /// Returns whether clients on other machines send passwords without encryption.
    fn passwords_are_readable(&self) -> bool {
        let reachable = !self.address.ip().to_canonical().is_loopback();
        reachable && self.access.is_some() && self.tls.is_none()
    }

    fn print_authority(&self, own: &OwnAuthority) {
        let (path, hosts) = (own.authority_path(), own.hosts.join(", "));
        note(&format!("  tls       for {hosts}"));
        note(&format!("  authority {}", path.display()));
        if let Ok(fingerprint) = own.fingerprint() {
            note(&format!("            SHA-256 {fingerprint}"));
        }
        let port = self.address.port();
        for line in trust::commands(own, port) {
            note(&line);
        }
        self.print_next(&trust::place_of(own, port), "");
    }

    fn print_acme(&self, acme: &AcmeOptions) {
        let (names, address) = (acme.names.join(", "), self.address);
        note(&format!("  tls       for {names}, from {}", acme.url));
        note(&format!(
            "            its authority connects to port 443 of each name, which must lead to {address}"
        ));
        if !acme.certificate_path().exists() {
            note(
                "            clients reject the certificate until the first one arrives; see the log",
            );
        }
        let name = acme.names.first().map_or("localhost", String::as_str);
        self.print_next(&trust::place(name, self.address.port()), "");
    }

    /// Prints commands to try next. `verify` is what clients have to be told about the verification of certificates.
    fn print_next(&self, at: &str, verify: &str) {
        let scheme = self.scheme();
        let ca = match self.tls {
            Some(TlsSource::Own(own)) => format!(" --ca {}", own.authority_path().display()),
            Some(TlsSource::Files { .. } | TlsSource::Acme(_)) | None => String::new(),
        };
        let flag = |name: &str| match verify {
            "" => String::new(),
            verify => format!("--{name}tls-verify{verify} "),
        };
        note("next:");
        let here = match self.tls {
            // The certificate is not for the address that is listened on.
            Some(TlsSource::Acme(_)) => at.to_owned(),
            Some(TlsSource::Files { .. } | TlsSource::Own(_)) | None => {
                reachable(self.address).to_string()
            }
        };
        let user = match self.access {
            Some(_) => " --username NAME",
            None => "",
        };
        note(&format!("  tonnage smoke {scheme}://{here}{ca}{user}"));
        if self.access.is_some() {
            note(&format!("  podman login {}{at}", flag("")));
        }
        note(&format!(
            "  skopeo copy {}docker://docker.io/library/alpine docker://{at}/alpine:latest",
            flag("dest-")
        ));
        note(&format!("  podman pull {}{at}/alpine:latest", flag("")));
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Logs the facts as one event.
    pub(super) fn log(&self) {
        tracing::info!(
            data = %self.data.display(),
            registry = %self.address,
            tls = self.tls.is_some(),
            authority = self.authority(),
            admin = self.admin.map(|admin| admin.to_string()),
            io = self.backend,
            io_why = self.why(),
            recovery_ms = u64::try_from(self.report.took.as_millis()).unwrap_or(u64::MAX),
            recovery = self.found(),
            access = if self.access.is_some() { "users" } else { "anonymous" },
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
    }

    /// Returns the path and the fingerprint of the own authority.
    fn authority(&self) -> Option<String> {
        let Some(TlsSource::Own(own)) = self.tls else {
            return None;
        };
        let (path, fingerprint) = (own.authority_path(), own.fingerprint().ok()?);
        Some(format!("{} SHA-256 {fingerprint}", path.display()))
    }

    /// Logs warnings about problems that recovery found.
    pub(super) fn warn(&self) {
        if self.passwords_are_readable() {
            tracing::warn!("without TLS, others on the network can read passwords");
        }
        if self.access.is_some() && self.tls.is_none() && !self.has_own_address {
            tracing::warn!(
                "clients are sent to http:// for a token; if a proxy adds TLS, set locations to the address that they use, such as https://registry.example"
            );
        }
        for why in &self.report.checkpoints_unusable {
            tracing::warn!(
                why,
                "a checkpoint could not be used; the journal was replayed instead"
            );
        }
        for what in &self.report.journal_unsound {
            tracing::error!(
                %what,
                "the journal is damaged, so the checkpoint is the only copy of its changes; keep runs/ and checkpoint.*, and restore the file"
            );
        }
        for copy in &self.report.superblock_copies_damaged {
            tracing::warn!(
                copy,
                "a copy of the superblock was damaged and has been rewritten from the others; the drive may be failing"
            );
        }
        if self.report.blobs_damaged > 0 {
            tracing::error!(
                blobs = self.report.blobs_damaged,
                "blobs were found damaged earlier; they are reported as missing until they are pushed again, or read and found intact"
            );
        }
        for segment in &self.report.segments_missing {
            tracing::error!(
                %segment,
                "a segment that the index names is missing; its blobs cannot be pulled until they are pushed again, or the file is restored and the server restarted"
            );
        }
        for segment in &self.report.segments_truncated {
            tracing::error!(
                %segment,
                "a segment is truncated; blobs in the missing part cannot be pulled until they are pushed again, or the file is restored and the server restarted"
            );
        }
    }

    fn why(&self) -> String {
        match (self.configured, self.why_not_io_uring) {
            ("auto", Some(why)) => format!("auto: {why}; {}", why.hint()),
            ("auto", None) => "auto: for what it does faster; threads for the rest".to_owned(),
            (configured, _) => format!("configured: {configured}"),
        }
    }

    fn found(&self) -> String {
        let report = self.report;
        if report.created {
            return "new store created".to_owned();
        }
        let mut words = vec![
            if report.clean {
                "closed cleanly"
            } else {
                "not closed cleanly"
            }
            .to_owned(),
        ];
        words.push(match report.checkpoint {
            Some(lsn) => format!("checkpoint at LSN {lsn}"),
            None => "no checkpoint".to_owned(),
        });
        words.push(format!("{} transactions replayed", report.replayed));
        for (count, what) in [
            (report.uploads_resumed, "unfinished uploads can be resumed"),
            (
                report.orphans_removed,
                "orphaned files of the crash removed",
            ),
        ] {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        }
        words.join(", ")
    }
}

/// Returns the address for a client on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let here: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    if address.ip().is_unspecified() {
        SocketAddr::new(here, address.port())
    } else {
        address
    }
}
