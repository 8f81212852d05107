//! Registries, as names of images begin with them.
//!
//! Owns: [`Registry`], and [`registry_of`] an image. Invariant: two registries are equal only if every character of
//! host and port is, but for case. So credentials for one are never given to a host whose name only begins like it.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// The registry of an image whose name has none.
const DEFAULT: &str = "docker.io";
/// An old name of the same registry.
const DEFAULT_OLD: &str = "index.docker.io";

/// A registry for which credentials may be given: `host` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registry(String);

impl Registry {
    /// Returns whether this is the registry that an image names.
    pub(crate) fn is(&self, named: &str) -> bool {
        self.0.eq_ignore_ascii_case(named)
    }

    /// Returns it as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Registry {
    type Err = &'static str;

    /// Parses `host[:port]`. Patterns, paths and user names are rejected: each would widen who gets credentials.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write HOST or HOST:PORT, as names of images begin with it";
        let (is_host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(WRONG)?;
            (address.parse::<Ipv6Addr>().is_ok(), port)
        } else {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!host.is_empty() && host.bytes().all(usual), port)
        };
        let is_port = match port.strip_prefix(':') {
            Some(digits) => {
                digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
            }
            None => port.is_empty(),
        };
        if !is_host || !is_port {
            return Err(WRONG);
        }
        // What has neither a dot nor a port is a part of a repository's name.
        if registry_of(&format!("{text}/image")) != text {
            return Err("the name of an image cannot begin with it: it needs a dot or a port");
        }
        Ok(Self(text.to_owned()))
    }
}

/// Returns the registry of an image, by the rule of the kubelet and of container runtimes: the part before the first
/// slash, if that has a dot, a port or a capital letter or is `localhost`.
pub(crate) fn registry_of(image: &str) -> &str {
    let is_host = |part: &str| {
        part == "localhost"
            || part.contains(['.', ':'])
            || part.bytes().any(|b| b.is_ascii_uppercase())
    };
    match image.split_once('/') {
        Some((DEFAULT_OLD, _)) | None => DEFAULT,
        Some((first, _)) if is_host(first) => first,
        Some(_) => DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the registry of an image is found as container runtimes find it.
    #[test]
    fn images_name_their_registry() {
        for (image, registry) in [
            ("alpine", "docker.io"),
            ("library/alpine:3", "docker.io"),
            ("index.docker.io/library/alpine", "docker.io"),
            ("localhost/a", "localhost"),
            ("registry:5000/a", "registry:5000"),
            ("registry.example/a/b@sha256:00", "registry.example"),
            ("registry.example:5000/a:v1", "registry.example:5000"),
            ("[::1]:5000/a", "[::1]:5000"),
            ("alpine:3.20", "docker.io"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }

    /// Guards: a registry is a host and a port, and equal to nothing else: no pattern, path or user name is one.
    #[test]
    fn registries_are_exact() {
        let registry: Registry = "registry.example:5000".parse().unwrap();
        assert!(registry.is("Registry.Example:5000"));
        for other in [
            "registry.example",
            "registry.example:50000",
            "registry.example:5000.evil.example",
            "registry.example:5000@evil.example",
            "evil.example#registry.example:5000",
            "registry.example.evil.example:5000",
        ] {
            assert!(!registry.is(other), "{other}");
        }
        for good in [
            "localhost",
            "a.b",
            "a:1",
            "[::1]:5000",
            "10.0.0.1:5000",
            "docker.io",
        ] {
            good.parse::<Registry>().unwrap();
        }
        for wrong in [
            "",
            "a",
            ":5000",
            "*.example",
            "a.b/c",
            "u@a.b",
            "https://a.b",
            "a.b:",
            "a.b:x",
            "a.b:+1",
            "a.b:70000",
            "[::1",
            "[x]:1",
            "a.b?c",
            "a.b\n",
            "index.docker.io",
        ] {
            assert!(wrong.parse::<Registry>().is_err(), "{wrong}");
        }
    }
}
