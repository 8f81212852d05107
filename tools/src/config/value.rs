//! Values of options: what may be typed, and what it turns into.
//!
//! Owns: [`Kind`] (the grammar of an option), [`Typed`] (what somebody wrote) and [`Value`] (what it is).
//! Refuses: guessing; a value that is not of its kind is a mistake that says what to write instead.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tonnage_server::oci::RepositoryPattern;
use tonnage_server::{Hostname, Locations};

use crate::units;

/// What the values of an option look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A path.
    Path,
    /// An IP address and a port.
    Address,
    /// An IP address and a port, or `off`.
    AddressOrOff,
    /// Bytes.
    Size {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A span of time.
    Duration {
        /// Least, in milliseconds.
        min_ms: u64,
        /// Most, in milliseconds.
        max_ms: u64,
    },
    /// A whole number.
    Count {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A number of threads, or `auto`.
    Threads,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// How locations are written: `relative`, `request`, or a URL.
    Locations,
    /// Any number of entries: an array in the file, elsewhere separated by commas.
    List(Entry),
}

/// What the entries of a list look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    /// Repositories.
    Repository,
    /// Registries as clients name them.
    Registry,
    /// Hosts under which clients reach the registry.
    Hostname,
}

/// A list without entries, where no array can say so.
const NONE: &str = "none";

/// A value as it was written, before anybody asked what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A flag, a variable, or a string in the file.
    Text(String),
    /// An integer in the file.
    Integer(String),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// An array of strings in the file.
    List(Vec<String>),
    /// Something no option takes, by its TOML name.
    Other(&'static str),
}

/// A value that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Of [`Kind::Path`].
    Path(PathBuf),
    /// Of [`Kind::Address`] and [`Kind::AddressOrOff`].
    Address(SocketAddr),
    /// `off`.
    Off,
    /// Bytes.
    Size(u64),
    /// A span of time.
    Duration(Duration),
    /// A number.
    Count(u64),
    /// One of the words of [`Kind::Choice`].
    Choice(&'static str),
    /// `true` or `false`.
    Switch(bool),
    /// Of [`Kind::Locations`].
    Text(String),
    /// Of [`Kind::List`].
    List(Vec<String>),
}

impl Entry {
    fn check(self, entry: &str) -> Result<(), String> {
        match self {
            Self::Repository => match entry.parse::<RepositoryPattern>() {
                Ok(_) => Ok(()),
                Err(why) => Err(why.to_string()),
            },
            Self::Hostname => match entry.parse::<Hostname>() {
                Ok(_) => Ok(()),
                Err(why) => Err(format!("\"{entry}\": {why}")),
            },
            Self::Registry => {
                let plain =
                    |letter: char| letter.is_ascii_alphanumeric() || ".-:[]_".contains(letter);
                if (1..=255).contains(&entry.len()) && entry.chars().all(plain) {
                    return Ok(());
                }
                Err(format!(
                    "\"{entry}\" is no registry: write its host as clients do, such as docker.io or registry.example:5000"
                ))
            }
        }
    }
}

impl Kind {
    /// Understands what was written in a file, where TOML's types count.
    pub(crate) fn understand(&self, typed: &Typed) -> Result<Value, String> {
        match (typed, self) {
            (Typed::Text(_), Self::Switch | Self::Count { .. }) => {
                Err(format!("{} goes without quotes", self.expects()))
            }
            (Typed::Text(text), Self::List(_)) => {
                Err(format!("\"{text}\" is not {}", self.expects()))
            }
            (Typed::Text(text), _) => self.parse(text),
            (Typed::Integer(digits), Self::Size { .. } | Self::Count { .. } | Self::Threads) => {
                self.parse(digits)
            }
            (Typed::Boolean(value), Self::Switch) => Ok(Value::Switch(*value)),
            (Typed::List(entries), Self::List(of)) => list(entries.iter().map(String::as_str), *of),
            (Typed::List(_), _) => Err(format!("this is a TOML array, not {}", self.expects())),
            (Typed::Integer(found), _) => Err(format!("{found} is not {}", self.expects())),
            (Typed::Boolean(found), _) => Err(format!("{found} is not {}", self.expects())),
            (Typed::Other(found), _) => {
                Err(format!("this is a TOML {found}, not {}", self.expects()))
            }
        }
    }

