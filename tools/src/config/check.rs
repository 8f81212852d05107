//! Rules between options.
//!
//! Owns: these rules. The store checks its own limits again when it opens.

use crate::config::options::Config;
use crate::config::reader::Reader;
use crate::units;

/// Reports every rule that is broken, at the source of the value to change.
pub(super) fn check(config: &Config, reader: &mut Reader) {
    let (listen, admin) = (config.server.listen, config.server.admin_listen);
    // Port 0 takes any free port, so two of them never collide.
    if admin == Some(listen) && listen.port() != 0 {
        let what = "the registry listens on the same address; use another port, or off";
        reader.reject("admin_listen", what);
    }
    let reachable = !listen.ip().to_canonical().is_loopback();
    if reachable && !config.auth.enabled && !config.insecure_anonymous {
        let what = format!(
            "anyone who reaches {listen} could push, pull and delete; ask for credentials with --auth, listen on \
             127.0.0.1, or allow it with --insecure-anonymous"
        );
        reader.reject("listen", &what);
    }
    if config.auth.enabled && config.insecure_anonymous {
        let what = "auth.enabled asks for credentials; remove one of the two";
        reader.reject("insecure_anonymous", what);
    }
    for (key, path) in [
        ("auth.htpasswd", &config.auth.htpasswd),
        ("auth.rules", &config.auth.rules),
        ("tls.client_ca", &config.tls.client_ca),
    ] {
        if path.is_some() && !config.auth.enabled {
            reader.reject(key, "it has no effect without auth.enabled = true (--auth)");
        }
    }
    config.tls.check(reader);
    for (key, is_set) in [
        ("tls.admin", config.server.admin_tls),
        ("tls.client_ca", config.tls.client_ca.is_some()),
    ] {
        if is_set && !config.tls.is_on() {
            let what =
                "it has no effect without TLS; set tls.mode, tls.acme, or tls.cert and tls.key";
            reader.reject(key, what);
        }
    }
    let max = config.store.shared_segment_bytes / 2;
    if config.store.spill_threshold_bytes > max {
        let what = format!(
            "{} is above the maximum of half of storage.shared_segment_size, {}",
            units::format_size(config.store.spill_threshold_bytes),
            units::format_size(max)
        );
        reader.reject("storage.spill_threshold", &what);
    }
}
