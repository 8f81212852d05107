//! A second reader of manifests, independent of the registry: what Go's `encoding/json` reads.
//!
//! Owns: [`Value`], JSON as it is written, and [`Reading`], the values of Go's image-spec types after decoding. Keys
//! match exactly or under simple case folding, the last duplicate counts, `null` leaves a field unchanged. Refuses:
//! details of syntax errors; only documents that the registry accepted are read.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// JSON with every key, in order.
#[derive(Debug)]
pub enum Value<'a> {
    Null,
    Bool,
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// A manifest as a Go client reads it.
#[derive(Debug, Default)]
pub struct Reading<'a> {
    pub schema_version: i64,
    pub media_type: &'a str,
    pub artifact_type: &'a str,
    /// Media type and digest of each child.
    pub config: Option<(&'a str, &'a str)>,
    pub layers: Vec<(&'a str, &'a str)>,
    pub blobs: Vec<(&'a str, &'a str)>,
    pub manifests: Vec<(&'a str, &'a str)>,
    pub subject: Option<(&'a str, &'a str)>,
    pub annotations: BTreeMap<&'a str, &'a str>,
}

/// The error of a document that Go rejects.
#[derive(Debug)]
pub struct Refused;

impl<'a> Value<'a> {
    /// Parses a document that is one value.
    pub fn parse(text: &'a str) -> Result<Self, Refused> {
        let mut rest = text;
        let value = value(&mut rest)?;
        space(&mut rest);
        if rest.is_empty() {
            Ok(value)
        } else {
            Err(Refused)
        }
    }

    fn field(&self, name: &str) -> Result<Option<&Self>, Refused> {
        let Self::Object(fields) = self else {
            return Err(Refused);
        };
        let same = |key: &str| key == name || folded(key) == folded(name);
        let found = fields.iter().rev().find(|(key, _)| same(key));
        Ok(found
            .map(|(_, value)| value)
            .filter(|value| !matches!(value, Self::Null)))
    }

    fn text(&self, name: &str) -> Result<&str, Refused> {
        match self.field(name)? {
            None => Ok(""),
            Some(Self::Text(text)) => Ok(text),
            Some(_) => Err(Refused),
        }
    }

    fn number(&self, name: &str) -> Result<i64, Refused> {
        match self.field(name)? {
            None => Ok(0),
            Some(Self::Number(number)) => number.parse().map_err(|_| Refused),
            Some(_) => Err(Refused),
        }
    }

    fn list(&self, name: &str) -> Result<&[Value<'a>], Refused> {
        match self.field(name)? {
            None => Ok(&[]),
            Some(Self::List(values)) => Ok(values),
            Some(_) => Err(Refused),
        }
    }

    fn texts(&self, name: &str) -> Result<BTreeMap<&str, &str>, Refused> {
        let entries = match self.field(name)? {
            None => return Ok(BTreeMap::new()),
            Some(Self::Object(entries)) => entries,
            Some(_) => return Err(Refused),
        };
        let mut texts = BTreeMap::new();
        for (key, value) in entries {
            let text = match value {
                Self::Text(text) => text,
                Self::Null => "",
                _ => return Err(Refused),
            };
            texts.insert(&**key, text);
        }
        Ok(texts)
    }

    fn list_of_texts(&self, name: &str) -> Result<(), Refused> {
        let all = self.list(name)?.iter();
        let mut wrong = all.filter(|value| !matches!(value, Self::Text(_) | Self::Null));
        wrong.next().map_or(Ok(()), |_| Err(Refused))
    }

    fn descriptor(&self) -> Result<(&str, &str), Refused> {
        self.number("size")?;
        self.list_of_texts("urls")?;
        self.texts("annotations")?;
        self.text("data")?;
        self.text("artifactType")?;
        if let Some(platform) = self.field("platform")? {
            for name in ["architecture", "os", "os.version", "variant"] {
                platform.text(name)?;
            }
            platform.list_of_texts("os.features")?;
            platform.list_of_texts("features")?;
        }
        Ok((self.text("mediaType")?, self.text("digest")?))
    }

