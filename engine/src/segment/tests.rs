//! Tests of segments on a real file system: what was written is read back, and rot is not served.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look at the files themselves"
)]

use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::io::ReadWriteFlags;
use tempfile::TempDir;

use super::{ClientId, SmallBlob};
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::extent::{Extent, Layout};
use crate::format::checksum::ChunkChecksums;
use crate::io::{Call, Class, OpenMode, Residency};
use crate::memory::{MemoryPriority, Reading};
use crate::options::Options;
use crate::sync::Mutex;
use crate::upload::workbench::{Workbench, content, eventually, run, small_options};

const CHUNK: usize = 64 << 10;
const MIB: u64 = 1 << 20;
const CALL: Call = Class::Background.call();

async fn append(bench: &Workbench, bytes: &[u8]) -> (Digest, Extent) {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let mut checksums = ChunkChecksums::default();
    checksums.update(bytes);
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    let payload = vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
    let blob = SmallBlob {
        payload,
        length: bytes.len() as u64,
        digest,
        checksums: checksums.table(),
    };
    (
        digest,
        bench.segments.appender().append(blob).await.unwrap().extent,
    )
}

async fn dedicated(bench: &Workbench, bytes: &[u8], hint: Option<u64>) -> (Digest, Extent) {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let mut checksums = ChunkChecksums::default();
    checksums.update(bytes);
    let mut writer = bench.create_dedicated(hint).await.unwrap();
    writer
        .write(0, vec![Bytes::copy_from_slice(bytes)])
        .await
        .unwrap();
    let extent = writer
        .finish(bytes.len() as u64, digest, &checksums.table())
        .await
        .unwrap();
    writer.take_guard().keep();
    (digest, extent)
}

/// Guards: blobs of every size around chunk and window are read back unchanged, in every kind of range, from both
/// classes of segment.
#[test]
fn sizes_and_ranges_come_back() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let sizes = [
            0,
            1,
            63,
            64,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            4 * CHUNK - 1,
            4 * CHUNK,
            4 * CHUNK + 1,
            5 << 20,
        ];
        for (seed, size) in sizes.into_iter().enumerate() {
            let bytes = content(seed as u64, size);
            let shared = append(&bench, &bytes).await;
            let alone = dedicated(&bench, &bytes, Some(3 * size as u64)).await;
            assert_eq!(
                (shared.1.layout, alone.1.layout),
                (Layout::Leading, Layout::Trailing)
            );
            let on_disk = std::fs::metadata(bench.segment_path(alone.1.segment))
                .unwrap()
                .len();
            let padded = |length: u64| length.next_multiple_of(64);
            let expected =
                4096 + padded(size as u64) + padded(4 * (size as u64).div_ceil(CHUNK as u64)) + 128;
            assert_eq!(
                on_disk, expected,
                "a hint too large leaves nothing after the frame"
            );
            for (digest, extent) in [shared, alone] {
                let end = size as u64;
                let mid = end / 2;
                let ranges = [
                    0..end,
                    0..1,
                    mid..mid + 1,
                    mid..end,
                    end.saturating_sub(1)..end,
                    0..u64::MAX,
                    end..end + 5,
                ];
                for range in ranges {
                    let got = bench.read(digest, extent, range.clone()).await.unwrap();
                    let to = usize::try_from(range.end.min(end)).unwrap();
                    let from = usize::try_from(range.start).unwrap().min(to);
                    assert_eq!(got, bytes[from..to], "{size} bytes, {range:?}, {extent}");
                }
            }
        }
    });
}

/// Guards: a flipped bit anywhere in payload, table or (shared) frame is never served, is reported with file and blob,
/// and marks the blob. Other blobs of the segment are read as before.
#[test]
fn rot_is_never_served() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let (small, large) = (content(1, 3000), content(2, 6 * CHUNK + 5));
        let other = append(&bench, &content(3, 100)).await;
        let blobs = [
            (append(&bench, &small).await, small.len() as u64, 128 + 64),
            (append(&bench, &large).await, large.len() as u64, 128 + 64),
            (dedicated(&bench, &large, None).await, large.len() as u64, 0),
        ];
        for ((digest, extent), length, before) in blobs {
            let after_payload = if extent.layout == Layout::Trailing {
                64 + 4 * 7
            } else {
                0
            };
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .open(bench.segment_path(extent.segment))
                .unwrap();
            let table = match extent.layout {
                Layout::Leading => extent.offset - before..extent.offset - before + 128 + 4,
                Layout::Trailing => {
                    extent.offset + length.next_multiple_of(64)
                        ..extent.offset + length + after_payload - 36
                }
            };
            let payload = (extent.offset..extent.offset + length).step_by(40_009);
            for at in payload.chain(table) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
                let error = bench.read(digest, extent, 0..length).await.unwrap_err();
                let Error::Corrupt(corruption) = &error else {
                    panic!("{error} at {at} of {extent}")
                };
                assert_eq!(corruption.path, bench.segment_path(extent.segment));
                assert!(
                    bench.segments.damaged().contains(&digest, &extent),
                    "at {at} of {extent}"
                );
                file.write_all_at(&byte, at).unwrap();
                bench.segments.damaged().keep_only(&digest, &other.1);
            }
            bench.read(digest, extent, 0..length).await.unwrap();
            assert!(!bench.segments.damaged().may_contain(&digest));
            assert!(!bench.segments.damaged().may_contain(&other.0));
        }
    });
}

