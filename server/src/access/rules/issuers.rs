//! The part of the file of access rules that says whose tokens are accepted.
//!
//! Owns: its format and its errors. A mistake is an error, because it could let in others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Uri;
use serde::Deserialize;

use super::values::{OneOrMany, parse};
use crate::access::UserName;
use crate::access::external_tokens::TokenServer;
use crate::access::key_sets::{KeyPlace, KeySource};
use crate::access::workloads::{Issuer, WorkloadUser};
use crate::documents;

/// Issuers for everyone, with the claims of which a user must have one: the others are the same for many. The part of a
/// value before a `*` must have a slash, so that it names an owner whole.
const PUBLIC: [(&str, &[&str]); 2] = [
    (
        "https://token.actions.githubusercontent.com",
        &[
            "repository_id",
            "repository_owner_id",
            "repository",
            "repository_owner",
            "sub",
        ],
    ),
    (
        "https://gitlab.com",
        &[
            "project_id",
            "namespace_id",
            "project_path",
            "namespace_path",
            "sub",
        ],
    ),
];
/// Longest name of another token service.
const BYTES_MAX: usize = 120;
/// Most issuers.
const ISSUERS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerTable {
    url: String,
    audience: OneOrMany,
    keys: Option<String>,
    ca: Option<PathBuf>,
    keep: Option<Vec<String>>,
    #[serde(default, rename = "user")]
    users: Vec<UserTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    name: String,
    claims: BTreeMap<String, OneOrMany>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenServerTable {
    issuer: String,
    service: String,
    realm: String,
    keys: String,
    ca: Option<PathBuf>,
}

impl TokenServerTable {
    /// Reads the table.
    pub(super) fn read(self) -> Result<TokenServer, String> {
        let place = "token_service";
        for (name, value) in [
            ("issuer", &self.issuer),
            ("service", &self.service),
            ("realm", &self.realm),
        ] {
            // They are part of a header, or of what every token says.
            let is_usual = |byte: u8| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte);
            if !(1..=BYTES_MAX).contains(&value.len()) || !value.bytes().all(is_usual) {
                return Err(format!(
                    "{place}: {name} is empty, long, or has spaces, quotes or commas"
                ));
            }
        }
        // Clients send their passwords there.
        let realm = trustworthy(&self.realm, &format!("{place}: realm"))?;
        Ok(TokenServer {
            keys: key_source(Some(&self.keys), None, self.ca, place)?,
            realm: realm.to_string(),
            issuer: self.issuer,
            service: self.service,
        })
    }
}

/// Reads all tables.
pub(super) fn read(tables: Vec<IssuerTable>) -> Result<Vec<Issuer>, String> {
    if tables.len() > ISSUERS_MAX {
        return Err(format!("issuer: there are more than {ISSUERS_MAX}"));
    }
    let mut issuers: Vec<Issuer> = Vec::new();
    for table in tables {
        let issuer = table.read()?;
        if issuers.iter().any(|known| known.url == issuer.url) {
            return Err(format!(
                "issuer {}: there is another one; write one issuer with the users of both",
                issuer.url
            ));
        }
        issuers.push(issuer);
    }
    Ok(issuers)
}

/// Returns where keys are: where `keys` says, a URL or the path of a file, else where the issuer says.
pub(super) fn key_source(
    keys: Option<&str>,
    issuer: Option<Uri>,
    authorities: Option<PathBuf>,
    within: &str,
) -> Result<KeySource, String> {
    let place = match (keys, issuer) {
        (Some(keys), _) if keys.contains("://") => {
            KeyPlace::Url(trustworthy(keys, &format!("{within}: keys"))?)
        }
        (Some(path), _) if path.starts_with('/') => KeyPlace::File(path.into()),
        (None, Some(issuer)) => KeyPlace::Discovery(issuer),
        (Some(_), _) | (None, None) => {
            return Err(format!(
                "{within}: keys: write the URL of a JSON Web Key Set, or the absolute path of a file"
            ));
        }
    };
    if let Some(path) = authorities.as_ref().filter(|path| !path.is_absolute()) {
        let path = path.display();
        return Err(format!("{within}: ca: {path} is no absolute path"));
    }
    Ok(KeySource { place, authorities })
}

/// Parses a URL from which keys may be fetched.
pub(super) fn trustworthy(text: &str, place: &str) -> Result<Uri, String> {
    let url: Uri = parse(text, place)?;
    if documents::is_trustworthy(&url) {
        return Ok(url);
    }
    Err(format!("{place}: write a URL that begins with https://"))
}

