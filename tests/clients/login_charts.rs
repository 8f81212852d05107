//! helm with a registry that has TLS and access control.

use std::fs;

use crate::call::Call;
use crate::checks::write;
use crate::layout::same_files;
use crate::login::Guarded;
use crate::program::Client;

impl Guarded {
    /// Logs in, pushes a chart and pulls it back.
    pub fn helm(&self) -> Result<(), String> {
        let (authority, place) = (self.path("certs/ca.crt"), self.place());
        let folder = self.folder.path();
        fs::create_dir_all(folder.join("ship")).map_err(|e| format!("create a chart: {e}"))?;
        let about = "apiVersion: v2\nname: ship\nversion: 1.0.0\n";
        write(&folder.join("ship/Chart.yaml"), about)?;
        self.run(Client::Helm, "package", |call| {
            call.folder(folder).args(["package", "ship"])
        })?;
        let log_in = |call: Call, password: &str| {
            let call = call.args(["registry", "login", &place, "--ca-file", &authority]);
            call.args(["-u", &self.way.user, "-p", password])
        };
        self.refuses(
            Client::Helm,
            "log in by TLS with a wrong password",
            |call| log_in(call, "wrong"),
        )?;
        self.run(Client::Helm, &self.with_way("log in by TLS"), |call| {
            log_in(call, &self.way.secret)
        })?;
        let base = format!("oci://{place}/{}/helm", self.repository());
        let push = |call: Call| {
            let call = call.folder(folder).arg("push");
            call.args(["ship-1.0.0.tgz", &base])
        };
        self.refuses(Client::Helm, "push by TLS without the authority", push)?;
        self.run(Client::Helm, &self.with_way("push by TLS"), |call| {
            push(call).args(["--ca-file", &authority])
        })?;
        let log_out = || {
            self.run(Client::Helm, "log out", |call| {
                call.args(["registry", "logout", &place])
            })
        };
        if self.is_first() {
            log_out()?;
        }
        self.refuses(Client::Helm, "push by TLS without a login", |call| {
            push(call).args(["--ca-file", &authority])
        })?;
        let (chart, out) = (format!("{base}/ship"), folder.join("helm-out"));
        fs::create_dir_all(&out).map_err(|e| format!("create: {e}"))?;
        self.run(Client::Helm, &self.pull_name(), |call| {
            let call = call.args(["pull", &chart, "--version", "1.0.0"]);
            let call = call.args(["--ca-file", &authority, "--destination"]);
            call.arg(&out)
        })?;
        if !self.is_first() {
            log_out()?;
        }
        same_files(&folder.join("ship-1.0.0.tgz"), &out.join("ship-1.0.0.tgz")).map(drop)
    }
}
