//! Kinds of option values, with their parsers and formats.
//!
//! Owns: [`Kind`], and one function for each kind there is.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use tonnage_server::oci::RepositoryPattern;
use tonnage_server::tls::NameKind;
use tonnage_server::{Host, Hostname, Locations};

use crate::config::untagged::UntaggedRule;
use crate::units::{format_duration, format_size, parse_duration, parse_size};

/// The syntax of values, for `--help` and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A directory.
    Path,
    File,
    Address,
    Word,
    Switch,
    Number,
    Size,
    Duration,
    /// An array in the file, elsewhere separated by commas.
    List,
}

/// Most hosts of one certificate: Let's Encrypt issues none for more.
const CERTIFIED_HOSTS_MAX: usize = 100;

/// Reads a value from its text.
type Parse<T> = Box<dyn Fn(&str) -> Result<T, String>>;

/// The parser, the format and the limits of one option's values.
pub(crate) struct Kind<T> {
    /// Their syntax.
    pub(crate) form: Form,
    /// Parses a value. The error says what is wrong and what to write.
    pub(crate) parse: Parse<T>,
    /// Formats a value as it could be typed.
    pub(crate) show: fn(&T) -> String,
    /// Minimum and maximum, if there are any.
    pub(crate) range: Option<[String; 2]>,
    /// Whether values are never shown.
    pub(crate) is_secret: bool,
}

impl<T: 'static> Kind<T> {
    fn new(
        form: Form,
        parse: impl Fn(&str) -> Result<T, String> + 'static,
        show: fn(&T) -> String,
    ) -> Self {
        Self {
            form,
            parse: Box::new(parse),
            show,
            range: None,
            is_secret: false,
        }
    }

    /// Creates a kind from `FromStr` and `Display` of its type.
    fn text(form: Form, expected: &'static str) -> Self
    where
        T: FromStr + Display,
    {
        Self::new(form, move |text| parse(text, expected), T::to_string)
    }

    /// Adds a minimum and a maximum.
    fn within(self, range: RangeInclusive<T>) -> Self
    where
        T: PartialOrd,
    {
        let show = self.show;
        let [min, max] = [range.start(), range.end()].map(show);
        let shown = Some([min.clone(), max.clone()]);
        let check = move |text: &str| {
            let value = (self.parse)(text)?;
            if value < *range.start() {
                return Err(format!("{} is below the minimum of {min}", show(&value)));
            }
            if value > *range.end() {
                return Err(format!("{} is above the maximum of {max}", show(&value)));
            }
            Ok(value)
        };
        Self {
            range: shown,
            ..Self::new(self.form, check, show)
        }
    }
}

fn parse<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().ok().ok_or_else(|| invalid(text, expected))
}

/// Describes an invalid value. What precedes an @ is not quoted, because it may be a password.
fn invalid(text: &str, expected: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("invalid value `...@{rest}`; write {expected}"),
        None => format!("invalid value `{text}`; write {expected}"),
    }
}

/// Returns the kind of paths.
pub(crate) fn path() -> Kind<PathBuf> {
    let parse = |text: &str| match text {
        "" => Err(invalid(text, "a path")),
        _ => Ok(PathBuf::from(text)),
    };
    Kind::new(Form::Path, parse, |path| path.display().to_string())
}

/// Returns the kind of files that may be absent.
pub(crate) fn file_or_none() -> Kind<Option<PathBuf>> {
    let parse = |text: &str| match text {
        "" => Err(invalid(text, "the path of a file, or none")),
        "none" => Ok(None),
        _ => Ok(Some(PathBuf::from(text))),
    };
    let show = |path: &Option<PathBuf>| match path {
        None => "none".to_owned(),
        Some(path) => path.display().to_string(),
    };
    Kind::new(Form::File, parse, show)
}

/// Returns the kind of IP addresses with a port. Names are never resolved.
pub(crate) fn address() -> Kind<SocketAddr> {
    Kind::text(
        Form::Address,
        "an IP address and a port, such as 127.0.0.1:5000 or [::]:5000",
    )
}

/// Returns the kind of [`address`], or `off`.
pub(crate) fn address_or_off() -> Kind<Option<SocketAddr>> {
    let parse = |text: &str| match text {
        "off" => Ok(None),
        _ => parse(
            text,
            "off, or an IP address and a port, such as 127.0.0.1:5001",
        )
        .map(Some),
    };
    let show = |address: &Option<SocketAddr>| address.map_or("off".to_owned(), |at| at.to_string());
    Kind::new(Form::Address, parse, show)
}

