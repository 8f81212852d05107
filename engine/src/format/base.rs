//! Base files: header, pages of rows, page directory.
//!
//! Layout: FORMAT.md, "Base files". Rows inside a page are an rkyv archive; everything around it is explicit.
//!
//! Invariant: a page is looked into only after its checksum and its structure were checked, each time.

use bytes::Bytes;
use rkyv::rancor;

use super::codec::{Decoder, Encoder, Malformed, checksum, unseal};

/// Size of the file header; the first page follows.
pub const FILE_HEADER_BYTES: usize = 4096;
/// Size of a page's header; the archive follows.
pub const PAGE_HEADER_BYTES: usize = 64;
/// The largest page, header and padding included.
pub const PAGE_BYTES_MAX: usize = 64 << 10;
/// What a row costs in an archive beside its bytes: four 32-bit fields and alignment.
pub const ROW_OVERHEAD_BYTES: usize = 20;
const VERSION: u32 = 1;
const FILE_MAGIC: &[u8; 8] = b"TNBASEFL";
const PAGE_MAGIC: &[u8; 4] = b"TPAG";
const PAGE_ALIGN: usize = 64;

/// What the header of a base file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// The store it belongs to.
    pub store_id: [u8; 16],
    /// Number of this file.
    pub file_id: u64,
    /// Size of the whole file.
    pub file_bytes: u64,
    /// Rows in all pages.
    pub rows: u64,
    /// Where the page directory starts; it reaches to the end of the file.
    pub directory_offset: u64,
    /// Checksum of the directory.
    pub directory_crc: u32,
    /// Number of pages.
    pub pages: u32,
}

impl FileHeader {
    /// Its 4 KiB.
    pub fn encode(&self) -> Vec<u8> {
        Encoder::new()
            .bytes(FILE_MAGIC)
            .u32(VERSION)
            .u32(self.pages)
            .bytes(&self.store_id)
            .u64(self.file_id)
            .u64(self.file_bytes)
            .u64(self.rows)
            .u64(self.directory_offset)
            .u32(self.directory_crc)
            .seal(FILE_HEADER_BYTES)
    }

    /// From the first bytes of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Decoder::new(unseal(bytes, FILE_HEADER_BYTES)?);
        if fields.bytes(8)? != FILE_MAGIC {
            return Err(Malformed::new("not a base file"));
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Malformed::new(format!(
                "version {version} of the base format"
            )));
        }
        let pages = fields.u32()?;
        let header = Self {
            store_id: fields.array()?,
            file_id: fields.counter()?,
            file_bytes: fields.counter()?,
            rows: fields.counter()?,
            directory_offset: fields.counter()?,
            directory_crc: fields.u32()?,
            pages,
        };
        fields.zeros(fields.remaining())?;
        Ok(header)
    }
}

/// One page in a directory. Pages lie back to back behind the file header, in the order of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// Size of the page.
    pub bytes: u32,
    /// Rows in it, at least one.
    pub rows: u32,
    /// Its checksum, as in its header.
    pub crc: u32,
    /// Its first key.
    pub first_key: Bytes,
}

/// The directory of a file.
pub fn encode_directory(entries: &[PageEntry]) -> Vec<u8> {
    let mut out = Encoder::new();
    for entry in entries {
        out.u32(entry.bytes).u32(entry.rows).u32(entry.crc);
        out.count(entry.first_key.len()).bytes(&entry.first_key);
    }
    out.finish()
}

/// Reads a directory of `pages` entries. The keys share one copy of the directory.
pub fn decode_directory(bytes: &[u8], pages: u32) -> Result<Vec<PageEntry>, Malformed> {
    let shared = Bytes::copy_from_slice(bytes);
    let mut fields = Decoder::new(&shared);
    let mut entries = Vec::new();
    for _ in 0..pages {
        let (bytes, rows, crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let length = fields.count()?;
        let first_key = shared.slice_ref(fields.bytes(length)?);
        entries.push(PageEntry {
            bytes,
            rows,
            crc,
            first_key,
        });
    }
    fields.end()?;
    Ok(entries)
}

/// Where a page belongs: a page found elsewhere is a misdirected write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePlace {
    /// The store.
    pub store_id: [u8; 16],
    /// The base file.
    pub file_id: u64,
    /// Offset of the page in it.
    pub offset: u64,
}

