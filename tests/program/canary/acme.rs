//! Secrets in the files of an authority that speaks ACME.
//!
//! Owns: that part of the positions of `canary`.

use std::fs;

use tonnage_server::tls::AcmeOptions;

use super::watch::{CANARY, Server, Watch};

impl Watch {
    /// Starts the server with broken files of an authority that speaks ACME, which stop no start.
    pub(super) fn fetch_with_broken_files(&mut self, authority: &str) {
        let pem = format!("-----BEGIN CERTIFICATE-----\n{CANARY}==\n-----END CERTIFICATE-----\n");
        let broken_pem = self.file("broken-authority.pem", &pem);
        let data = self.at("acme");
        let options = AcmeOptions {
            directory: data.join("tls/acme"),
            names: vec!["localhost".to_owned()],
            // Nothing listens there.
            url: "https://127.0.0.1:1/".to_owned(),
            authorities: None,
            contact: None,
        };
        let certificate = options.certificate_path();
        let account = certificate.with_file_name("account.json");
        for (authority, expected) in [
            (broken_pem.as_str(), "broken-authority.pem"),
            (authority, "account.json"),
        ] {
            let names = ["--acme", "localhost", "--tls-acme-directory", &options.url];
            let authority = ["--tls-acme-ca", authority];
            let mut server = Server::start(&data, &[&names[..], &authority].concat());
            let failed = server.until("no certificate could be fetched");
            assert!(failed.contains(expected), "{failed}");
            self.saw("log", server.end());
            // For the next start: a directory that is no store must not get files.
            fs::create_dir_all(certificate.parent().unwrap()).unwrap();
            fs::write(&certificate, format!("{pem}{CANARY}")).unwrap();
            fs::write(&account, format!("\"{CANARY}\"")).unwrap();
        }
    }
}
