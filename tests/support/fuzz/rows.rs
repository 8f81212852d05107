//! Fuzz target for keys and values of rows, and for what the registry stores with a manifest.
//!
//! The input: which part (one byte), then its bytes. Checked: an accepted part is encoded to the same bytes.

use bytes::Bytes;
use tonnage_engine::format::codec::{Decoder, Encoder};
use tonnage_engine::format::keys::{
    self, DamagedPlace, RepositoryUsage, SegmentUse, Slot, TagValue, digest_after, number_after,
    text_after,
};
use tonnage_engine::format::record::RecordPlaces;
use tonnage_engine::{Algorithm, Digest};
use tonnage_server::fuzz_entry;

use super::input::Input;

/// Runs the target on one part of a row.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let which = input.byte();
    let rest = input.all();
    match which {
        0 => {
            if let Ok(slot) = Slot::decode(rest) {
                assert_eq!(slot.encode(), rest);
                drop(RecordPlaces::of(&slot.extent));
            }
        }
        1 => {
            let digest = Digest::of(Algorithm::Sha256, b"");
            let value = Bytes::copy_from_slice(rest);
            if let Ok(entry) = keys::decode_manifest(digest, &value) {
                assert_eq!(keys::encode_manifest(&entry), rest);
            }
        }
        2 => {
            if let Ok(tag) = TagValue::decode(rest) {
                assert_eq!(tag.encode(), rest);
            }
        }
        3 => {
            if let Ok(used) = SegmentUse::decode(rest) {
                assert_eq!(used.encode(), rest);
            }
        }
        4 => {
            if let Ok(id) = keys::decode_id(rest) {
                assert_eq!(keys::encode_id(id), rest);
            }
        }
        5 => key(rest),
        6 => drop(fuzz_entry::read_attributes(rest)),
        7 => {
            if let Ok(place) = DamagedPlace::decode(rest) {
                assert_eq!(place.encode(), rest);
            }
        }
        8 => {
            if let Ok(usage) = RepositoryUsage::decode(rest) {
                assert_eq!(usage.encode(), rest);
            }
        }
        _ => {}
    }
}

/// Checks a key after a prefix whose length is its first byte, as long as the key or longer.
fn key(rest: &[u8]) {
    let mut input = Input::new(rest);
    let prefix = vec![b'x'; usize::from(input.byte())];
    let key = input.all();
    let behind = key.get(prefix.len()..).unwrap_or_default();
    if let Ok(digest) = digest_after(key, &prefix) {
        let mut out = Encoder::new();
        assert_eq!(out.digest(&digest).finish(), behind);
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        let mut decoder = Decoder::new(behind);
        assert_eq!(decoder.digest(), Ok(digest));
        assert_eq!(digest.key().algorithm, digest.algorithm());
    }
    if let Ok(text) = text_after(key, &prefix) {
        assert_eq!(text.as_bytes(), behind);
    }
    if number_after(key, &prefix).is_ok() {
        assert_eq!(behind.len(), 8);
    }
    drop(keys::parent_of(key));
    drop(keys::parent_after(key, &prefix));
    if let Ok((id, digest)) = keys::owned_digest(key) {
        assert_eq!(keys::retired(id, &digest)[1..], key[1..]);
    }
    if let Ok((id, digest, tag)) = keys::tagged_parts(key) {
        assert_eq!(keys::tagged(id, &digest, &tag)[1..], key[1..]);
    }
}