/// Returns the kind of `true` and `false`.
pub(crate) fn switch() -> Kind<bool> {
    Kind::text(Form::Switch, "true or false")
}

/// Returns the kind of whole numbers.
pub(crate) fn count<N>(range: RangeInclusive<N>) -> Kind<N>
where
    N: FromStr + Display + PartialOrd + 'static,
{
    Kind::text(Form::Number, "a whole number").within(range)
}

/// Returns the kind of numbers of threads, or `auto` for one on each core.
pub(crate) fn threads() -> Kind<Option<usize>> {
    let parse = |text: &str| match text.parse() {
        _ if text == "auto" => Ok(None),
        Ok(count @ 1..=1024) => Ok(Some(count)),
        _ => Err(invalid(text, "auto, or a number from 1 to 1024")),
    };
    let show =
        |threads: &Option<usize>| threads.map_or("auto".to_owned(), |count| count.to_string());
    Kind::new(Form::Number, parse, show)
}

/// Returns the kind of sizes in bytes.
pub(crate) fn size<N>(range: RangeInclusive<u64>) -> Kind<N>
where
    N: Copy + TryFrom<u64> + TryInto<u64> + 'static,
{
    let bytes = Kind::new(Form::Size, parse_size, |bytes| format_size(*bytes)).within(range);
    let parse = move |text: &str| {
        let size = N::try_from((bytes.parse)(text)?).ok();
        size.ok_or_else(|| format!("{text} exceeds the largest number of this machine"))
    };
    Kind {
        range: bytes.range,
        ..Kind::new(Form::Size, parse, |size| {
            format_size((*size).try_into().unwrap_or(u64::MAX))
        })
    }
}

/// Returns the kind of sizes in bytes, or `auto`.
pub(crate) fn size_or_auto(range: RangeInclusive<u64>) -> Kind<Option<u64>> {
    let Kind { parse, range, .. } = size::<u64>(range);
    let parse = move |text: &str| match text {
        "auto" => Ok(None),
        _ => parse(text).map(Some),
    };
    Kind {
        range,
        ..Kind::new(Form::Size, parse, |size| {
            size.map_or("auto".to_owned(), format_size)
        })
    }
}

/// Returns the kind of durations.
pub(crate) fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let kind = Kind::new(Form::Duration, parse_duration, |duration| {
        format_duration(*duration)
    });
    kind.within(range)
}

/// Returns the kind of one of these words.
pub(crate) fn word(words: &'static [&'static str]) -> Kind<&'static str> {
    let parse = |text: &str| {
        let found = words.iter().find(|word| **word == text).copied();
        found.ok_or_else(|| invalid(text, &words.join(" or ")))
    };
    Kind::new(Form::Word, parse, |word| (*word).to_owned())
}

/// Returns the kind of forms of locations.
pub(crate) fn locations() -> Kind<Locations> {
    let expected = "relative, request, or a URL without a path, such as https://registry.example";
    Kind::new(
        Form::Word,
        move |text| parse(text, expected),
        |locations| match locations {
            Locations::Relative => "relative".to_owned(),
            Locations::Request => "request".to_owned(),
            Locations::Base(url) => url.clone(),
        },
    )
}

/// Returns the kind of lists of entries. `none` and the empty text are the empty list.
fn list<T: 'static>(
    entry: impl Fn(&str) -> Result<T, String> + 'static,
    show: fn(&Vec<T>) -> String,
) -> Kind<Vec<T>> {
    let parse = move |text: &str| match text {
        "" | "none" => Ok(Vec::new()),
        _ => text.split(',').map(|text| entry(text.trim())).collect(),
    };
    Kind::new(Form::List, parse, show)
}

fn join(entries: impl Iterator<Item = String>) -> String {
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() {
        return "none".to_owned();
    }
    entries.join(",")
}

/// Returns the kind of lists of repositories.
pub(crate) fn repositories() -> Kind<Vec<RepositoryPattern>> {
    let expected = "a repository such as team/app, team/* for all below it, or * for all";
    let show = |list: &Vec<_>| join(list.iter().map(RepositoryPattern::to_string));
    list(move |text| parse(text, expected), show)
}

