//! Run files: header, pages of rows, filter, page directory.
//!
//! Layout: FORMAT.md, "Run files". Everything is explicit and little-endian.
//!
//! Invariant: a [`Page`] exists only after its checksum and its whole structure were checked.

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed, checksum, verify_checksum};

/// Size of the file header; the first page follows.
pub const FILE_HEADER_BYTES: usize = 4096;
/// Size of a page's header; its rows follow.
pub const PAGE_HEADER_BYTES: usize = 64;
/// The largest page, header included.
pub const PAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a page that a row takes beyond key and value: two lengths and its entry in the page's offsets.
pub const ROW_OVERHEAD_BYTES: usize = 6;
/// Largest filter or page directory that is read, in bytes: enough for a billion rows. Memory is allocated for it.
const PART_BYTES_MAX: u64 = 4 << 30;
const VERSION: u32 = 1;
const FILE_MAGIC: &[u8; 8] = b"TNRUNFIL";
const PAGE_MAGIC: &[u8; 4] = b"TPAG";
const PAGE_ALIGN: usize = 64;
const LENGTHS_BYTES: usize = 4;
/// Length of a value that marks a deleted row.
const DELETED: u16 = u16::MAX;

/// The header of a run file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// Id of the store.
    pub store_id: [u8; 16],
    /// Number of the file.
    pub file_id: u64,
    /// Size of the whole file in bytes.
    pub file_bytes: u64,
    /// Rows in all pages, deletions included.
    pub rows: u64,
    /// Keys that were entered into the filter.
    pub filter_keys: u64,
    /// Offset of the filter, which ends where the page directory starts.
    pub filter_offset: u64,
    /// Offset of the page directory, which ends with the file.
    pub directory_offset: u64,
    /// Checksum of the filter.
    pub filter_crc: u32,
    /// Checksum of the directory.
    pub directory_crc: u32,
    /// Number of pages.
    pub pages: u32,
}

impl FileHeader {
    /// Encodes the header, 4 KiB.
    pub fn encode(&self) -> Vec<u8> {
        Encoder::new()
            .bytes(FILE_MAGIC)
            .u32(VERSION)
            .u32(self.pages)
            .bytes(&self.store_id)
            .u64(self.file_id)
            .u64(self.file_bytes)
            .u64(self.rows)
            .u64(self.filter_keys)
            .u64(self.filter_offset)
            .u64(self.directory_offset)
            .u32(self.filter_crc)
            .u32(self.directory_crc)
            .finish_with_checksum(FILE_HEADER_BYTES)
    }

    /// Decodes the header from the first bytes of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Decoder::new(verify_checksum(bytes, FILE_HEADER_BYTES)?);
        if fields.bytes(8)? != FILE_MAGIC {
            return Err(Malformed::new("not a run file"));
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Malformed(format!(
                "version {version} of the run file format"
            )));
        }
        let pages = fields.u32()?;
        let header = Self {
            store_id: fields.array()?,
            file_id: fields.counter()?,
            file_bytes: fields.counter()?,
            rows: fields.counter()?,
            filter_keys: fields.counter()?,
            filter_offset: fields.counter()?,
            directory_offset: fields.counter()?,
            filter_crc: fields.u32()?,
            directory_crc: fields.u32()?,
            pages,
        };
        fields.zeros(fields.remaining())?;
        let places = [
            FILE_HEADER_BYTES as u64,
            header.filter_offset,
            header.directory_offset,
            header.file_bytes,
        ];
        if !places.is_sorted() {
            return Err(Malformed::new("its parts are not in order"));
        }
        if header.filter_keys > header.rows {
            return Err(Malformed::new(
                "its filter has more keys than there are rows",
            ));
        }
        if header.filter_bytes().max(header.directory_bytes()) > PART_BYTES_MAX {
            return Err(Malformed::new(
                "its filter or directory is larger than 4 GiB",
            ));
        }
        Ok(header)
    }
}

impl FileHeader {
    /// Returns the size of the filter in bytes.
    pub fn filter_bytes(&self) -> u64 {
        self.directory_offset.saturating_sub(self.filter_offset)
    }

    /// Returns the size of the page directory in bytes.
    pub fn directory_bytes(&self) -> u64 {
        self.file_bytes.saturating_sub(self.directory_offset)
    }
}

/// Returns the checksum at the end of a file header.
pub fn header_crc(header: &[u8]) -> u32 {
    let end = header
        .get(..FILE_HEADER_BYTES)
        .and_then(|header| header.last_chunk::<4>());
    end.map_or(0, |crc| u32::from_le_bytes(*crc))
}

