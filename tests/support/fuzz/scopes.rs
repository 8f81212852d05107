//! Fuzz target for scopes: those that clients ask tokens for, and those of API keys.
//!
//! The input: who may do what (one byte), then the text of a scope. Checked: an accepted scope prints as a text that is
//! the same scope, and what is granted is a part of what was asked for and of what may be done.

use tonnage_server::access::{KeyScope, Scope};
use tonnage_server::fuzz_entry::granted;

use super::input::Input;

/// Runs the target on one scope.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rights = input.byte();
    let Ok(text) = std::str::from_utf8(input.all()) else {
        return;
    };
    if let Ok(scope) = text.parse::<KeyScope>() {
        assert_eq!(scope.to_string(), text);
    }
    let Ok(scope) = text.parse::<Scope>() else {
        return;
    };
    let printed = scope.to_string();
    assert!(printed.len() <= text.len());
    assert_eq!(printed.parse::<Scope>().as_ref(), Ok(&scope));
    let may = [1, 2, 4, 8].map(|bit| rights & bit != 0);
    let Some(given) = granted(scope.clone(), may) else {
        return;
    };
    assert_eq!((&given.kind, &given.name), (&scope.kind, &scope.name));
    assert!(!given.actions.is_empty() && given.actions.len() <= 3);
    let all = scope.actions.iter().any(|action| action == "*");
    for action in &given.actions {
        assert!(
            all || scope.actions.contains(action),
            "{action} of {text:?}"
        );
        let [pull, push, delete, list] = may;
        let may = match &**action {
            "pull" => pull,
            "push" => push,
            "delete" => delete,
            "*" => list && text.starts_with("registry") && given.name == "catalog",
            other => panic!("{other} is granted of {text:?}"),
        };
        assert!(may, "{action} of {text:?} is granted");
    }
}
