//! Fuzz target for tokens.
//!
//! The input: its kind (one byte), then a token, changes to a valid token, a header and claims (two lines; `$kid` is
//! the name of the key) that are signed with the right key or with another one, or a set of keys of another issuer and
//! a token (two lines). Checked: nothing is accepted that was not signed with the right key, and nothing that was
//! signed for something else ([`FuzzedTokens::accepts`]). What a shared secret signed is never accepted.

use std::sync::OnceLock;

use tonnage_server::fuzz_entry::{FuzzedTokens, key_set_accepts};

use super::input::Input;

/// What a valid token has, as far as it does not end.
const HEADER: &[u8] = br#"{"typ":"JWT","alg":"ES256","kid":"$kid"}"#;
const CLAIMS: &[u8] = br#"{"iss":"tonnage","sub":"alice","aud":"tonnage","exp":4000000000,"nbf":0,"iat":0,"jti":"","access":[{"type":"repository","name":"a","actions":["pull"]}]}"#;

/// Two services with keys of their own, and a token of the first.
struct World {
    own: FuzzedTokens,
    foreign: FuzzedTokens,
    valid: String,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let [own, foreign] = [(); 2].map(|()| {
            let directory = tempfile::tempdir().expect("a directory");
            FuzzedTokens::open(directory.path()).expect("keys")
        });
        let valid = sign(&own, &own, HEADER, CLAIMS);
        assert!(own.accepts(&valid) && !foreign.accepts(&valid));
        World {
            own,
            foreign,
            valid,
        }
    })
}

/// Signs with the key of `signer`. The header names the key of `named`.
fn sign(signer: &FuzzedTokens, named: &FuzzedTokens, header: &[u8], claims: &[u8]) -> String {
    let header = match std::str::from_utf8(header) {
        Ok(text) => text.replace("$kid", &named.key_id()).into_bytes(),
        Err(_) => header.to_vec(),
    };
    signer.sign(&header, claims).expect("a signature")
}

/// Runs the target on one input.
pub fn run(bytes: &[u8]) {
    let world = world();
    let mut input = Input::new(bytes);
    match input.byte() % 5 {
        0 => {
            let text = String::from_utf8_lossy(input.all());
            assert!(!world.own.accepts(&text), "{text:?}");
        }
        1 => {
            let changed = changed(&world.valid, input);
            let accepted = world.own.accepts(&changed);
            assert_eq!(accepted, changed == world.valid, "{changed:?}");
        }
        4 => {
            let (keys, token) = lines(input.all());
            let token = String::from_utf8_lossy(token.unwrap_or_default());
            let accepted = key_set_accepts(keys, &token, "https://i", "a");
            assert!(!accepted, "{token:?}");
        }
        kind => {
            let (header, claims) = lines(input.all());
            let claims = claims.unwrap_or(CLAIMS);
            let signer = if kind == 2 {
                &world.own
            } else {
                &world.foreign
            };
            let token = sign(signer, &world.own, header, claims);
            let accepted = world.own.accepts(&token);
            assert!(!accepted || kind == 2, "{token}");
        }
    }
}

/// Returns the first line, and what follows it.
fn lines(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

/// Changes characters of a token: each change is a place, what to do there, and a character.
fn changed(token: &str, mut input: Input<'_>) -> String {
    let mut bytes = token.as_bytes().to_vec();
    while !input.is_empty() && !bytes.is_empty() {
        let (place, what, byte) = (usize::from(input.word()), input.byte(), input.byte());
        let place = place % bytes.len();
        match what % 4 {
            0 => bytes[place] = byte,
            1 => bytes.insert(place, byte),
            2 => drop(bytes.remove(place)),
            _ => bytes.truncate(place),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