/// Guards: a file that ends early, and a file of another segment under this name, are damage and not short reads.
#[test]
fn short_and_swapped_files_are_damage() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let bytes = content(1, 3 * CHUNK);
        let (first, second) = (
            dedicated(&bench, &bytes, None).await,
            dedicated(&bench, &bytes, None).await,
        );
        let (first_path, second_path) = (
            bench.segment_path(first.1.segment),
            bench.segment_path(second.1.segment),
        );
        drop(bench);
        std::fs::copy(&first_path, &second_path).unwrap();
        let cut = std::fs::File::options()
            .write(true)
            .open(&first_path)
            .unwrap();
        cut.set_len(4096 + 2 * CHUNK as u64).unwrap();
        let bench = Workbench::open(dir.path(), 100, &Options::default()).await;
        for (digest, extent) in [first, second] {
            let error = bench.read(digest, extent, 0..u64::MAX).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt(_)), "{error}");
            assert!(bench.segments.damaged().contains(&digest, &extent));
        }
    });
}

/// Guards: payload and table that were swapped with those of another blob of the same length are detected, although
/// they match each other. So it is in both classes of segment, and for readers that have the segments open.
#[test]
fn exchanged_payloads_are_damage() {
    for are_open in [false, true] {
        run(move |dir| exchange_payloads(dir, are_open));
    }
}

async fn exchange_payloads(dir: TempDir, are_open: bool) {
    let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
    let (one, other) = (content(1, 3 * CHUNK), content(2, 3 * CHUNK));
    let pairs = [
        [append(&bench, &one).await, append(&bench, &other).await],
        [
            dedicated(&bench, &one, None).await,
            dedicated(&bench, &other, None).await,
        ],
    ];
    for (digest, extent) in pairs.concat() {
        bench.read(digest, extent, 0..u64::MAX).await.unwrap();
    }
    for [first, second] in pairs {
        let place = |(_, extent): (Digest, Extent)| {
            let path = bench.segment_path(extent.segment);
            let file = std::fs::File::options().read(true).write(true).open(path);
            let table = match extent.layout {
                Layout::Leading => extent.offset - 64,
                Layout::Trailing => extent.offset + extent.length,
            };
            (file.unwrap(), [(extent.offset, 3 * CHUNK), (table, 64)])
        };
        let (one, other) = (place(first), place(second));
        for ((from, length), (to, _)) in one.1.into_iter().zip(other.1) {
            let (mut bytes, mut others) = (vec![0; length], vec![0; length]);
            one.0.read_exact_at(&mut bytes, from).unwrap();
            other.0.read_exact_at(&mut others, to).unwrap();
            assert_ne!(bytes, others);
            one.0.write_all_at(&others, from).unwrap();
            other.0.write_all_at(&bytes, to).unwrap();
        }
    }
    let bench = if are_open {
        bench
    } else {
        drop(bench);
        Workbench::open(dir.path(), 100, &Options::default()).await
    };
    for (digest, extent) in pairs.concat() {
        let error = bench.read(digest, extent, 0..u64::MAX).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        assert!(bench.segments.damaged().contains(&digest, &extent));
    }
}

