//! What the first bytes of a row's key say: its table, and the part by which a filter knows it.
//!
//! Owns: the prefix bytes, one per table. Refuses: the rest of a key and its value, which `keys` has.
//!
//! Layout: FORMAT.md, "Rows".

use crate::digest::Algorithm;

/// Prefix bytes, one per table.
pub mod table {
    /// Index: where a blob is.
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
    /// Reverse of a link.
    pub const HOLDER: u8 = b'h';
    /// Manifest.
    pub const MANIFEST: u8 = b'm';
    /// Edge from a manifest to a child.
    pub const CHILD: u8 = b'e';
    /// Reverse of an edge.
    pub const PARENT: u8 = b'p';
    /// Referrer.
    pub const REFERRER: u8 = b's';
    /// Tag.
    pub const TAG: u8 = b't';
    /// Reverse of a tag.
    pub const TAGGED: u8 = b'u';
    /// What lives in a segment.
    pub const SEGMENT: u8 = b'g';
    /// Manifest that was deleted and of which rows remain.
    pub const RETIRED: u8 = b'x';
}

const ID_BYTES: usize = 8;

/// The part of a row's key that is entered into a run's filter: up to the second last part for tables that are
/// looked through by it (all parents of a child, all children of a manifest), the whole key for others.
pub fn filter_key(key: &[u8]) -> &[u8] {
    group_of(key).unwrap_or(key)
}

/// The filter key that all rows under `prefix` share; `None` if there is no such key, so that no filter can tell
/// whether there are any.
pub fn group_of(prefix: &[u8]) -> Option<&[u8]> {
    let before_digest = match *prefix.first()? {
        table::HOLDER | table::PARENT => 1,
        table::CHILD | table::REFERRER | table::TAGGED => 1 + ID_BYTES,
        _ => return None,
    };
    let algorithm = Algorithm::from_code(*prefix.get(before_digest)?)?;
    prefix.get(..before_digest + 1 + algorithm.digest_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: all rows under a prefix that is looked through share one filter key, and that prefix has it; a prefix that
    /// is shorter, or of a table without groups, has none.
    #[test]
    fn groups_end_behind_the_digest() {
        let sha256 = [&[1_u8][..], &[9; 32]].concat();
        let sha512 = [&[2_u8][..], &[9; 64]].concat();
        for digest in [sha256, sha512] {
            for (table, id) in [(b"h", 0), (b"p", 0), (b"e", 8), (b"s", 8), (b"u", 8)] {
                let prefix = [&table[..], &vec![3; id], &digest].concat();
                let row = [&prefix[..], b"more"].concat();
                assert_eq!(group_of(&prefix), Some(&prefix[..]));
                assert_eq!(filter_key(&row), &prefix[..]);
                assert_eq!(group_of(&prefix[..prefix.len() - 1]), None);
            }
            for table in [b"l", b"t", b"b", b"m"] {
                let row = [&table[..], &[3; 8], &digest].concat();
                assert_eq!(group_of(&row), None);
                assert_eq!(filter_key(&row), &row[..]);
            }
        }
        assert_eq!((group_of(b""), group_of(b"p\xff")), (None, None));
    }
}
