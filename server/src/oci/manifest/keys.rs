//! The check for repeated keys, which JSON readers resolve in different ways.
//!
//! Owns: one pass over a document that keeps only the keys of the objects it is inside of.
//! Refuses: a key twice in one object; and in any object a known field in another case (Go's reader ignores case), so
//! that `Layers` beside `layers` is never taken for an unknown field.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Fields that we or any client act upon.
const KNOWN: [&str; 14] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "blobs",
    "subject",
    "annotations",
    "digest",
    "size",
    "urls",
    "data",
    "platform",
];

/// Whether `bytes` is exactly one JSON document, an object, without ambiguous keys.
pub(super) fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Walk {
        free_keys: false,
        top: true,
    }
    .deserialize(&mut reader)?;
    reader.end()
}

#[derive(Clone, Copy)]
struct Walk {
    /// Inside `annotations`, whose keys are the user's.
    free_keys: bool,
    top: bool,
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.top {
            reader.deserialize_map(self)
        } else {
            reader.deserialize_any(self)
        }
    }
}

/// A key, borrowed from the input where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let disguised = |known: &&str| key.eq_ignore_ascii_case(known) && key != **known;
            if !self.free_keys && KNOWN.iter().any(disguised) {
                return Err(A::Error::custom(format_args!(
                    "key {key:?} differs only in case from a known one"
                )));
            }
            let free_keys = key == "annotations";
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("key {key:?} is repeated")));
            }
            map.next_value_seed(Self {
                free_keys,
                top: false,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list
            .next_element_seed(Self {
                free_keys: false,
                top: false,
            })?
            .is_some()
        {}
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