/// The entry of one page in a directory. Pages follow the file header without gaps, in the order of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// Offset of the page in the file.
    pub offset: u64,
    /// Size of the page in bytes.
    pub bytes: u32,
    /// Checksum of the page, as in its header.
    pub crc: u32,
    /// First key of the page.
    pub first_key: Bytes,
}

/// Encodes the directory of a file.
pub fn encode_directory(entries: &[PageEntry]) -> Vec<u8> {
    let mut out = Encoder::new();
    for entry in entries {
        out.u64(entry.offset).u32(entry.bytes).u32(entry.crc);
        out.count(entry.first_key.len()).bytes(&entry.first_key);
    }
    out.finish()
}

/// Decodes a directory of `pages` entries. The keys share one copy of the directory.
pub fn decode_directory(bytes: &[u8], pages: u32) -> Result<Vec<PageEntry>, Malformed> {
    let shared = Bytes::copy_from_slice(bytes);
    let mut fields = Decoder::new(&shared);
    let mut entries = Vec::new();
    for _ in 0..pages {
        let (offset, bytes, crc) = (fields.counter()?, fields.u32()?, fields.u32()?);
        let length = fields.count()?;
        let first_key = shared.slice_ref(fields.bytes(length)?);
        entries.push(PageEntry {
            offset,
            bytes,
            crc,
            first_key,
        });
    }
    fields.end()?;
    Ok(entries)
}

/// The place that a page belongs in. A page found elsewhere is a misdirected write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePlace {
    /// Id of the store.
    pub store_id: [u8; 16],
    /// Number of the run file.
    pub file_id: u64,
    /// Offset of the page in it.
    pub offset: u64,
}

/// Builds one page from its rows.
#[derive(Debug, Default)]
pub struct PageWriter {
    rows: Vec<u8>,
    starts: Vec<u16>,
    first_key: Bytes,
}

impl PageWriter {
    /// Adds the next row, whose key is greater than the last one's. `None` is a deleted row.
    ///
    /// # Panics
    /// If the row does not fit; see [`PageWriter::bytes_with`].
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let lengths = (
            u16::try_from(self.rows.len()),
            u16::try_from(key.len()),
            u16::try_from(value.map_or(0, <[u8]>::len)),
        );
        let (Ok(start), Ok(key_bytes), Ok(value_bytes)) = lengths else {
            unreachable!("a row of {} bytes does not fit a page", key.len());
        };
        if self.starts.is_empty() {
            self.first_key = Bytes::copy_from_slice(key);
        }
        self.starts.push(start);
        self.rows.extend(key_bytes.to_le_bytes());
        let value_bytes = value.map_or(DELETED, |_| value_bytes);
        self.rows.extend(value_bytes.to_le_bytes());
        self.rows.extend(key);
        self.rows.extend(value.unwrap_or_default());
    }

    /// Returns the size of the page with one more row of `row_bytes` bytes, key and value together.
    pub fn bytes_with(&self, row_bytes: usize) -> usize {
        let offsets = (self.starts.len() + 1) * size_of::<u16>();
        PAGE_HEADER_BYTES + self.rows.len() + LENGTHS_BYTES + row_bytes + offsets
    }

    /// Returns the number of rows so far.
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// Returns the first key; empty without a row.
    pub fn first_key(&self) -> &Bytes {
        &self.first_key
    }

    /// Returns the page and its checksum, and leaves the writer empty.
    pub fn finish(&mut self, place: PagePlace) -> (Vec<u8>, u32) {
        let table = self.first_key.first().copied().unwrap_or_default();
        let payload = self.rows.len() + self.starts.len() * size_of::<u16>();
        let mut page = Encoder::new();
        page.bytes(PAGE_MAGIC).u16(1).u8(1).u8(table);
        page.u64(place.file_id).u64(place.offset);
        page.count(self.starts.len()).count(payload);
        page.bytes(&store_prefix(place)).pad_to(PAGE_HEADER_BYTES);
        page.bytes(&self.rows);
        for start in &self.starts {
            page.u16(*start);
        }
        let padded = page.len().next_multiple_of(PAGE_ALIGN);
        assert!(
            padded <= PAGE_BYTES_MAX,
            "a page of {padded} bytes was built"
        );
        let mut page = page.pad_to(padded).finish();
        let crc = page_checksum(&page);
        let hole = page.iter_mut().skip(PAGE_HEADER_BYTES - 4);
        for (to, from) in hole.zip(crc.to_le_bytes()) {
            *to = from;
        }
        self.rows.clear();
        self.starts.clear();
        (page, crc)
    }
}

/// A page whose checksum and structure were checked.
#[derive(Debug, Clone)]
pub struct Page {
    bytes: Bytes,
    rows: usize,
    // Offset of the offsets of the rows.
    starts_at: usize,
}

