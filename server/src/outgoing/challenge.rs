//! What a 401 asks for.
//!
//! Owns: reading `WWW-Authenticate` (RFC 9110 section 11.6.1). Refuses: answering it (`authorization`).

use http::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user name and a password.
    Basic,
    /// A token from the server `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Returns the first challenge that asks for a token, else one that asks for a password.
pub(super) fn read(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let challenges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse);
    let mut basic = None;
    for (scheme, parameters) in challenges {
        let parameter = |name: &str| {
            let found = parameters
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameter("realm")
        {
            return Some(Challenge::Bearer {
                realm,
                service: parameter("service"),
                scope: parameter("scope"),
            });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// A scheme with its parameters.
type Parsed = (String, Vec<(String, String)>);

/// Reads the challenges of one field. What follows the first error is ignored.
fn parse(field: &str) -> Vec<Parsed> {
    let mut found: Vec<Parsed> = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_token(rest);
        if word.is_empty() {
            return found;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = split_value(value.trim_start_matches([' ', '\t']))
                else {
                    return found;
                };
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            // A parameter without a scheme.
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a token or a quoted string, and returns what follows it.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = split_token(text);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn challenge(fields: &[&'static str]) -> Option<Challenge> {
        let fields = fields
            .iter()
            .map(|field| (WWW_AUTHENTICATE, HeaderValue::from_static(field)));
        read(&fields.collect())
    }

    /// Guards: challenges as registries send them: several in one field or in several, quoted commas, escapes, any
    /// case and order. A token is preferred. What cannot be read asks for nothing.
    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            challenge(&[hub]),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push")
            )
        );
        let both = r#"Basic realm="a, b", bearer SCOPE=x , realm = "https://t/\"q\"""#;
        assert_eq!(
            challenge(&[both]),
            bearer("https://t/\"q\"", None, Some("x"))
        );
        let apart = [r#"Basic realm="r""#, r#"Bearer realm="https://t""#];
        assert_eq!(challenge(&apart), bearer("https://t", None, None));
        assert_eq!(challenge(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(
            challenge(&["Negotiate, Basic realm=x"]),
            Some(Challenge::Basic)
        );
        for unreadable in [
            "",
            "=",
            "Bearer",
            r#"Bearer realm="open"#,
            "Bearer scope=x",
            "Digest a=b",
        ] {
            assert_eq!(challenge(&[unreadable]), None, "{unreadable}");
        }
    }
}
