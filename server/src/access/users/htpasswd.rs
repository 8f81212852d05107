//! Files of Apache's `htpasswd`, with bcrypt only.
//!
//! Owns: their format. A line that cannot be used is an error, which names the line and never its content.

use super::{ByName, UserEntry, UserName};

/// Parses the content of a file.
pub(super) fn parse(text: &str) -> Result<ByName, String> {
    let mut users = ByName::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line
            .split_once(':')
            .ok_or_else(|| format!("line {number} is not NAME:HASH"))?;
        let name: UserName = name.parse().map_err(|_invalid| {
            format!(
                "line {number} has a name that is not allowed; names are letters, digits and ._@+-"
            )
        })?;
        let entry = UserEntry::new(None, hash, false).map_err(|why| {
            format!("line {number}, user {name}: {why}; make it with: htpasswd -B")
        })?;
        if users.insert(name.to_string(), entry).is_some() {
            return Err(format!("line {number}: user {name} is there twice"));
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuO7pWD2eR6GkQk8r9K3Z5l0hJ0J5oT0y";

    /// Guards: only bcrypt is accepted, and an error names the line without its content.
    #[test]
    fn only_bcrypt_is_accepted() {
        let users = parse(&format!("# users\n\nalice:{HASH}\n bob:{HASH} \n")).unwrap();
        assert_eq!(
            users.keys().map(String::as_str).collect::<Vec<_>>(),
            ["alice", "bob"]
        );
        for (line, expected) in [
            ("alice", "line 2 is not"),
            ("al ice:x", "line 2 has a name"),
            ("alice:{SHA}hunter2", "line 2, user alice"),
            ("alice:$apr1$hunter2", "line 2, user alice"),
            ("alice:hunter2", "line 2, user alice"),
            (
                "alice:$2y$31$abcdefghijklmnopqrstuuO7pWD2eR6GkQk8r9K3Z5l0hJ0J5oT0y",
                "cost",
            ),
        ] {
            let error = parse(&format!("\n{line}")).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("hunter2"),
                "{error}"
            );
        }
        let twice = parse(&format!("a:{HASH}\na:{HASH}")).unwrap_err();
        assert!(twice.contains("line 2") && twice.contains("twice"));
    }
}