/// A row of a page; its value is `None` if the row is deleted.
pub type PageRow<'a> = (&'a [u8], Option<&'a [u8]>);

impl Page {
    /// Checks the page at `place` against `crc`, the checksum in its directory.
    pub fn open(bytes: Bytes, place: PagePlace, crc: u32) -> Result<Self, Malformed> {
        let found = page_checksum(&bytes);
        if found != crc {
            return Err(Malformed(format!(
                "page checksum {found:08x}, expected {crc:08x}"
            )));
        }
        let mut fields = Decoder::new(&bytes);
        let kind = (fields.bytes(4)? == PAGE_MAGIC, fields.u16()?, fields.u8()?);
        if kind != (true, 1, 1) {
            return Err(Malformed::new("not a page of rows, version 1"));
        }
        let table = fields.u8()?;
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
        fields.bytes(payload)?;
        fields.zeros(fields.remaining())?;
        let rows_bytes = payload.checked_sub(rows.saturating_mul(size_of::<u16>()));
        let starts_at = rows_bytes.map(|rows_bytes| PAGE_HEADER_BYTES + rows_bytes);
        let Some(starts_at) = starts_at.filter(|_| rows > 0) else {
            return Err(Malformed(format!(
                "{rows} rows in {payload} bytes of a page"
            )));
        };
        let page = Self {
            bytes,
            rows,
            starts_at,
        };
        page.check_rows(table)?;
        Ok(page)
    }

    /// Checks that rows follow each other without a gap, keys ascend, and all rows are of one table.
    fn check_rows(&self, table: u8) -> Result<(), Malformed> {
        let broken = || Malformed::new("rows of a page do not follow each other");
        let (mut end, mut last) = (PAGE_HEADER_BYTES, None);
        for number in 0..self.rows {
            let (start, row) = self.locate(number).ok_or_else(broken)?;
            let (key, value) = row;
            if start != end {
                return Err(broken());
            }
            end = start + LENGTHS_BYTES + key.len() + value.map_or(0, <[u8]>::len);
            if last.is_some_and(|last| last >= key) {
                return Err(Malformed::new("keys do not ascend"));
            }
            if key.first().copied().unwrap_or_default() != table {
                return Err(Malformed::new("a row of another table"));
            }
            last = Some(key);
        }
        if end == self.starts_at {
            Ok(())
        } else {
            Err(broken())
        }
    }

    /// Returns the offset of a row and the row; `None` if it reaches out of the page.
    fn locate(&self, number: usize) -> Option<(usize, PageRow<'_>)> {
        let at = self.starts_at + number * size_of::<u16>();
        let start = self.bytes.get(at..)?.first_chunk()?;
        let start = PAGE_HEADER_BYTES + usize::from(u16::from_le_bytes(*start));
        let rest = self.bytes.get(start..self.starts_at)?;
        let (key_bytes, rest) = rest.split_first_chunk()?;
        let (value_bytes, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_bytes)))?;
        let value = match u16::from_le_bytes(*value_bytes) {
            DELETED => None,
            length => Some(rest.get(..usize::from(length))?),
        };
        Some((start, (key, value)))
    }

    /// Returns the number of rows, at least one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns a row by its number; `None` after the last.
    pub fn row(&self, number: usize) -> Option<PageRow<'_>> {
        if number >= self.rows {
            return None;
        }
        let located = self.locate(number);
        assert!(
            located.is_some(),
            "a row of a checked page reaches out of it"
        );
        located.map(|(_, row)| row)
    }

    /// Returns the number of the first row whose key is not less than `key`, or the number of rows if all are less.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.row(middle).is_some_and(|(at, _)| at < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Returns the value of `key`, or `Some(None)` if it is deleted; `None` if the page has no row of it.
    pub fn find(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let (found, value) = self.row(self.lower_bound(key))?;
        (found == key).then_some(value)
    }

    /// Returns a part of the page as shared bytes, which keep the whole page in memory.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// Returns the size of the page in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

fn store_prefix(place: PagePlace) -> [u8; 8] {
    place.store_id.first_chunk().copied().unwrap_or_default()
}