    fn descriptors(&self, name: &str) -> Result<Vec<(&str, &str)>, Refused> {
        self.list(name)?.iter().map(Self::descriptor).collect()
    }

    /// Decodes the value into Go's types.
    pub fn manifest(&self) -> Result<Reading<'_>, Refused> {
        let one = |name| self.field(name)?.map(Self::descriptor).transpose();
        Ok(Reading {
            schema_version: self.number("schemaVersion")?,
            media_type: self.text("mediaType")?,
            artifact_type: self.text("artifactType")?,
            config: one("config")?,
            layers: self.descriptors("layers")?,
            blobs: self.descriptors("blobs")?,
            manifests: self.descriptors("manifests")?,
            subject: one("subject")?,
            annotations: self.texts("annotations")?,
        })
    }
}

/// Returns the least of the characters to which `unicode.SimpleFold` leads, for keys that fold to ASCII.
fn folded(key: &str) -> String {
    let fold = |char| match char {
        'a'..='z' => char.to_ascii_uppercase(),
        'ſ' => 'S',
        '\u{212a}' => 'K',
        other => other,
    };
    key.chars().map(fold).collect()
}

fn space(rest: &mut &str) {
    *rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
}

/// Removes `token` from the front of `rest`. Returns whether it was there.
fn token(rest: &mut &str, token: &str) -> bool {
    let after = rest.strip_prefix(token);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

fn value<'a>(rest: &mut &'a str) -> Result<Value<'a>, Refused> {
    space(rest);
    if rest.starts_with('"') {
        return text(rest).map(Value::Text);
    }
    if token(rest, "{") {
        let field = |rest: &mut &'a str| {
            space(rest);
            let key = text(rest)?;
            space(rest);
            if token(rest, ":") {
                Ok((key, value(rest)?))
            } else {
                Err(Refused)
            }
        };
        return items(rest, "}", field).map(Value::Object);
    }
    if token(rest, "[") {
        return items(rest, "]", value).map(Value::List);
    }
    if token(rest, "null") {
        return Ok(Value::Null);
    }
    if token(rest, "true") || token(rest, "false") {
        return Ok(Value::Bool);
    }
    let end = rest.find(|char: char| !char.is_ascii_digit() && !"+-.eE".contains(char));
    let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = after;
    if number.is_empty() {
        Err(Refused)
    } else {
        Ok(Value::Number(number))
    }
}

fn items<'a, T>(
    rest: &mut &'a str,
    end: &str,
    item: impl Fn(&mut &'a str) -> Result<T, Refused>,
) -> Result<Vec<T>, Refused> {
    let mut items = Vec::new();
    space(rest);
    if token(rest, end) {
        return Ok(items);
    }
    loop {
        items.push(item(rest)?);
        space(rest);
        if token(rest, end) {
            return Ok(items);
        }
        if !token(rest, ",") {
            return Err(Refused);
        }
    }
}

fn text<'a>(rest: &mut &'a str) -> Result<Cow<'a, str>, Refused> {
    let start = rest.strip_prefix('"').ok_or(Refused)?;
    let plain = start.find(['"', '\\']).ok_or(Refused)?;
    if start[plain..].starts_with('"') {
        *rest = &start[plain + 1..];
        return Ok(Cow::Borrowed(&start[..plain]));
    }
    let mut units: Vec<u16> = Vec::new();
    let mut chars = start.chars();
    loop {
        match chars.next().ok_or(Refused)? {
            '"' => break,
            '\\' => units.push(match chars.next().ok_or(Refused)? {
                'u' => {
                    let hex = chars.as_str().get(..4).ok_or(Refused)?;
                    chars = chars.as_str()[4..].chars();
                    u16::from_str_radix(hex, 16).map_err(|_| Refused)?
                }
                'b' => 8,
                'f' => 12,
                'n' => 10,
                'r' => 13,
                't' => 9,
                same => u16::try_from(u32::from(same)).map_err(|_| Refused)?,
            }),
            char => units.extend_from_slice(char.encode_utf16(&mut [0; 2])),
        }
    }
    *rest = chars.as_str();
    Ok(Cow::Owned(String::from_utf16_lossy(&units)))
}