/// Guards: blobs appended at once are stored in the same segment, intact and without gaps. A full segment is followed
/// by the next. After another open, an old segment is never appended to.
#[test]
fn appends_at_once_share_a_segment_and_roll() {
    run(|dir| async move {
        let options = small_options();
        let bench = Arc::new(Workbench::open(dir.path(), 1, &options).await);
        let blobs: Vec<Vec<u8>> = (0..16)
            .map(|n| content(n, 1000 + 7 * usize::try_from(n).unwrap()))
            .collect();
        let placed = join_all(blobs.iter().map(|bytes| append(&bench, bytes))).await;
        let mut extents: Vec<Extent> = placed.iter().map(|(_, extent)| *extent).collect();
        for ((digest, extent), bytes) in placed.iter().zip(&blobs) {
            assert_eq!(
                bench.read(*digest, *extent, 0..u64::MAX).await.unwrap(),
                *bytes
            );
        }
        extents.sort_by_key(|extent| extent.offset);
        let mut end = 4096;
        for extent in &extents {
            assert_eq!(extent.segment, extents[0].segment);
            assert_eq!(
                extent.offset,
                end + 128 + 64,
                "records follow each other without gaps"
            );
            end = (extent.offset + extent.length).next_multiple_of(64);
        }
        let big = content(99, 3 << 20);
        let (_, first) = append(&bench, &content(98, 900 << 10)).await;
        let (digest, rolled) = append(&bench, &big).await;
        let (_, next) = append(&bench, &big).await;
        assert_eq!(rolled.segment, first.segment, "it fits");
        assert_ne!(next.segment, rolled.segment, "the segment was full");
        drop(bench);
        let bench = Workbench::open(dir.path(), 50, &options).await;
        let (_, fresh) = append(&bench, &[1]).await;
        assert_eq!(fresh.segment.0, 50);
        assert_eq!(bench.read(digest, rolled, 0..u64::MAX).await.unwrap(), big);
    });
}

/// Guards: a retired segment stays readable for its readers, and is unlinked when the last one drops.
#[test]
fn a_retired_segment_goes_with_its_last_reader() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let bytes = content(1, 3 << 20);
        let (digest, extent) = dedicated(&bench, &bytes, None).await;
        let opened = bench
            .segments
            .try_open_blob(digest, extent, ClientId::default());
        let reader = opened.await.unwrap();
        let mut stream = reader.read(0..u64::MAX);
        let first = stream.next().await.unwrap().unwrap();
        bench.segments.files().retire(extent.segment);
        drop(reader);
        let mut rest = first.to_vec();
        while let Some(piece) = stream.next().await.unwrap() {
            rest.extend_from_slice(&piece);
        }
        assert_eq!(rest, bytes);
        assert_eq!(bench.names("segments").len(), 1);
        drop(stream);
        eventually("the unlink", || bench.names("segments").is_empty()).await;
    });
}

/// Guards: windows from memory stay as large as the first. Those of a client that may have mapped ones grow to 1 MiB
/// and begin at multiples of it, wherever its range begins, so that all readers of a blob map the same.
#[test]
fn windows_from_memory_are_small_unless_they_are_mapped() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let (digest, extent) = dedicated(&bench, &content(1, 5 << 20), None).await;
        let opened = bench
            .segments
            .try_open_blob(digest, extent, ClientId::default());
        let reader = opened.await.unwrap();
        for (may_map, from, expected) in [
            (false, 0, [256; 6]),
            (true, 0, [256, 512, 256, 1024, 1024, 1024]),
            (true, 1536, [256, 512, 768, 1024, 1024, 0]),
        ] {
            let account = bench.segments.pool().memory().account();
            account.set_mapping_allowed(may_map);
            let reading = Reading::answer(&account, MemoryPriority::Bulk);
            let mut stream = reader.read_for(from << 10..u64::MAX, reading);
            let mut found = [0; 6];
            for found in &mut found {
                let piece = stream.next().await.unwrap();
                *found = piece.map_or(0, |piece| piece.len() >> 10);
            }
            assert_eq!(found, expected, "mapped: {may_map}, from {from} KiB");
        }
    });
}

/// Guards: the number of open files is bounded although more segments than that are read.
#[test]
fn open_files_are_bounded() {
    run(|dir| async move {
        let options = Options {
            open_files_max: 8,
            ..Options::default()
        };
        let bench = Workbench::open(dir.path(), 1, &options).await;
        let mut blobs = Vec::new();
        for n in 0..20 {
            blobs.push((n, dedicated(&bench, &content(n, 1000), None).await));
        }
        for (n, (digest, extent)) in blobs {
            assert_eq!(
                bench.read(digest, extent, 0..1000).await.unwrap(),
                content(n, 1000)
            );
        }
        let segments = dir.path().join("segments");
        let open = || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap();
            let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            targets
                .filter(|target| target.parent() == Some(&segments))
                .count()
        };
        // Half of them may be kept for the next reader. A disk thread may hold the last file a moment longer.
        eventually("4 files open", || open() == 4).await;
    });
}

/// Guards: space is reserved only a little ahead of the received bytes, because announcing a length costs a client
/// nothing.
#[test]
fn announced_bytes_do_not_fill_the_disk() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let mut writer = bench.create_dedicated(Some(1 << 30)).await.unwrap();
        let path = bench.segment_path(writer.file().id());
        let allocated = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let piece = Bytes::from(vec![7; 1 << 20]);
        for written in 0..40 {
            let most = written.max(16) + written + 1;
            assert!(
                allocated() <= (most << 20) + (64 << 10),
                "{written} MiB: {}",
                allocated()
            );
            writer
                .write(written << 20, vec![piece.clone()])
                .await
                .unwrap();
        }
        assert!(allocated() >= 41 << 20, "nothing was reserved ahead");
    });
}

