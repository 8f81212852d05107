//! The host of a request, and the hosts that a listener serves (RFC 9110 section 7.2).
//!
//! Owns: [`Host`], [`Authority`] (a host and a port), and [`HostPolicy`]. They prevent DNS rebinding: if the name of a
//! web page is made to resolve to loopback, the page can read and write a registry that listens there. Only the name in
//! the request shows that, because a browser sends the name from which the page was loaded.
//! Refuses: DNS; a name is compared as written.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest DNS name.
const NAME_BYTES_MAX: usize = 255;

/// A name or an IP address, without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name in lower case, without the dot at the end.
    Name(Box<str>),
}

/// The error that a text is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host: write a name or an IP address without a port, such as registry.example or ::1, or * for any"
)]
pub struct InvalidHost;

impl Host {
    /// Returns whether it is loopback. Browsers resolve `localhost` and names below it without DNS (RFC 6761).
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
        }
    }

    /// Parses a host that needs no brackets: an IPv4 address, or a name of characters that DNS names have.
    fn plain(text: &str) -> Option<Self> {
        let begins_with_digit = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit());
        if begins_with_digit && let Ok(address) = text.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(usual);
        good.then(|| Self::Name(name.to_ascii_lowercase().into()))
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    /// Parses a host. An IPv6 address may be in brackets.
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        match bare.unwrap_or(text).parse::<Ipv6Addr>() {
            Ok(address) => Ok(Self::Address(address.into())),
            Err(_) => Self::plain(text).ok_or(InvalidHost),
        }
    }
}

/// A host and a port, as a request names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) host: Host,
    port: Option<u16>,
}

impl Authority {
    /// Parses `uri-host [ ":" port ]`. User information is not part of a Host.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            // A zone names an interface of the client.
            let address = address.split('%').next().unwrap_or_default();
            (Host::Address(IpAddr::V6(address.parse().ok()?)), port)
        } else {
            let colon = text.bytes().position(|byte| byte == b':');
            let (name, port) = text.split_at(colon.unwrap_or(text.len()));
            (Host::plain(name)?, port)
        };
        let port = match port.strip_prefix(':') {
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if port.is_empty() => None,
            _ => return None,
        };
        Some(Self { host, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Address(address) => write!(f, "{address}")?,
            Host::Name(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A host under which clients may reach the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hostname {
    /// Any host.
    Any,
    /// This host.
    Only(Host),
}

impl FromStr for Hostname {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        match text {
            "*" => Ok(Self::Any),
            _ => text.parse().map(Self::Only),
        }
    }
}

/// The hosts that a listener serves.
#[derive(Debug)]
pub(crate) struct HostPolicy {
    /// Whether there are hosts that it does not serve.
    restricted: bool,
    /// Whether any IP address is served. Addresses cannot be rebound, and probes of a cluster use addresses that cannot
    /// be configured.
    addresses: bool,
    hostnames: Vec<Hostname>,
}

impl HostPolicy {
    /// Creates the policy of a listener at `address`. On loopback it serves loopback hosts and the configured ones.
    /// Elsewhere it serves every host, or, if hosts are configured, those and IP addresses.
    pub(crate) fn new(address: SocketAddr, hostnames: Vec<Hostname>) -> Self {
        let loopback = address.ip().to_canonical().is_loopback();
        let restricted = loopback || !hostnames.is_empty();
        Self {
            restricted: restricted && !hostnames.contains(&Hostname::Any),
            addresses: !loopback,
            hostnames,
        }
    }

    pub(crate) fn serves(&self, host: &Host) -> bool {
        let is_address = matches!(host, Host::Address(_));
        !self.restricted
            || host.is_loopback()
            || (self.addresses && is_address)
            || self.is_configured(host)
    }

    /// Returns whether the host was configured by name.
    pub(crate) fn is_configured(&self, host: &Host) -> bool {
        self.hostnames
            .iter()
            .any(|hostname| matches!(hostname, Hostname::Only(one) if one == host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: RFC 9110 section 7.2 with RFC 3986 section 3.2: which texts are a Host.
    #[test]
    fn hosts_have_one_form() {
        for (text, shown) in [
            ("localhost", "localhost"),
            ("LocalHost.:5000", "localhost:5000"),
            ("registry.example:", "registry.example"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[fe80::1%25eth0]:5000", "[fe80::1]:5000"),
            ("my_registry", "my_registry"),
        ] {
            let parsed = Authority::parse(text).map(|authority| authority.to_string());
            assert_eq!(parsed.as_deref(), Some(shown), "{text}");
        }
        for bad in [
            "",
            ".",
            ":5000",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a:1:2",
            "::1",
            "a:65536",
            "a:+1",
            "[::1",
            "[::1]5000",
            "[a]",
            "a,b",
            "a%2eb",
            "http://a",
            "a\"",
            "\u{e4}",
            &"a".repeat(300),
        ] {
            assert_eq!(Authority::parse(bad), None, "{bad:?}");
        }
    }

    /// Guards: which names and addresses are loopback.
    #[test]
    fn loopback_has_many_names() {
        let loopback = |text: &str| Authority::parse(text).unwrap().host.is_loopback();
        for name in [
            "localhost:5000",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.8.8.8:1",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(loopback(name), "{name}");
        }
        for name in [
            "localhost.example",
            "127.0.0.1.example",
            "notlocalhost",
            "0.0.0.0",
            "[::]",
            "10.0.0.1",
            "2130706433",
        ] {
            assert!(!loopback(name), "{name}");
        }
    }

    /// Guards: on loopback, loopback hosts and configured ones are served; elsewhere every host, unless hosts are
    /// configured.
    #[test]
    fn listeners_serve_their_hosts() {
        let policy = |address: &str, hostnames: &[&str]| {
            let hostnames = hostnames.iter().map(|text| text.parse().unwrap());
            HostPolicy::new(address.parse().unwrap(), hostnames.collect())
        };
        let host = |text: &str| Authority::parse(text).unwrap().host;
        for (address, hostnames, served, refused) in [
            (
                "127.0.0.1:1",
                &[][..],
                &["localhost"][..],
                &["x", "10.0.0.1"][..],
            ),
            (
                "[::1]:1",
                &["X.example", "::2"],
                &["x.example.", "[::2]", "127.0.0.1"],
                &["y"],
            ),
            ("127.0.0.1:1", &["*"], &["x"], &[]),
            ("0.0.0.0:1", &[], &["x", "10.0.0.1"], &[]),
            (
                "10.0.0.1:1",
                &["x"],
                &["x", "localhost", "10.0.0.2", "[2001:db8::1]"],
                &["y"],
            ),
        ] {
            let policy = policy(address, hostnames);
            for name in served {
                assert!(policy.serves(&host(name)), "{address} {hostnames:?} {name}");
            }
            for name in refused {
                assert!(
                    !policy.serves(&host(name)),
                    "{address} {hostnames:?} {name}"
                );
            }
        }
        for bad in ["", "x:5000", "a b", "**", "http://x", "x/y", "a%2eb"] {
            assert_eq!(bad.parse::<Hostname>(), Err(InvalidHost), "{bad:?}");
        }
    }
}