    /// Understands the text of a flag, a variable or a default.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        let wrong = || format!("\"{text}\" is not {}", self.expects());
        match *self {
            Self::Path if text.is_empty() => Err("the path is empty".to_owned()),
            Self::Path => Ok(Value::Path(PathBuf::from(text))),
            Self::AddressOrOff if text == "off" => Ok(Value::Off),
            Self::Address | Self::AddressOrOff => {
                text.parse().map(Value::Address).ok().ok_or_else(wrong)
            }
            Self::Size { min, max } => {
                let show = |bytes| units::format_size(bytes);
                within(units::parse_size(text)?, min, max, show).map(Value::Size)
            }
            Self::Duration { min_ms, max_ms } => {
                let show = |ms| units::format_duration(Duration::from_millis(ms));
                let found = units::parse_duration(text)?;
                let found_ms = u64::try_from(found.as_millis()).unwrap_or(u64::MAX);
                within(found_ms, min_ms, max_ms, show).map(|_| Value::Duration(found))
            }
            Self::Count { min, max } => {
                let found = text.parse().ok().ok_or_else(wrong)?;
                within(found, min, max, |n| n.to_string()).map(Value::Count)
            }
            Self::Threads if text == "auto" => Ok(Value::Count(
                std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            )),
            Self::Threads => {
                let found = text.parse().ok().ok_or_else(wrong)?;
                within(found, 1, 1024, |n| n.to_string()).map(Value::Count)
            }
            Self::Choice(words) => words
                .iter()
                .find(|word| **word == text)
                .map(|word| Value::Choice(word))
                .ok_or_else(wrong),
            Self::Locations => match text.parse::<Locations>() {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(_) => Err(wrong()),
            },
            Self::Switch => text.parse().map(Value::Switch).ok().ok_or_else(wrong),
            Self::List(_) if text == NONE || text.is_empty() => Ok(Value::List(Vec::new())),
            Self::List(of) => list(text.split(',').map(str::trim), of),
        }
    }

    /// What to write, as a noun phrase.
    pub(crate) fn expects(&self) -> String {
        match self {
            Self::Path => "a path".to_owned(),
            Self::Address => {
                "an IP address with a port, such as 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000"
                    .to_owned()
            }
            Self::AddressOrOff => {
                "off, or an IP address with a port, such as 127.0.0.1:5001".to_owned()
            }
            Self::Size { .. } => "a size, such as \"8 MiB\"".to_owned(),
            Self::Duration { .. } => "a duration with its unit, such as \"30s\"".to_owned(),
            Self::Count { .. } => "a whole number".to_owned(),
            Self::Threads => "a number of threads, or \"auto\"".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Switch => "true or false".to_owned(),
            Self::List(Entry::Repository) => {
                "a list of repositories: in a file [\"team/app\", \"mirror/*\"], elsewhere team/app,mirror/*"
                    .to_owned()
            }
            Self::Locations => {
                "relative, request, or a URL without a path, such as https://registry.example".to_owned()
            }
            Self::List(Entry::Hostname) => {
                "a list of hosts without ports: in a file [\"registry.example\"], elsewhere registry.example,10.0.0.7"
                    .to_owned()
            }
            Self::List(Entry::Registry) => {
                "a list of registries: in a file [\"docker.io\"], elsewhere docker.io,quay.io".to_owned()
            }
        }
    }

    /// What stands for the value in `--help`.
    pub(crate) fn placeholder(&self) -> &'static str {
        match self {
            Self::Path => "DIR",
            Self::Address | Self::AddressOrOff => "ADDR",
            Self::Size { .. } => "SIZE",
            Self::Duration { .. } => "TIME",
            Self::Count { .. } | Self::Threads => "N",
            Self::Choice(_) | Self::Locations => "WORD",
            Self::Switch => "BOOL",
            Self::List(_) => "LIST",
        }
    }
}

fn list<'a>(entries: impl Iterator<Item = &'a str>, of: Entry) -> Result<Value, String> {
    let checked = entries.map(|entry| of.check(entry).map(|()| entry.to_owned()));
    checked.collect::<Result<_, _>>().map(Value::List)
}

fn within(found: u64, min: u64, max: u64, show: impl Fn(u64) -> String) -> Result<u64, String> {
    if found < min {
        return Err(format!(
            "{} is less than the least that works, {}",
            show(found),
            show(min)
        ));
    }
    if found > max {
        return Err(format!(
            "{} is more than the most that works, {}",
            show(found),
            show(max)
        ));
    }
    Ok(found)
}

