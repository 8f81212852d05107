//! No secret is shown: a canary is in every position of a secret, and no output of the program has one.
//!
//! Owns: the positions. A secret that is sent in another form, such as Base64, is looked for in that form, too.

mod acme;
mod watch;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use self::watch::{CANARY, Server, Watch, ask};
use crate::serving::{run, tonnage};

/// An issuer of tokens that are passwords.
const ISSUER: &str = "https://issuer.example";

/// Returns a token of the issuer that is not signed by it.
fn workload_token() -> String {
    let claims = format!(r#"{{"iss":"{ISSUER}","aud":"a","sub":"x","exp":4000000000}}"#);
    let parts = [r#"{"alg":"ES256","kid":"k"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{}.{CANARY}", parts.join("."))
}

impl Watch {
    /// Sends requests with secrets in every field that may have one.
    fn send_credentials(&mut self, server: &Server, data: &str) {
        let key = self.api_key(data);
        let mut values = vec![
            format!("Bearer {CANARY}"),
            format!("Bearer {CANARY}.{CANARY}.{CANARY}"),
            format!("bearer \t{CANARY}"),
            format!("Basic {CANARY}"),
            format!("Digest username=\"a\", response=\"{CANARY}\""),
            format!("Negotiate {CANARY}"),
            CANARY.to_owned(),
            format!("{CANARY} {CANARY}"),
            format!("Bearer {}", CANARY.repeat(12_000)),
        ];
        for text in [
            format!("alice:{CANARY}-alice"),
            format!("bob:{CANARY}-htpasswd"),
            format!("alice:{CANARY}-wrong"),
            format!("nobody:{CANARY}"),
            format!("alice:{key}"),
            format!("bob:{key}"),
            format!("alice:{key}x"),
            format!("oidc:{}", workload_token()),
            format!("{CANARY}-without-a-name"),
        ] {
            let encoded = STANDARD.encode(text);
            values.push(format!("Basic {encoded}"));
            self.secrets.push(encoded);
        }
        let [token, refresh] = self.tokens(server);
        let (signed, _) = token.rsplit_once('.').unwrap();
        values.extend([
            format!("Bearer {token}"),
            format!("Bearer {signed}.{CANARY}"),
            format!("Bearer {refresh}"),
        ]);
        for refresh in [&refresh, &format!("{refresh}x")] {
            let form = format!("grant_type=refresh_token&refresh_token={refresh}");
            self.answered(ask(&server.registry, "POST /token", &[], &form));
        }
        for value in values {
            let fields = [format!("Authorization: {value}")];
            for line in [
                "GET /v2/",
                "GET /token?service=tonnage&scope=repository:a:pull",
                "POST /v2/a/blobs/uploads/",
                "GET /nowhere",
            ] {
                self.answered(ask(&server.registry, line, &fields, ""));
            }
        }
        let base = &server.registry;
        for (line, field) in [
            ("GET /v2/".to_owned(), format!("Host: u:{CANARY}@{base}")),
            ("GET /v2/".to_owned(), format!("Cookie: session={CANARY}")),
            (
                "GET /v2/".to_owned(),
                format!("Proxy-Authorization: Basic {CANARY}"),
            ),
            (
                format!("GET http://u:{CANARY}@{base}/v2/"),
                "X-A: b".to_owned(),
            ),
            (
                format!("GET /v2/?access_token={CANARY}"),
                "X-A: b".to_owned(),
            ),
            (
                format!("GET /v2/a/tags/list?token={CANARY}"),
                "X-A: b".to_owned(),
            ),
            (
                format!(
                    "GET /token?password={CANARY}&refresh_token={CANARY}&client_secret={CANARY}"
                ),
                "X-A: b".to_owned(),
            ),
        ] {
            self.answered(ask(base, &line, &[field], ""));
        }
    }

    /// Gets a token and a refresh token.
    fn tokens(&mut self, server: &Server) -> [String; 2] {
        let form = format!(
            "grant_type=password&username=alice&password={CANARY}-alice&scope=repository:a:push&access_type=offline"
        );
        let answer = ask(&server.registry, "POST /token", &[], &form);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let tokens = ["token", "refresh_token"].map(|name| body[name].as_str().unwrap().to_owned());
        self.answered(answer);
        tokens
    }

    /// Makes an API key, which the command shows once.
    fn api_key(&mut self, data: &str) -> String {
        let (code, key, _) = run(&mut tonnage(&["key", "create", "alice", "--data", data]));
        assert_eq!(code, 0);
        self.secrets.push(key.trim_end().to_owned());
        key.trim_end().to_owned()
    }

    /// Sends forms of the token service with secrets in every field that may have one.
    fn send_forms(&mut self, server: &Server) {
        let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
        for form in [
            format!("grant_type=password&username=alice&password={CANARY}-wrong"),
            format!("grant_type=password&username=alice&password={CANARY}%ZZ&scope=%"),
            format!("grant_type=password&username=alice&password={CANARY}-alice&scope=bad"),
            format!("grant_type=refresh_token&refresh_token={CANARY}&client_secret={CANARY}"),
            format!("grant_type={exchange}&subject_token={CANARY}&actor_token={CANARY}"),
            format!(
                "grant_type={exchange}&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token={}",
                workload_token()
            ),
            format!(
                "grant_type=client_credentials&client_assertion={CANARY}&client_secret={CANARY}"
            ),
            format!("grant_type=authorization_code&code={CANARY}&id_token={CANARY}&token={CANARY}"),
            format!("{{\"password\": \"{CANARY}\"}}"),
            CANARY.repeat(12_000),
        ] {
            let fields = ["Content-Type: application/x-www-form-urlencoded".to_owned()];
            self.answered(ask(&server.registry, "POST /token", &fields, &form));
        }
    }

    /// Runs the commands that have passwords, or that show what is configured.
    fn run_commands(&mut self, server: &Server, data: &str) {
        let url = format!("http://{}", server.registry);
        let with_user = format!("http://u:{CANARY}@{}", server.registry);
        assert_eq!(
            self.run(&["user", "add", "alice", "--password-stdin", "--data", data]),
            2
        );
        assert_eq!(self.run(&["user", "list", "--json", "--data", data]), 0);
        assert_eq!(
            self.run(&[
                "user",
                "set-password",
                "nobody",
                "--password-stdin",
                "--data",
                data
            ]),
            9
        );
        let smoke = ["smoke", &url, "--size", "1 MiB", "--username"];
        assert_eq!(self.run(&[&smoke[..], &["alice"]].concat()), 0);
        assert_ne!(self.run(&[&smoke[..], &["bob"]].concat()), 0);
        assert_eq!(self.run(&["smoke", &with_user]), 2);
        for options in [
            &["--username", "alice"][..],
            &["--username", "alice", "--password-stdin"],
        ] {
            let repair = ["repair", "--from", &url, "--data", data];
            self.run(&[&repair, options].concat());
        }
        assert_eq!(
            self.run(&["repair", "--from", &with_user, "--data", data]),
            2
        );
        for command in [
            &["config", "show"][..],
            &["config", "show", "--json"],
            &["check-config", "--json"],
            &["jobs", "--json"],
            &["stats", "--json"],
            &["key", "list"],
            &["key", "list", "--json"],
            &["can", "alice", "pull", "a"],
        ] {
            let auth = [
                "--auth",
                "--auth-rules",
                &self.at("rules.toml").display().to_string(),
            ]
            .map(str::to_owned);
            let is_online = ["jobs", "stats"].contains(&command[0]);
            let options = if is_online { &[][..] } else { &auth };
            let options: Vec<&str> = options.iter().map(|option| &**option).collect();
            let code = self.run(&[command, &["--data", data], &options].concat());
            assert!(code < 2, "{command:?}");
        }
    }

    /// Starts the server with files that cannot be used, or that are those of another option.
    fn start_with_broken_files(&mut self, key: &Path) {
        let key = key.display().to_string();
        let pem =
            |kind: &str| format!("-----BEGIN {kind}-----\n{CANARY}==\n-----END {kind}-----\n");
        let broken_key = self.file("broken.key", &pem("PRIVATE KEY"));
        let broken_pem = self.file("broken.pem", &pem("CERTIFICATE"));
        let hash = format!("alice:$2y$04${CANARY}");
        let htpasswd = self.file("broken.htpasswd", &hash);
        let rules = self.file("broken.toml", &format!("[[rule]]\n{hash}\n"));
        let users = self.at("broken-users/auth");
        fs::create_dir_all(&users).unwrap();
        fs::write(
            users.join("users.toml"),
            format!("[[user]]\nname = 'a'\npassword = '{CANARY}'\n"),
        )
        .unwrap();
        let keys = self.at("broken-keys/auth");
        fs::create_dir_all(&keys).unwrap();
        fs::write(
            keys.join("token-keys.toml"),
            format!("[[key]]\nprivate = {CANARY}\n"),
        )
        .unwrap();
        let url = format!("https://u:{CANARY}@h");
        let addresses = [
            format!("[[issuer]]\nurl = '{url}'\naudience = 'a'\n"),
            format!("[[issuer]]\nurl = '{ISSUER}'\naudience = 'a'\nkeys = '{url}'\n"),
            format!("[token_service]\nissuer = 'a'\nservice = 'b'\nrealm = '{url}'\nkeys = '/k'\n"),
            format!(
                "[token_service]\nissuer = 'a'\nservice = 'b'\nrealm = '{ISSUER}'\nkeys = '{url}'\n"
            ),
        ];
        for (number, text) in addresses.iter().enumerate() {
            let rules = self.file(&format!("address-{number}.toml"), text);
            let data = self.at("new").display().to_string();
            let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"];
            let rules = ["--data", &data, "--auth", "--auth-rules", &rules];
            assert_ne!(self.run(&[&serve[..], &rules].concat()), 0, "{text}");
        }
        for (data, options) in [
            (
                "new",
                &["--tls-cert", &broken_pem, "--tls-key", &broken_key][..],
            ),
            ("new", &["--tls-cert", &key, "--tls-key", &key]),
            ("new", &["--auth", "--auth-htpasswd", &htpasswd]),
            ("new", &["--auth", "--auth-rules", &rules]),
            ("new", &["--auth", "--auth-rules", &htpasswd]),
            ("new", &["--auth", "--auth-rules", &key]),
            ("new", &["--config", &key]),
            ("new", &["--config", &htpasswd]),
            ("new", &["--locations", &url]),
            ("new", &["--hostname", &format!("u:{CANARY}@h")]),
            (
                "new",
                &["--acme", "a.example", "--tls-acme-directory", &url],
            ),
            (
                "new-tls",
                &["--auth", "--tls", "self", "--tls-client-ca", &broken_pem],
            ),
            ("broken-users", &["--auth"]),
            ("broken-keys", &["--auth"]),
        ] {
            let data = self.at(data).display().to_string();
            let serve = [
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "off",
                "--data",
                &data,
            ];
            let code = self.run(&[&serve, options].concat());
            assert_ne!(code, 0, "{options:?}");
        }
    }
}

/// Returns the files below a directory that others can read or write.
fn readable_by_others(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let open = entries.filter(|entry| entry.metadata().unwrap().permissions().mode() & 0o077 != 0);
    open.map(|entry| entry.path()).collect()
}

/// Guards: no secret of configuration, files, commands and requests is in a log, an error, an answer, a metric or a
/// listing, whether it is right, wrong or broken. Keys and passwords are in files that only their owner can read.
#[test]
fn no_secret_is_shown() {
    let mut watch = Watch::new();
    let data = watch.at("data");
    let data_text = data.display().to_string();
    assert_eq!(
        watch.run(&[
            "user",
            "add",
            "alice",
            "--admin",
            "--password-stdin",
            "--data",
            &data_text
        ]),
        0
    );
    let hash = bcrypt::hash(format!("{CANARY}-htpasswd"), 4).unwrap();
    let htpasswd = watch.file("htpasswd", &format!("bob:{hash}\n"));
    let keys = watch.file("keys.json", r#"{"keys": []}"#);
    let issuer = format!(
        "[[issuer]]\nurl = '{ISSUER}'\naudience = 'a'\nkeys = '{keys}'\n[[issuer.user]]\nname = 'w'\nclaims = {{ sub = 'x' }}\n"
    );
    let rules = format!("{issuer}[[rule]]\nrepositories = 'a'\npush = ['bob', 'w']\n");
    let rules = watch.file("rules.toml", &rules);
    let auth = [
        "--auth",
        "--auth-rules",
        &rules,
        "--auth-htpasswd",
        &htpasswd,
    ];
    let mut server = Server::start(&data, &auth);
    watch.secrets.push(hash);
    watch.send_credentials(&server, &data_text);
    watch.send_forms(&server);
    watch.run_commands(&server, &data_text);
    for path in ["/metrics", "/healthz", "/readyz", "/nowhere"] {
        let fields = [format!("Authorization: Bearer {CANARY}")];
        let answer = ask(&server.admin, &format!("GET {path}"), &fields, "");
        watch.saw("admin", answer);
    }
    watch.file("htpasswd", &format!("bob:$2y$04${CANARY}\n"));
    server.until("htpasswd");
    watch.hide(&data.join("auth/users.toml"));
    watch.hide(&data.join("auth/token-keys.toml"));
    watch.hide(&data.join("auth/keys.toml"));
    watch.saw("log", server.end());

    let server = Server::start(&data, &["--tls", "self"]);
    let authority = data.join("tls/ca.pem").display().to_string();
    let url = format!("https://{}", server.registry);
    let smoke = [
        "smoke",
        &url,
        "--ca",
        &authority,
        "--size",
        "1 MiB",
        "--username",
        "alice",
    ];
    assert_eq!(watch.run(&smoke), 0);
    let key = data.join("tls/server.key");
    watch.hide(&key);
    watch.hide(&data.join("tls/ca.key"));
    watch.saw("log", server.end());
    watch.start_with_broken_files(&key);
    watch.fetch_with_broken_files(&authority);
    watch.check();

    // What was looked at is what it should be.
    assert!(watch.count("log", "\"answered\"") > 80, "{:?}", watch.shown);
    assert!(watch.count("answers", "HTTP/1.1 401") > 40);
    assert!(watch.count("admin", "registry_") > 0);
    assert!(watch.count("config show", "auth.enabled") > 0);
    assert_eq!(
        readable_by_others(&data.join("auth")),
        Vec::<PathBuf>::new()
    );
    let mut public = readable_by_others(&data.join("tls"));
    public.sort();
    assert_eq!(
        public,
        ["ca.pem", "server.pem"].map(|name| data.join("tls").join(name))
    );
}