/// Returns the CRC-32 of a page without the four bytes that hold it.
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

    fn page(rows: &[(&[u8], Option<&[u8]>)]) -> (Vec<u8>, u32) {
        let mut writer = PageWriter::default();
        for (key, value) in rows {
            writer.push(key, *value);
        }
        writer.finish(PLACE)
    }

    fn sample() -> (Vec<u8>, u32) {
        page(&[
            (b"ta", Some(b"first")),
            (b"tb", Some(b"")),
            (b"tc", None),
            (b"td", Some(&[7; 100])),
        ])
    }

    fn open(page: &[u8], place: PagePlace, crc: u32) -> Result<Page, Malformed> {
        Page::open(Bytes::copy_from_slice(page), place, crc)
    }

    /// Guards: neither the page's header nor the layout of its rows changes by accident.
    #[test]
    fn golden_page() {
        let (page, crc) = page(&[(b"ka", Some(b"v1")), (b"kb", None)]);
        let mut expected = b"TPAG\x01\0\x01k".to_vec();
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, 18, 0, 0, 0]);
        expected.extend(b"sixteen ");
        expected.resize(60, 0);
        expected.extend(crc.to_le_bytes());
        expected.extend(b"\x02\0\x02\0kav1\x02\0\xff\xffkb");
        expected.extend([0, 0, 8, 0]);
        expected.resize(128, 0);
        assert_eq!(page, expected);
        assert_eq!(crc, checksum(&[&page[..60], &page[64..]].concat()));
    }

    /// Guards: rows are decoded as they were added, deletions included, and are found by key.
    #[test]
    fn rows_are_decoded_as_added() {
        let (bytes, crc) = sample();
        let page = open(&bytes, PLACE, crc).unwrap();
        let keys: Vec<_> = (0..page.rows()).map(|n| page.row(n).unwrap().0).collect();
        assert_eq!(keys, [b"ta", b"tb", b"tc", b"td"]);
        assert_eq!(page.find(b"ta"), Some(Some(b"first".as_slice())));
        assert_eq!(page.find(b"tb"), Some(Some(b"".as_slice())));
        assert_eq!(page.find(b"tc"), Some(None));
        assert_eq!(page.find(b"tbb"), None);
        assert_eq!(page.find(b"te"), None);
        assert_eq!((page.lower_bound(b"tbb"), page.lower_bound(b"x")), (2, 4));
    }

    /// Guards: every flipped bit of a page is detected, padding included; a page of another place is rejected.
    #[test]
    fn damaged_and_misdirected_pages_are_rejected() {
        let (page, crc) = sample();
        for bit in 0..page.len() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&damaged, PLACE, crc).is_err(), "bit {bit}");
        }
        let elsewhere = [
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
        ];
        for place in elsewhere {
            let refused = open(&page, place, crc).unwrap_err();
            assert!(refused.0.contains("misdirected"));
        }
    }

    /// Guards: a page with a valid checksum and an invalid structure is rejected, and none makes a reader panic.
    #[test]
    fn checksummed_nonsense_is_rejected_or_readable() {
        let (page, _) = sample();
        let mut refused = 0;
        for at in 0..page.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut wild = page.clone();
                wild[at] = byte;
                let crc = page_checksum(&wild);
                wild[60..64].copy_from_slice(&crc.to_le_bytes());
                match open(&wild, PLACE, crc) {
                    Err(_) => refused += 1,
                    Ok(page) => assert_eq!(
                        (0..page.rows()).filter_map(|n| page.row(n)).count(),
                        page.rows()
                    ),
                }
            }
        }
        assert!(refused > page.len(), "{refused}");
    }

    /// Guards: the bytes of a file's header and directory do not change by accident; bytes after the directory are
    /// rejected.
    #[test]
    fn golden_file_header_and_directory() {
        let header = FileHeader {
            store_id: [7; 16],
            file_id: 9,
            file_bytes: 0x2345,
            rows: 3,
            filter_keys: 2,
            filter_offset: 0x1f00,
            directory_offset: 0x2000,
            filter_crc: 0x1122_3344,
            directory_crc: 0xaabb_ccdd,
            pages: 2,
        };
        let bytes = header.encode();
        let mut expected = b"TNRUNFIL\x01\0\0\0\x02\0\0\0".to_vec();
        expected.extend([7; 16]);
        for value in [9_u64, 0x2345, 3, 2, 0x1f00, 0x2000] {
            expected.extend(value.to_le_bytes());
        }
        expected.extend([0x44, 0x33, 0x22, 0x11, 0xdd, 0xcc, 0xbb, 0xaa]);
        expected.resize(4092, 0);
        expected.extend(checksum(&expected).to_le_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        let entry = PageEntry {
            offset: 4096,
            bytes: 64,
            crc: 5,
            first_key: Bytes::from_static(b"key"),
        };
        let directory = encode_directory(std::slice::from_ref(&entry));
        assert_eq!(
            directory,
            b"\0\x10\0\0\0\0\0\0\x40\0\0\0\x05\0\0\0\x03\0\0\0key"
        );
        assert_eq!(decode_directory(&directory, 1), Ok(vec![entry]));
        assert!(decode_directory(&directory, 0).is_err());
        assert!(decode_directory(&directory, 2).is_err());
    }
}
