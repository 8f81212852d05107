//! Fingerprints of index rows: 16 bits each in memory, so that absent lookups stay off the pages.
//!
//! Owns: which bits of a key make its fingerprint, and the arrays.
//! Refuses: other tables; their keys hold no keyed hash, so clients could choose colliding ones.
//!
//! A page of 4 KiB has fewer than 64 index rows, so an absent key finds its fingerprint there by chance in fewer
//! than 64 of 65536 cases: 0.1 %.

/// First byte of the keys of the index; behind it stand eight bytes of keyed hash, most significant first.
pub const INDEX_TABLE: u8 = b'b';

/// The fingerprint of an index key: the last two bytes of its hash. The first ones are the same all over a page,
/// because rows are sorted by them.
pub(super) fn fingerprint(key: &[u8]) -> u16 {
    key.get(7..9)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// Fingerprints of a partition's pages, in the order of its rows.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    all: Vec<u16>,
    // Where each page's fingerprints end in `all`.
    ends: Vec<usize>,
}

impl Fingerprints {
    /// Adds the next page's; none for a page of another table.
    pub(super) fn push_page(&mut self, fingerprints: impl Iterator<Item = u16>) {
        self.all.extend(fingerprints);
        self.ends.push(self.all.len());
    }

    /// Whether a page holds a row with this fingerprint.
    pub(super) fn page_may_hold(&self, page: usize, fingerprint: u16) -> bool {
        let start = page
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied();
        let end = self.ends.get(page).copied().unwrap_or_default();
        self.all
            .get(start.unwrap_or_default()..end)
            .is_some_and(|of_page| of_page.contains(&fingerprint))
    }

    pub(super) fn resident_bytes(&self) -> usize {
        self.all.capacity() * size_of::<u16>() + self.ends.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a page answers for its own rows only, also where a page of another table lies between.
    #[test]
    fn pages_answer_for_their_own_rows() {
        let mut prints = Fingerprints::default();
        prints.push_page([1, 2].into_iter());
        prints.push_page(std::iter::empty());
        prints.push_page([3].into_iter());
        for (page, held) in [(0, vec![1, 2]), (1, vec![]), (2, vec![3]), (3, vec![])] {
            for print in 0..5 {
                assert_eq!(
                    prints.page_may_hold(page, print),
                    held.contains(&print),
                    "{page} {print}"
                );
            }
        }
    }

    /// Guards: the fingerprint is of the hash's last bytes; those that sort a page would tell nothing apart.
    #[test]
    fn fingerprints_are_of_the_hash_s_last_bytes() {
        assert_eq!(fingerprint(b"b123456\x01\x02rest"), 0x0201);
        assert_eq!(fingerprint(b"b"), 0);
    }
}
