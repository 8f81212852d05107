//! Checks of a request's head that hyper does not make.
//!
//! Owns: [`check`]: how a body is framed (RFC 9112 section 6), the host (section 3.2), expectations (RFC 9110 section
//! 10.1.1), and whether a web page of another site sent it.
//! Refuses: paths, queries and the form of the answer, which belong to front ends.
//!
//! Invariant: a head that two parsers could read as different requests is answered with 400 and ends its connection.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};

use super::headers::{first, list};
use super::host::{Authority, HostPolicy};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a head is rejected, before its path is parsed. The text says why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct HeadError {
    reason: Reason,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("Transfer-Encoding must be \"chunked\", once; send the body with one framing")]
    Framing,
    #[error("only the transfer coding \"chunked\" is supported; send the body without others")]
    Coding,
    #[error("the request names no host; HTTP/1.1 needs one Host header, HTTP/2 an :authority")]
    HostMissing,
    #[error(
        "the request has more than one Host header, or one that differs from its :authority; send one"
    )]
    HostDoubled,
    #[error(
        "the Host header or :authority is not a host with an optional port, such as registry.example:5000"
    )]
    HostInvalid,
    #[error(
        "{0} is not a host name of this registry; to allow it, add that name without the port to the option hostnames (TONNAGE_HOSTNAMES)"
    )]
    HostUnknown(Authority),
    #[error(
        "the only expectation that is supported is \"100-continue\"; send the request without Expect"
    )]
    Expectation,
    #[error(
        "a page of another site made a browser send this, so it was not done; if {0} is a name of this registry, add it to the option \
         hostnames (TONNAGE_HOSTNAMES)"
    )]
    CrossSite(String),
}

/// Checks a head. Returns the host that the request is for; only HTTP/1.0 may leave it out.
pub(crate) fn check(head: &Parts, hosts: &HostPolicy) -> Result<Option<Authority>, HeadError> {
    let checked = || {
        framing(&head.headers)?;
        let target = target(head)?;
        if let Some(target) = &target
            && !hosts.serves(&target.host)
        {
            return Err(Reason::HostUnknown(target.clone()));
        }
        same_site(head, target.as_ref(), hosts)?;
        expectation(head)?;
        Ok(target)
    };
    checked().map_err(|reason| HeadError {
        reason,
        version: head.version,
    })
}

impl HeadError {
    /// Returns the status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self.reason {
            Reason::Framing | Reason::HostMissing | Reason::HostDoubled | Reason::HostInvalid => {
                StatusCode::BAD_REQUEST
            }
            Reason::Coding => StatusCode::NOT_IMPLEMENTED,
            Reason::Expectation => StatusCode::EXPECTATION_FAILED,
            Reason::HostUnknown(_) | Reason::CrossSite(_) => StatusCode::FORBIDDEN,
        }
    }

    /// Returns whether the answer closes the connection, because the bytes that follow are ambiguous.
    pub(crate) fn closes_connection(&self) -> bool {
        self.version < Version::HTTP_2
    }
}

/// Checks the framing of the body. hyper accepts any list that ends in `chunked`, also with `chunked` twice, and
/// decodes only the last coding.
fn framing(headers: &HeaderMap) -> Result<(), Reason> {
    if first(headers, &header::TRANSFER_ENCODING).is_none() {
        return Ok(());
    }
    let codings: Vec<&str> = list(headers, &header::TRANSFER_ENCODING).collect();
    let is_chunked = |coding: &&str| coding.eq_ignore_ascii_case("chunked");
    match (
        codings.len(),
        codings
            .iter()
            .copied()
            .filter(|coding| is_chunked(coding))
            .count(),
    ) {
        (0, _) | (1, 1) => Ok(()),
        (_, 1) if codings.iter().all(|coding| !coding.is_empty()) => Err(Reason::Coding),
        _ => Err(Reason::Framing),
    }
}

fn target(head: &Parts) -> Result<Option<Authority>, Reason> {
    let parse = |text: &str| Authority::parse(text).ok_or(Reason::HostInvalid);
    let mut lines = head.headers.get_all(header::HOST).iter();
    let given = match (lines.next(), lines.next()) {
        (None, _) => None,
        (Some(line), None) => Some(parse(line.to_str().unwrap_or_default())?),
        (Some(_), Some(_)) => return Err(Reason::HostDoubled),
    };
    let named = head
        .uri
        .authority()
        .map(|named| parse(named.as_str()))
        .transpose()?;
    match (head.version, named, given) {
        (Version::HTTP_11, _, None) | (Version::HTTP_2, None, None) => Err(Reason::HostMissing),
        (Version::HTTP_2, Some(named), Some(given)) if named != given => Err(Reason::HostDoubled),
        // The target of a request in absolute form takes precedence over its Host (RFC 9112 section 3.2.2).
        (_, named, given) => Ok(named.or(given)),
    }
}

/// Rejects a write that a page of another site sends through a browser. The registry has no pages, so only the user may
/// cause a write.
fn same_site(head: &Parts, target: Option<&Authority>, hosts: &HostPolicy) -> Result<(), Reason> {
    if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name| {
        head.headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let origin = text(header::ORIGIN);
    let own = match (text(SEC_FETCH_SITE), origin) {
        (Some("same-origin" | "none"), _) | (None, None) => true,
        (Some(_), None) => false,
        (site, Some(origin)) => {
            let from = origin
                .split_once("://")
                .and_then(|(_, host)| Authority::parse(host));
            // A browser that sends Sec-Fetch-Site has compared the origin with the target.
            let same = |from: &Authority| site.is_none() && Some(from) == target;
            from.is_some_and(|from| same(&from) || hosts.is_configured(&from.host))
        }
    };
    if own {
        return Ok(());
    }
    let origin = origin.unwrap_or("its origin");
    Err(Reason::CrossSite(origin.chars().take(128).collect()))
}

/// Checks Expect. HTTP/1.0 has no expectations (RFC 9110 section 10.1.1).
fn expectation(head: &Parts) -> Result<(), Reason> {
    if first(&head.headers, &header::EXPECT).is_none() {
        return Ok(());
    }
    let lines = head.headers.get_all(header::EXPECT).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    // Empty members of a list do not count (RFC 9110 section 5.6.1.2).
    let mut members = members
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty());
    if head.version < Version::HTTP_11
        || members.all(|member| member.eq_ignore_ascii_case(b"100-continue"))
    {
        Ok(())
    } else {
        Err(Reason::Expectation)
    }
}
