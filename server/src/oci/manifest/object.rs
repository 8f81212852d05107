//! Strict readers of JSON: they reject what two parsers of manifests may read differently.
//!
//! Owns: [`Object`] and the other readers that a manifest's fields are made of.
//! Refuses: a key twice in one object, and a known field's key in another spelling. Go's `encoding/json`, by which most
//! clients read manifests, treats keys that are equal under Unicode case folding as the same field. There the last
//! value wins, and repeated lists and objects are merged; other parsers do neither. Also rejected are objects written
//! as lists of their values, and values of another type than Go requires for a known field. `null` is read as in Go: as
//! a missing field.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tonnage_engine::limits::MANIFEST_CHILDREN_MAX;

/// A type that is read from the known fields of an object.
pub(super) trait Fields<'de>: Default {
    /// The names of the fields.
    const KNOWN: &'static [&'static str];

    /// Reads the value of one field.
    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads a `T` from an object.
pub(super) struct Object<T>(PhantomData<T>);

/// Reads what `S` reads, or nothing from `null`.
#[derive(Clone, Copy)]
pub(super) struct Nullable<S>(pub(super) S);

/// Reads a list of what `S` reads.
#[derive(Clone, Copy)]
pub(super) struct List<S>(pub(super) S);

/// Reads an object with arbitrary keys whose values are strings.
#[derive(Clone, Copy)]
pub(super) struct Texts;

/// Reads a string, borrowed from the input if it has no escapes.
#[derive(Clone, Copy)]
pub(super) struct Text;

/// Skips the value of an unknown field.
#[derive(Clone, Copy)]
struct Unknown;

impl<T> Clone for Object<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Object<T> {}

impl<T> Object<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

/// Number of keys that are looked up one by one; further ones are looked up by hash.
const FEW: usize = 16;

/// The keys of one object so far.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    fn add<E: Error>(&mut self, key: Cow<'de, str>) -> Result<(), E> {
        if self.few.contains(&key) || self.many.contains(&key) {
            return Err(repeated(&key));
        }
        if self.few.len() < FEW {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        Ok(())
    }
}

fn repeated<E: Error>(key: &str) -> E {
    E::custom(format_args!("key {key:?} is repeated"))
}

/// Returns whether Go reads `key` as the field `known`, which is ASCII. Go uses Unicode's simple case folding, in which
/// two characters outside ASCII equal ASCII letters.
fn folds_to(key: &str, known: &str) -> bool {
    let folded = key.chars().map(|char| match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(known.chars().map(|char| char.to_ascii_lowercase()))
}

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Object<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<T, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut value, mut keys) = (T::default(), Keys::default());
        while let Some(key) = map.next_key_seed(Text)? {
            keys.add(key.clone())?;
            if T::KNOWN.contains(&&*key) {
                value.read(&key, &mut map)?;
            } else if let Some(known) = T::KNOWN.iter().find(|known| folds_to(&key, known)) {
                return Err(A::Error::custom(format_args!(
                    "key {key:?} differs from {known:?} only in case, and some parsers treat them as equal"
                )));
            } else {
                map.next_value_seed(Unknown)?;
            }
        }
        Ok(value)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nullable<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Nullable<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(reader).map(Some)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for List<S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for List<S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.0)? {
            // Checked before more entries are in memory, where each takes many times its bytes.
            if values.len() >= MANIFEST_CHILDREN_MAX {
                return Err(A::Error::custom(format_args!(
                    "a list has more than {MANIFEST_CHILDREN_MAX} entries"
                )));
            }
            values.push(value);
        }
        Ok(values)
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = BTreeMap<Cow<'de, str>, Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = BTreeMap<Cow<'de, str>, Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((key, text)) = map.next_entry_seed(Text, Text)? {
            match texts.entry(key) {
                Entry::Vacant(new) => drop(new.insert(text)),
                Entry::Occupied(known) => return Err(repeated(known.key())),
            }
        }
        Ok(texts)
    }
}

impl<'de> DeserializeSeed<'de> for Unknown {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unknown {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = map.next_key_seed(Text)? {
            keys.add(key)?;
            map.next_value_seed(self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