/// A row on its way into a page.
#[derive(Debug, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize)]
#[rkyv(derive(Debug))]
pub(crate) struct PageRow {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
struct PageRows {
    rows: Vec<PageRow>,
}

/// A page of rows in ascending order of keys, and its checksum.
pub(crate) fn encode_page(place: PagePlace, rows: Vec<PageRow>) -> (Vec<u8>, u32) {
    let table = rows
        .first()
        .and_then(|row| row.key.first())
        .copied()
        .unwrap_or_default();
    let count = rows.len();
    // The archive is laid out behind room for the header, so that no byte moves twice.
    let archived = rkyv::api::high::to_bytes_in::<_, rancor::Error>(
        &PageRows { rows },
        vec![0; PAGE_HEADER_BYTES],
    );
    let mut page = match archived {
        Ok(page) => page,
        Err(error) => unreachable!("rows of at most a page always archive: {error}"),
    };
    let payload = page.len() - PAGE_HEADER_BYTES;
    page.resize(page.len().next_multiple_of(PAGE_ALIGN), 0);
    assert!(
        page.len() <= PAGE_BYTES_MAX,
        "a page of {} bytes was built",
        page.len()
    );
    let header = Encoder::new()
        .bytes(PAGE_MAGIC)
        .u16(1)
        .u8(1)
        .u8(table)
        .u64(place.file_id)
        .u64(place.offset)
        .count(count)
        .count(payload)
        .bytes(&store_prefix(place))
        .pad_to(PAGE_HEADER_BYTES - 4)
        .finish();
    for (to, from) in page.iter_mut().zip(&header) {
        *to = *from;
    }
    let crc = page_checksum(&page);
    for (to, from) in page
        .iter_mut()
        .skip(PAGE_HEADER_BYTES - 4)
        .zip(crc.to_le_bytes())
    {
        *to = from;
    }
    (page, crc)
}

/// Checks the page at `place` and gives access to its rows. `crc` is what its directory says.
pub(crate) fn open_page(
    bytes: &[u8],
    place: PagePlace,
    crc: u32,
) -> Result<PageView<'_>, Malformed> {
    let found = page_checksum(bytes);
    if found != crc {
        return Err(Malformed(format!(
            "page checksum {found:08x}, expected {crc:08x}"
        )));
    }
    let mut fields = Decoder::new(bytes);
    let kind = (fields.bytes(4)? == PAGE_MAGIC, fields.u16()?, fields.u8()?);
    if kind != (true, 1, 1) {
        return Err(Malformed::new("not a page of rows, version 1"));
    }
    let _table = fields.u8()?;
    let (file_id, offset) = (fields.u64()?, fields.u64()?);
    let (rows, payload) = (fields.count()?, fields.count()?);
    let store: [u8; 8] = fields.array()?;
    if (file_id, offset, store) != (place.file_id, place.offset, store_prefix(place)) {
        return Err(Malformed(format!(
            "page of file {file_id:016x}, offset {offset} (misdirected)"
        )));
    }
    fields.zeros(PAGE_HEADER_BYTES - 4 - 40)?;
    if fields.u32()? != crc {
        return Err(Malformed::new(
            "page header and directory name different checksums",
        ));
    }
    let archive = fields.bytes(payload)?;
    let page = rkyv::access::<ArchivedPageRows, rancor::Error>(archive)
        .map_err(|error| Malformed(format!("rows of a page do not hold: {error}")))?;
    if page.rows.len() != rows {
        return Err(Malformed(format!(
            "{} rows in a page, expected {rows}",
            page.rows.len()
        )));
    }
    Ok(PageView {
        rows: page.rows.as_slice(),
    })
}

/// The rows of a page that was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageView<'a> {
    rows: &'a [ArchivedPageRow],
}

impl<'a> PageView<'a> {
    /// The value of `key`.
    pub(crate) fn find(self, key: &[u8]) -> Option<&'a [u8]> {
        let at = self
            .rows
            .binary_search_by(|row| row.key.as_slice().cmp(key))
            .ok()?;
        self.rows.get(at).map(|row| row.value.as_slice())
    }

    /// All rows, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.rows
            .iter()
            .map(|row| (row.key.as_slice(), row.value.as_slice()))
    }
}

fn store_prefix(place: PagePlace) -> [u8; 8] {
    place.store_id.first_chunk().copied().unwrap_or_default()
}