impl Value {
    /// The value as it could be typed.
    pub(crate) fn show(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Address(address) => address.to_string(),
            Self::Off => "off".to_owned(),
            Self::Size(bytes) => units::format_size(*bytes),
            Self::Duration(duration) => units::format_duration(*duration),
            Self::Count(count) => count.to_string(),
            Self::Choice(word) => (*word).to_owned(),
            Self::Switch(on) => on.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(entries) if entries.is_empty() => NONE.to_owned(),
            Self::List(entries) => entries.join(","),
        }
    }

    /// The value for a program: sizes in bytes, durations in milliseconds.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Size(number) | Self::Count(number) => (*number).into(),
            Self::Duration(duration) => u64::try_from(duration.as_millis())
                .unwrap_or(u64::MAX)
                .into(),
            Self::Switch(on) => (*on).into(),
            Self::List(entries) => entries.clone().into(),
            Self::Path(_) | Self::Address(_) | Self::Off | Self::Choice(_) | Self::Text(_) => {
                self.show().into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: bounds are inclusive, and what is beyond them says which bound it crossed.
    #[test]
    fn bounds_are_inclusive_and_named() {
        let kind = Kind::Size {
            min: 1024,
            max: 2048,
        };
        assert_eq!(kind.parse("1 KiB"), Ok(Value::Size(1024)));
        assert_eq!(kind.parse("2 KiB"), Ok(Value::Size(2048)));
        assert!(kind.parse("1023").unwrap_err().contains("1 KiB"));
        assert!(kind.parse("2049").unwrap_err().contains("2 KiB"));
    }

    /// Guards: TOML's types count in a file: no number in quotes, no bare number for a duration.
    #[test]
    fn the_type_in_the_file_counts() {
        let text = |t: &str| Typed::Text(t.to_owned());
        let number = Typed::Integer("30".to_owned());
        let duration = Kind::Duration {
            min_ms: 0,
            max_ms: u64::MAX,
        };
        assert!(duration.understand(&number).unwrap_err().contains("unit"));
        assert!(duration.understand(&text("30s")).is_ok());
        assert!(
            Kind::Switch
                .understand(&text("true"))
                .unwrap_err()
                .contains("quotes")
        );
        assert!(Kind::Address.understand(&number).is_err());
        assert!(
            Kind::Path
                .understand(&Typed::Other("array"))
                .unwrap_err()
                .contains("array")
        );
    }

    /// Guards: a list is an array in a file and separated by commas elsewhere, none is a list too, and one wrong entry is named.
    #[test]
    fn lists_are_checked_entry_by_entry() {
        let kind = Kind::List(Entry::Repository);
        let list = |entries: &[&str]| {
            Value::List(entries.iter().map(|entry| (*entry).to_owned()).collect())
        };
        assert_eq!(kind.parse("a/b, mirror/*"), Ok(list(&["a/b", "mirror/*"])));
        for none in ["none", ""] {
            assert_eq!(kind.parse(none), Ok(list(&[])));
        }
        assert_eq!(list(&[]).show(), "none");
        assert_eq!(list(&["a", "b/*"]).show(), "a,b/*");
        let array = |entries: &[&str]| {
            Typed::List(entries.iter().map(|entry| (*entry).to_owned()).collect())
        };
        assert_eq!(
            kind.understand(&array(&["none", "*"])),
            Ok(list(&["none", "*"]))
        );
        assert_eq!(kind.understand(&array(&[])), Ok(list(&[])));
        for wrong in ["a,,b", "A", "a/**"] {
            assert!(kind.parse(wrong).unwrap_err().contains("team/*"), "{wrong}");
        }
        assert!(
            kind.understand(&array(&["a", "B"]))
                .unwrap_err()
                .contains("\"B\"")
        );
        assert!(
            kind.understand(&Typed::Text("a".to_owned()))
                .unwrap_err()
                .contains("[\"team/app\"")
        );
        assert!(Kind::Path.understand(&array(&["a"])).is_err());
        let registries = Kind::List(Entry::Registry);
        assert!(
            registries
                .parse("docker.io,[::1]:5000,localhost:5000")
                .is_ok()
        );
        for wrong in ["https://docker.io", "docker.io/library", "a b", "a,,b"] {
            assert!(
                registries.parse(wrong).unwrap_err().contains("docker.io"),
                "{wrong}"
            );
        }
    }

    /// Guards: an address is never looked up in DNS and never lacks its port.
    #[test]
    fn an_address_is_an_ip_address_and_a_port() {
        assert!(Kind::Address.parse("[::1]:5000").is_ok());
        for wrong in ["localhost:5000", ":5000", "127.0.0.1", "off", ""] {
            assert!(
                Kind::Address
                    .parse(wrong)
                    .unwrap_err()
                    .contains("127.0.0.1:5000"),
                "{wrong}"
            );
        }
        assert_eq!(Kind::AddressOrOff.parse("off"), Ok(Value::Off));
    }
}
