//! containerd with a registry that has TLS and access control: the authority is in `hosts.toml`, and the password goes
//! to the token service.

use std::fs;
use std::path::Path;

use crate::checks::write;
use crate::containerd::{Daemon, start};
use crate::login::Guarded;
use crate::program::Client;

impl Guarded {
    /// Pushes an image that was imported, and pulls it into another store.
    pub fn containerd(&self) -> Result<(), String> {
        let image = self.image(Client::Ctr);
        let archive = self.path("image.tar");
        let tar = self.lane.programs.other("tar").args(["--create", "--file"]);
        let tar = tar.arg(&archive).arg("--directory");
        tar.args([&self.path("source"), "."]).run()?;
        let trusting = self.hosts("hosts", Some(&self.path("certs/ca.crt")), false)?;
        let other = self.hosts("hosts-without", None, false)?;
        // A socket's path may have 108 bytes, so its folder is not below the sources.
        let folder = tempfile::tempdir().map_err(|e| format!("create a folder: {e}"))?;

        let daemon = start(&self.lane, folder.path(), "pushing", 0)?;
        let base = image.trim_end_matches(":v1");
        let import = ["images", "import", "--no-unpack", "--base-name", base];
        self.ctr(&daemon, "import", &[&import[..], &[&archive]].concat())?;
        let push = |hosts: &str, password: &str| {
            let (user, image) = (format!("{}:{password}", self.way.user), image.clone());
            let hosts = hosts.to_owned();
            [
                "images",
                "push",
                "--hosts-dir",
                &hosts,
                "--user",
                &user,
                &image,
            ]
            .map(str::to_owned)
        };
        self.ctr_refuses(
            &daemon,
            "push by TLS without the authority",
            &push(&other, &self.way.secret),
        )?;
        self.ctr_refuses(
            &daemon,
            "push by TLS with a wrong password",
            &push(&trusting, "wrong"),
        )?;
        let good = push(&trusting, &self.way.secret);
        let good = good.each_ref().map(String::as_str);
        self.ctr(&daemon, &self.with_way("push by TLS"), &good)?;
        drop(daemon);

        let daemon = start(&self.lane, folder.path(), "pulling", 0)?;
        let pull = ["images", "pull", "--snapshotter=native", "--hosts-dir"];
        let credentials = format!("{}:{}", self.way.user, self.way.secret);
        let user = ["--user", &credentials];
        let user = if self.is_first() { &[][..] } else { &user };
        let pull = [&pull[..], &[&trusting], user, &[&image]].concat();
        self.ctr(&daemon, &self.pull_name(), &pull)
    }

    /// Writes a folder of hosts for this registry.
    pub fn hosts(
        &self,
        name: &str,
        authority: Option<&str>,
        is_certified: bool,
    ) -> Result<String, String> {
        let (folder, place) = (self.path(name), self.place());
        let own = Path::new(&folder).join(&place);
        fs::create_dir_all(&own).map_err(|e| format!("create {}: {e}", own.display()))?;
        let trusted = authority.map_or(String::new(), |path| format!("  ca = \"{path}\"\n"));
        let [certificate, key] =
            ["client.cert", "client.key"].map(|name| self.path(&format!("client/{name}")));
        let shown = if is_certified {
            format!("  client = [[\"{certificate}\", \"{key}\"]]\n")
        } else {
            String::new()
        };
        let text = format!(
            "server = \"https://{place}\"\n[host.\"https://{place}\"]\n  \
             capabilities = [\"pull\", \"resolve\", \"push\"]\n{trusted}{shown}"
        );
        write(&own.join("hosts.toml"), text)?;
        Ok(folder)
    }

    pub fn ctr(&self, daemon: &Daemon, operation: &str, arguments: &[&str]) -> Result<(), String> {
        let run = || daemon.ctr(&self.lane)?.args(arguments).run().map(drop);
        self.lane.step(Client::Ctr, operation, run)
    }

    fn ctr_refuses(
        &self,
        daemon: &Daemon,
        operation: &str,
        arguments: &[String],
    ) -> Result<(), String> {
        if !self.is_first() {
            return Ok(());
        }
        self.lane.step(Client::Ctr, operation, || {
            match daemon.ctr(&self.lane)?.args(arguments).run() {
                Ok(said) => Err(format!("it was accepted: {said}")),
                Err(_) => Ok(()),
            }
        })
    }
}