impl IssuerTable {
    fn read(self) -> Result<Issuer, String> {
        let place = format!("issuer {}", self.url);
        let url = trustworthy(&self.url, "issuer: url")?;
        let audiences = self.audience.into_vec();
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(format!(
                "{place}: audience is empty; name this registry there, and ask the issuer for tokens for it"
            ));
        }
        if self.users.is_empty() {
            return Err(format!("{place}: it has no user, so it logs in nobody"));
        }
        let public = PUBLIC.iter().find(|(url, _)| *url == self.url);
        let distinct = public.map_or(&[][..], |(_, claims)| claims);
        let users = self
            .users
            .into_iter()
            .map(|table| table.read(&place, distinct));
        Ok(Issuer {
            audiences,
            keys: key_source(self.keys.as_deref(), Some(url), self.ca, &place)?,
            users: users.collect::<Result<_, _>>()?,
            kept: self.keep,
            url: self.url,
        })
    }
}

impl UserTable {
    /// Reads the table. One of the claims `distinct` is needed, if there are any.
    fn read(self, place: &str, distinct: &[&str]) -> Result<WorkloadUser, String> {
        let name: UserName = parse(&self.name, &format!("{place}: user"))?;
        let place = format!("{place}: user {name}");
        let claims = self.claims.into_iter().map(|(claim, values)| {
            let values = values.into_vec();
            // `*` stands for every value, so it says nothing.
            if values.is_empty() || values.iter().any(|value| value.is_empty() || value == "*") {
                return Err(format!("{place}: the claim {claim} needs a value"));
            }
            Ok((claim, values))
        });
        let claims: BTreeMap<_, _> = claims.collect::<Result<_, String>>()?;
        // An issuer for everyone, such as that of a public CI, would otherwise let in everyone.
        if claims.is_empty() {
            return Err(format!(
                "{place}: claims is empty, so every token of the issuer would log in this user"
            ));
        }
        let is_whole = |value: &String| {
            let begin = value.strip_suffix('*');
            begin.is_none_or(|begin| begin.contains('/'))
        };
        let is_distinct = claims
            .iter()
            .any(|(claim, values)| distinct.contains(&&**claim) && values.iter().all(is_whole));
        if !distinct.is_empty() && !is_distinct {
            return Err(format!(
                "{place}: give one of the claims {} whole, or up to a slash; the issuer is the same for everyone",
                distinct.join(", ")
            ));
        }
        Ok(WorkloadUser {
            name: name.to_string(),
            claims,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::access::AccessRules;

    /// Guards: a mistake in the table of an issuer or of a token service is an error that names its place, so that none
    /// lets in others.
    #[test]
    fn mistakes_let_in_nobody() {
        let issuer = "[[issuer]]\nurl = 'https://i'\naudience = 'r'\n";
        let user = "[[issuer.user]]\nname = 'ci'\nclaims = { sub = 'a' }\n";
        format!("{issuer}{user}").parse::<AccessRules>().unwrap();
        for (text, expected) in [
            (issuer.to_owned(), "has no user"),
            (format!("{issuer}{user}{issuer}{user}"), "there is another"),
            (
                format!("{issuer}{user}").replace("https", "http"),
                "https://",
            ),
            (
                format!("{issuer}{user}").replace("'r'", "[]"),
                "audience is empty",
            ),
            (format!("{issuer}keys = 'a.json'\n{user}"), "keys: write"),
            (format!("{issuer}ca = 'a.pem'\n{user}"), "ca: a.pem"),
            (
                format!("{issuer}{user}")
                    .replace("https://i", "https://gitlab.com")
                    .replace("sub", "ref"),
                "give one of the claims",
            ),
            (
                format!("{issuer}{user}")
                    .replace("https://i", "https://gitlab.com")
                    .replace("'a'", "'a*'"),
                "give one of the claims",
            ),
            (
                format!("{issuer}keys = 'http://a/b'\n{user}"),
                "keys: write a URL",
            ),
            (
                format!("{issuer}{user}").replace(" sub = 'a' ", ""),
                "every token",
            ),
            (
                format!("{issuer}{user}").replace("'a'", "'*'"),
                "the claim sub",
            ),
            (
                format!("{issuer}{user}").replace("'ci'", "'users'"),
                "issuer https://i: user",
            ),
        ] {
            let error = text.parse::<AccessRules>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
