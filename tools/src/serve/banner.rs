//! The first lines of `serve`: addresses, state and the next commands.
//!
//! Owns: both forms, text for users and one log event for programs.
//! Refuses: standard output, because none of this is a result.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tonnage_engine::OpenReport;

use crate::output::note;

/// The facts about a server that is ready.
#[derive(Debug)]
pub(super) struct Started<'a> {
    pub(super) data: &'a Path,
    pub(super) address: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) backend: &'a str,
    pub(super) asked: &'a str,
    pub(super) report: &'a OpenReport,
}

impl Started<'_> {
    /// Prints the facts as text.
    pub(super) fn print(&self) {
        let (address, reach) = (self.address, reachable(self.address));
        note(&format!("tonnage {}", env!("CARGO_PKG_VERSION")));
        note(&format!("  data      {}", self.data.display()));
        note(&format!("  registry  http://{address}"));
        match self.admin {
            Some(admin) => note(&format!(
                "  admin     http://{admin} (/metrics /healthz /readyz)"
            )),
            None => note("  admin     off"),
        }
        note(&format!("  io        {} ({})", self.backend, self.why()));
        note(&format!(
            "  recovery  {:.1?}: {}",
            self.report.took,
            self.found()
        ));
        note(&format!(
            "  access    anyone who reaches {address} may push, pull and delete"
        ));
        note("next:");
        note(&format!("  tonnage smoke http://{reach}"));
        note(&format!(
            "  skopeo copy --dest-tls-verify=false docker://docker.io/library/alpine docker://{reach}/alpine:latest"
        ));
        note(&format!(
            "  podman pull --tls-verify=false {reach}/alpine:latest"
        ));
    }

    /// Logs the facts as one event.
    pub(super) fn log(&self) {
        tracing::info!(
            data = %self.data.display(),
            registry = %self.address,
            admin = self.admin.map(|admin| admin.to_string()),
            io = self.backend,
            io_why = self.why(),
            recovery_ms = u64::try_from(self.report.took.as_millis()).unwrap_or(u64::MAX),
            recovery = self.found(),
            access = "anonymous",
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
    }

    /// Logs warnings about problems that recovery found.
    pub(super) fn warn(&self) {
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
        match self.asked {
            "auto" => "auto: the only backend of this version".to_owned(),
            asked => format!("configured: {asked}"),
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
