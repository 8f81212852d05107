//! Fuzz target for `Authorization`: names with passwords, API keys, tokens.
//!
//! The input: the first few values of the header, one a line. Checked: two values are rejected, a name has no colon,
//! and a name with its password is read as itself however the scheme is written.

use http::{HeaderValue, Request, header};
use tonnage_server::fuzz_entry::{Authorization, api_key, authorization, claimed_issuer};

/// Values of the header that are used. The HTTP library takes about a hundred bytes for each.
const VALUES_MAX: usize = 8;

/// Runs the target on some values.
pub fn run(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').take(VALUES_MAX);
    let lines: Vec<&[u8]> = lines.collect();
    let Some(read) = read(&lines) else { return };
    match (read, lines.len()) {
        (Authorization::Invalid, _) => {}
        (other, 2..) => panic!("two values are {other:?}"),
        (Authorization::None, _) => {}
        (Authorization::Token(token), _) => {
            assert!(token == token.trim() && lines[0].len() > token.len());
            // Tokens have no spaces at their ends, which the library removes.
            let again = format!("BEARER {token}");
            let expected = if token.is_empty() {
                Authorization::Invalid
            } else {
                Authorization::Token(token)
            };
            assert_eq!(self::read(&[again.as_bytes()]), Some(expected));
        }
        (Authorization::Password(name, password), _) => {
            assert!(!name.contains(':') && (&*name, &*password) != ("", ""));
            if let Some(key) = api_key(&password) {
                assert_eq!(key, password);
                assert_eq!(claimed_issuer(&password), None);
            } else if claimed_issuer(&password).is_some() {
                assert_eq!(password.split('.').count(), 3);
            }
        }
    }
}

/// Reads a head with these values; `None` if the HTTP library would reject one.
fn read(values: &[&[u8]]) -> Option<Authorization> {
    let mut request = Request::new(());
    for value in values {
        let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
        request.headers_mut().append(header::AUTHORIZATION, value);
    }
    Some(authorization(&request.into_parts().0))
}
