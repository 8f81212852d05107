//! How long requests take at the server, without what the client and the network add.
//!
//! Owns: [`ServerTimes`], by the histogram that the registry publishes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::fleet::Server;

/// The counts of requests by the upper bound of their time in nanoseconds.
type Histogram = BTreeMap<u64, f64>;

/// The times of the requests of one kind from a moment on.
pub struct ServerTimes {
    /// `None` for servers that publish none.
    admin: Option<SocketAddr>,
    method: &'static str,
    /// The template of the path.
    route: &'static str,
    before: Histogram,
}

impl ServerTimes {
    /// Begins now.
    pub fn begin(
        server: &Server,
        method: &'static str,
        route: &'static str,
    ) -> Result<Self, String> {
        let before = server
            .admin
            .map(|admin| histogram(admin, method, route))
            .transpose()?;
        Ok(Self {
            admin: server.admin,
            method,
            route,
            before: before.unwrap_or_default(),
        })
    }

    /// Returns the p99 until now.
    pub fn p99(&self) -> Result<Option<(String, f64)>, String> {
        let Some(admin) = self.admin else {
            return Ok(None);
        };
        let after = histogram(admin, self.method, self.route)?;
        let p99 = p99_between(&self.before, &after);
        Ok(p99.map(|p99| ("server_p99_ms".into(), p99)))
    }
}

/// Reads the times from the head of a request to the first byte of its answer.
fn histogram(admin: SocketAddr, method: &str, route: &str) -> Result<Histogram, String> {
    let read = || {
        let mut stream = TcpStream::connect(admin)?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|e| format!("read the metrics of {admin}: {e}"))?;
    let (method, route) = (format!("method=\"{method}\""), format!("route=\"{route}\""));
    let lines = text.lines().filter(|line| {
        line.starts_with("registry_http_first_byte_seconds_bucket")
            && line.contains(&route)
            && line.contains(&method)
    });
    let bucket = |line: &str| {
        let bound = line.split_once("le=\"")?.1.split_once('"')?.0;
        let bound = bound.parse::<f64>().ok().filter(|bound| bound.is_finite());
        let bound = bound.map_or(u64::MAX, |seconds| (seconds * 1e9) as u64);
        Some((bound, line.rsplit_once(' ')?.1.parse().ok()?))
    };
    Ok(lines.filter_map(bucket).collect())
}

/// Returns the p99 of the requests between two readings, in ms, linear inside a bucket, as Prometheus computes it.
fn p99_between(before: &Histogram, after: &Histogram) -> Option<f64> {
    let counted = |bound: &u64, count: &f64| count - before.get(bound).unwrap_or(&0.0);
    let total = after
        .last_key_value()
        .map(|(bound, count)| counted(bound, count))?;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in after {
        let (count, high) = (counted(bound, count), *bound as f64 / 1e6);
        if count >= total * 0.99 && count > below {
            if *bound == u64::MAX {
                return None;
            }
            return Some(low + (high - low) * (total * 0.99 - below) / (count - below));
        }
        (low, below) = (high, count);
    }
    None
}
