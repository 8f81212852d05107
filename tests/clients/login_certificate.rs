//! Clients that show a certificate in place of a password.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::call::Call;
use crate::checks::write;
use crate::containerd::start;
use crate::login::{CERTIFIED, Guarded};
use crate::program::Client;

/// Writes an authority of clients, and certificate and key of one client, into the folder `certs`.
pub fn make(guarded_folder: &std::path::Path) -> Result<(), String> {
    let failed = |error: rcgen::Error| format!("make a certificate: {error}");
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().map_err(failed)?;
    let authority = params.self_signed(&key).map_err(failed)?.pem();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec![CERTIFIED.to_owned()]).map_err(failed)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?.pem();
    let folder = guarded_folder.join("client");
    fs::create_dir_all(&folder).map_err(|e| format!("create: {e}"))?;
    write(&folder.join("clients.pem"), authority)?;
    write(&folder.join("client.cert"), certificate)?;
    write(&folder.join("client.key"), key.serialize_pem())
}

impl Guarded {
    /// Pushes and pulls with a certificate, and without one.
    pub fn by_certificate(&self) -> Result<(), String> {
        let (test, operation) = (
            "login by certificate",
            "pull by TLS with a client certificate",
        );
        if !self.lane.has(Client::Skopeo, test)? {
            return Ok(());
        }
        let (certs, with) = (self.path("certs"), self.path("client"));
        let authority = self.path("client/ca.crt");
        fs::copy(self.path("certs/ca.crt"), &authority).map_err(|e| format!("copy: {e}"))?;
        let name = format!("{}/closed/certified:v1", self.place());
        let (image, source) = (
            format!("docker://{name}"),
            format!("oci:{}:v1", self.path("source")),
        );
        let push = |call: Call, certs: &str| {
            let call = call.args(["copy", "--dest-no-creds", "--dest-cert-dir", certs]);
            call.args([&source, &image])
        };
        self.refuses(
            Client::Skopeo,
            "push by TLS without a certificate",
            |call| push(call, &certs),
        )?;
        self.run(
            Client::Skopeo,
            "push by TLS with a client certificate",
            |call| push(call, &with),
        )?;
        if self.lane.has(Client::Podman, test)? {
            let policy = self.lane.programs.policy().display().to_string();
            self.run(Client::Podman, operation, |call| {
                let call = call.args(["pull", "--signature-policy", &policy]);
                call.args(["--cert-dir", &with, &name])
            })?;
        }
        if self.lane.has(Client::Oras, test)? {
            let (certificate, key) = (
                self.path("client/client.cert"),
                self.path("client/client.key"),
            );
            self.run(Client::Oras, operation, |call| {
                let call = call.args(["manifest", "fetch", "--ca-file", &authority]);
                call.args(["--cert-file", &certificate, "--key-file", &key, &name])
            })?;
        }
        if self.lane.has(Client::Ctr, test)? {
            let hosts = self.hosts("hosts-certified", Some(&authority), true)?;
            let folder = tempfile::tempdir().map_err(|e| format!("create a folder: {e}"))?;
            let daemon = start(&self.lane, folder.path(), "certified", 0)?;
            let pull = ["images", "pull", "--snapshotter=native", "--hosts-dir"];
            self.ctr(&daemon, operation, &[&pull[..], &[&hosts, &name]].concat())?;
        }
        Ok(())
    }
}