/// Guards: a small blob is written before large ones that came earlier, and shares no segment with them.
#[test]
fn a_small_blob_passes_large_ones() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &Options::default()).await;
        let ended = Mutex::new(Vec::new());
        let push = async |size: usize| {
            let (_, extent) = append(&bench, &content(size as u64, size)).await;
            ended.lock().push((size, extent.segment));
        };
        let large = join_all((0..16).map(|n| push((4 << 20) + n)));
        futures_util::future::join(large, push(1 << 10)).await;
        let ended = ended.into_inner();
        let place = ended.iter().position(|(size, _)| *size == 1 << 10);
        assert!(place.is_some_and(|place| place < 15), "{ended:?}");
        let shared = ended
            .iter()
            .filter(|(_, segment)| *segment == ended[place.unwrap_or(0)].1);
        assert_eq!(shared.count(), 1);
    });
}

/// Returns how many MiB of a segment begin in the page cache. Reading them would bring in others, and while they are
/// mapped they cannot be dropped.
async fn resident_mib(bench: &Workbench, extent: Extent) -> u64 {
    let (io, path) = (&bench.env.io, bench.segment_path(extent.segment));
    let file = io.open(CALL, &path, OpenMode::Read).await.unwrap();
    let starts = (0..extent.length / MIB).map(|number| number * MIB);
    let is_resident = |at: &u64| file.map_cached(CALL, *at, 4096).is_some();
    let count = starts.filter(is_resident).count() as u64;
    drop(file);
    io.closed().await;
    count
}

/// Returns whether what is in the page cache can be asked and dropped here.
async fn can_drop(bench: &Workbench, extent: Extent) -> bool {
    let file = std::fs::File::open(bench.segment_path(extent.segment)).unwrap();
    let mut byte = [0];
    let slices = &mut [std::io::IoSliceMut::new(&mut byte)];
    let flags = ReadWriteFlags::from_bits_retain(libc::RWF_DONTCACHE.cast_unsigned());
    let reads = rustix::io::preadv2(&file, slices, 0, flags).is_ok();
    reads && resident_mib(bench, extent).await > 0
}

/// Guards: a huge blob that is read from the drive leaves nothing in the page cache. A second reader soon after leaves
/// what it read, and a smaller blob stays at once. Of both, nothing is read that was not asked for.
#[test]
fn a_huge_blob_does_not_fill_the_page_cache() {
    run(|dir| async move {
        let options = Options {
            page_cache_bytes: 64 * MIB,
            ..Options::default()
        };
        let bench = Workbench::open(dir.path(), 1, &options).await;
        // In MiB: the length, what is read, and how much of it stays.
        for (length, reads) in [(24, [(0..24, 0), (16..24, 8)]), (8, [(0..4, 4), (4..8, 4)])] {
            let length = length << 20;
            let bytes = content(1, length);
            let (digest, extent) = dedicated(&bench, &bytes, None).await;
            if !can_drop(&bench, extent).await {
                let required =
                    std::env::var("TONNAGE_TEST_MAPPED").is_ok_and(|value| value == "require");
                assert!(
                    !required,
                    "no RWF_DONTCACHE, or files cannot be mapped here"
                );
                let skipped = b"SKIPPED: huge blobs in the page cache because kernel or file system lacks RWF_DONTCACHE, or maps no files\n";
                std::io::stderr().write_all(skipped).unwrap_or_default();
                return;
            }
            for (range, stays) in reads {
                let path = bench.segment_path(extent.segment);
                let file = bench.env.io.open(CALL, &path, OpenMode::Read).await;
                let dropped = file
                    .unwrap()
                    .advise(CALL, 0, 2 * extent.length, Residency::Done);
                dropped.await.unwrap();
                assert_eq!(resident_mib(&bench, extent).await, 0, "the drive is read");
                let range = range.start << 20..range.end << 20;
                let read = bench
                    .read(digest, extent, range.start as u64..range.end as u64)
                    .await;
                assert!(read.unwrap() == bytes[range.clone()]);
                let resident = resident_mib(&bench, extent).await;
                // The payload begins 4 KiB after a MiB. Header, table and frame stay.
                assert!(
                    (stays.max(1) - 1..=stays + 1).contains(&resident),
                    "{range:?} of {extent}: {resident}"
                );
            }
        }
    });
}