/// CRC-32 of a page without the four bytes that hold it.
fn page_checksum(page: &[u8]) -> u32 {
    let (head, rest) = page
        .split_at_checked(PAGE_HEADER_BYTES - 4)
        .unwrap_or((page, &[]));
    let mut sum = crc32fast::Hasher::new_with_initial(checksum(head));
    sum.update(rest.get(4..).unwrap_or_default());
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: PagePlace = PagePlace {
        store_id: *b"sixteen bytes id",
        file_id: 0x0102,
        offset: 0x3000,
    };

    fn row(key: &[u8], value: &[u8]) -> PageRow {
        PageRow {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        }
    }

    fn sample() -> (Vec<u8>, u32) {
        encode_page(
            PLACE,
            vec![row(b"ta", b"first"), row(b"tb", b""), row(b"tc", &[7; 100])],
        )
    }

    /// Guards: neither the page's header nor the archive's layout changes by accident.
    #[test]
    fn golden_page() {
        let (page, crc) = encode_page(PLACE, vec![row(b"ka", b"v1")]);
        let mut expected = b"TPAG\x01\0\x01k".to_vec();
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, 28, 0, 0, 0]);
        expected.extend(b"sixteen ");
        expected.resize(60, 0);
        expected.extend(crc.to_le_bytes());
        // Key and value; row: pointer and length of each; root: pointer to the rows and their count.
        expected.extend(b"kav1");
        for field in [-4_i32, 2, -10, 2, -16, 1] {
            expected.extend(field.to_le_bytes());
        }
        expected.resize(128, 0);
        assert_eq!(page, expected);
        assert_eq!(crc, checksum(&[&page[..60], &page[64..]].concat()));
    }

    /// Guards: rows come back, and are found by key.
    #[test]
    fn rows_come_back() {
        let (page, crc) = sample();
        let view = open_page(&page, PLACE, crc).unwrap();
        let keys: Vec<_> = view.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"ta", b"tb", b"tc"]);
        assert_eq!(view.find(b"ta"), Some(b"first".as_slice()));
        assert_eq!(view.find(b"tb"), Some(b"".as_slice()));
        assert_eq!(view.find(b"tbb"), None);
    }

    /// Guards: any bit of a page, padding included; a page of elsewhere is not this one.
    #[test]
    fn damaged_and_misdirected_pages_do_not_hold() {
        let (page, crc) = sample();
        for bit in 0..page.len() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open_page(&damaged, PLACE, crc).is_err(), "bit {bit}");
        }
        for place in [
            PagePlace {
                offset: 0x3040,
                ..PLACE
            },
            PagePlace {
                file_id: 1,
                ..PLACE
            },
            PagePlace {
                store_id: [0; 16],
                ..PLACE
            },
        ] {
            assert!(
                open_page(&page, place, crc)
                    .unwrap_err()
                    .0
                    .contains("misdirected")
            );
        }
    }

    /// Guards: a page whose checksum holds but whose rows point outside of it is refused, not followed.
    #[test]
    fn wild_pointers_are_refused() {
        let (page, _) = sample();
        for at in (PAGE_HEADER_BYTES..page.len()).step_by(4) {
            let mut wild = page.clone();
            for byte in &mut wild[at..at + 4] {
                *byte = 0x7f;
            }
            let crc = page_checksum(&wild);
            wild[60..64].copy_from_slice(&crc.to_le_bytes());
            // Where it was payload bytes, the rows hold; reading all of them must not panic either way.
            if let Ok(view) = open_page(&wild, PLACE, crc) {
                assert_eq!(view.iter().count(), 3);
            }
        }
    }

    /// Guards: the bytes of a file's header and directory do not change by accident; nothing behind them is read.
    #[test]
    fn golden_file_header_and_directory() {
        let header = FileHeader {
            store_id: [7; 16],
            file_id: 9,
            file_bytes: 0x2345,
            rows: 3,
            directory_offset: 0x2000,
            directory_crc: 0xaabb_ccdd,
            pages: 2,
        };
        let bytes = header.encode();
        let mut expected = b"TNBASEFL\x01\0\0\0\x02\0\0\0".to_vec();
        expected.extend([7; 16]);
        for value in [9_u64, 0x2345, 3, 0x2000] {
            expected.extend(value.to_le_bytes());
        }
        expected.extend([0xdd, 0xcc, 0xbb, 0xaa]);
        expected.resize(4092, 0);
        expected.extend(checksum(&expected).to_le_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        let entry = PageEntry {
            bytes: 64,
            rows: 1,
            crc: 5,
            first_key: Bytes::from_static(b"key"),
        };
        let directory = encode_directory(std::slice::from_ref(&entry));
        assert_eq!(directory, b"\x40\0\0\0\x01\0\0\0\x05\0\0\0\x03\0\0\0key");
        assert_eq!(decode_directory(&directory, 1), Ok(vec![entry]));
        assert!(decode_directory(&directory, 0).is_err());
        assert!(decode_directory(&directory, 2).is_err());
    }
}