/// Returns the kind of lists of rules for untagged manifests.
pub(crate) fn untagged_rules() -> Kind<Vec<UntaggedRule>> {
    let expected = "a repository pattern and a duration or keep, such as ci/*=7d or *=keep";
    let show = |list: &Vec<_>| join(list.iter().map(UntaggedRule::to_string));
    list(move |text| parse(text, expected), show)
}

/// Returns the kind of lists of hosts under which clients reach the registry.
pub(crate) fn hosts() -> Kind<Vec<Hostname>> {
    let expected = "a host without a port, such as registry.example or 10.0.0.7, or * for any";
    let show = |list: &Vec<_>| {
        join(list.iter().map(|host| match host {
            Hostname::Any => "*".to_owned(),
            Hostname::Only(Host::Address(address)) => address.to_string(),
            Hostname::Only(Host::Name(name)) => name.to_string(),
        }))
    };
    list(move |text| parse(text, expected), show)
}

/// Returns the kind of lists of registries, as clients name them.
pub(crate) fn registries() -> Kind<Vec<String>> {
    let expected = "a registry as clients name it, such as docker.io or registry.example:5000";
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-:[]_".contains(letter);
    let entry = move |text: &str| match text.len() {
        1..=255 if text.chars().all(allowed) => Ok(text.to_owned()),
        _ => Err(invalid(text, expected)),
    };
    list(entry, |list| join(list.iter().cloned()))
}

/// Returns the kind of lists of hosts for which an authority issues certificates.
pub(crate) fn certified_hosts() -> Kind<Vec<Host>> {
    let expected =
        "a name or an IP address without a port, such as registry.example or 203.0.113.7";
    let show = |list: &Vec<_>| {
        join(list.iter().map(|host| match host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.to_string(),
        }))
    };
    let list = list(move |text| parse(text, expected), show);
    let parse = move |text: &str| match (list.parse)(text)? {
        hosts if hosts.len() > CERTIFIED_HOSTS_MAX => Err(format!(
            "a certificate is for at most {CERTIFIED_HOSTS_MAX} hosts"
        )),
        hosts => Ok(hosts),
    };
    Kind::new(Form::List, parse, show)
}

/// Returns the kind of addresses that begin with `https://`. They have no user and password, because they are shown.
pub(crate) fn https_url() -> Kind<String> {
    let parse = |text: &str| {
        let is_https = |url: &Uri| {
            let authority = url.authority();
            url.scheme() == Some(&Scheme::HTTPS)
                && authority.is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'))
        };
        let is_url = text.bytes().all(|byte| byte.is_ascii_graphic())
            && text.parse().is_ok_and(|url| is_https(&url));
        let expected = "an address such as https://authority.example/directory";
        is_url
            .then(|| text.to_owned())
            .ok_or_else(|| invalid(text, expected))
    };
    Kind::new(Form::Word, parse, String::clone)
}

/// Returns the kind of addresses of mail that may be absent.
pub(crate) fn mail_or_none() -> Kind<Option<String>> {
    let parse = |text: &str| match text {
        "none" => Ok(None),
        _ if text.len() <= 254
            && text.contains('@')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b',') =>
        {
            Ok(Some(text.to_owned()))
        }
        _ => Err(invalid(
            text,
            "an address such as ops@registry.example, or none",
        )),
    };
    let show = |mail: &Option<String>| mail.clone().unwrap_or_else(|| "none".to_owned());
    Kind::new(Form::Word, parse, show)
}

/// Returns the kind of lists of kinds of names in certificates, which are not empty.
pub(crate) fn name_kinds() -> Kind<Vec<NameKind>> {
    let expected = "uri, dns and cn, in any order, separated by commas";
    let entry = move |text: &str| {
        let found = NameKind::ALL.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, kind)| *kind)
            .ok_or_else(|| invalid(text, expected))
    };
    let show = |list: &Vec<_>| {
        let names = NameKind::ALL.iter();
        join(list.iter().filter_map(|kind| {
            let found = names.clone().find(|(_, known)| known == kind);
            found.map(|(name, _)| (*name).to_owned())
        }))
    };
    let list = list(entry, show);
    let parse = move |text: &str| match (list.parse)(text)? {
        kinds if kinds.is_empty() => Err(invalid(text, expected)),
        kinds => Ok(kinds),
    };
    Kind::new(Form::List, parse, show)
}
