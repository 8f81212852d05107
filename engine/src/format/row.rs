//! The first bytes of a row's key: its table, and the part that is entered into a run's filter.
//!
//! Owns: the prefix bytes, one per table. Refuses: the rest of a key, and values (`keys`).
//!
//! Layout: FORMAT.md, "Rows".

use crate::digest::Algorithm;

/// The prefix bytes of keys, one per table.
pub mod table {
    /// Index: the extent of a blob.
    pub const BLOB: u8 = b'b';
    /// Blob that was found damaged.
    pub const DAMAGED: u8 = b'c';
    /// Repository by name.
    pub const REPOSITORY_BY_NAME: u8 = b'R';
    /// Repository by id.
    pub const REPOSITORY_BY_ID: u8 = b'I';
    /// Deleted repository of which rows may remain.
    pub const DELETED: u8 = b'd';
    /// Link of a repository to a blob.
    pub const LINK: u8 = b'l';
    /// Repository that holds a blob: the reverse of a link.
    pub const HOLDER: u8 = b'h';
    /// Manifest.
    pub const MANIFEST: u8 = b'm';
    /// Edge from a manifest to a child.
    pub const CHILD: u8 = b'e';
    /// Parent of a manifest or blob: the reverse of an edge.
    pub const PARENT: u8 = b'p';
    /// Referrer.
    pub const REFERRER: u8 = b's';
    /// Tag.
    pub const TAG: u8 = b't';
    /// Tag of a manifest: the reverse of a tag.
    pub const TAGGED: u8 = b'u';
    /// Live bytes of a segment.
    pub const SEGMENT: u8 = b'g';
    /// Deleted manifest of which rows remain.
    pub const RETIRED: u8 = b'x';
    /// Repository that has a digest as a manifest: the reverse of a manifest.
    pub const MANIFEST_HOLDER: u8 = b'n';
    /// Digest that may be garbage: since some transaction, nothing is known to reference it.
    pub const SUSPECT: u8 = b'z';
    /// Manifest of a repository that nothing may keep.
    pub const UNTAGGED: u8 = b'y';
    /// Manifest of a repository whose subject was deleted.
    pub const FOLLOWER: u8 = b'f';
    /// Usage of a repository.
    pub const USAGE: u8 = b'v';
}

const ID_BYTES: usize = 8;

/// Returns the part of a row's key that is entered into a run's filter.
///
/// In tables that are scanned by digest (all parents of a child, all children of a manifest) the key is cut after that
/// digest. In the others it is the whole key.
pub fn filter_key(key: &[u8]) -> &[u8] {
    group_of(key).unwrap_or(key)
}

/// Returns the filter key that all rows under `prefix` share. `None`: they share none, and a filter cannot exclude
/// them.
pub fn group_of(prefix: &[u8]) -> Option<&[u8]> {
    let before_digest = match *prefix.first()? {
        table::HOLDER | table::PARENT | table::MANIFEST_HOLDER => 1,
        table::CHILD | table::REFERRER | table::TAGGED => 1 + ID_BYTES,
        _ => return None,
    };
    let algorithm = Algorithm::from_code(*prefix.get(before_digest)?)?;
    prefix.get(..before_digest + 1 + algorithm.digest_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: all rows under a scanned prefix share one filter key, and the prefix has the same one. A shorter prefix,
    /// and one of a table without groups, has none.
    #[test]
    fn groups_end_after_the_digest() {
        let sha256 = [&[1_u8][..], &[9; 32]].concat();
        let sha512 = [&[2_u8][..], &[9; 64]].concat();
        for digest in [sha256, sha512] {
            for (table, id) in [
                (b"h", 0),
                (b"p", 0),
                (b"n", 0),
                (b"e", 8),
                (b"s", 8),
                (b"u", 8),
            ] {
                let prefix = [&table[..], &vec![3; id], &digest].concat();
                let row = [&prefix[..], b"more"].concat();
                assert_eq!(group_of(&prefix), Some(&prefix[..]));
                assert_eq!(filter_key(&row), &prefix[..]);
                assert_eq!(group_of(&prefix[..prefix.len() - 1]), None);
            }
            for table in [b"l", b"t", b"b", b"m", b"z", b"y", b"f", b"v"] {
                let row = [&table[..], &[3; 8], &digest].concat();
                assert_eq!(group_of(&row), None);
                assert_eq!(filter_key(&row), &row[..]);
            }
        }
        assert_eq!((group_of(b""), group_of(b"p\xff")), (None, None));
    }
}
