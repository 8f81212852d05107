//! Windows of real files.

#![expect(clippy::disallowed_types, reason = "these tests are of the seam")]

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::*;
use crate::io::Class;

/// Returns the byte at an offset of every file.
fn byte_at(offset: u64) -> u8 {
    (offset / 100).to_le_bytes()[0]
}

/// A file of which all is in memory.
struct TestFile {
    _directory: tempfile::TempDir,
    path: PathBuf,
    file: std::fs::File,
    windows: Arc<FileWindows>,
}

fn new_windows(file: &std::fs::File) -> Arc<FileWindows> {
    let descriptor = file.try_clone().unwrap().into();
    Arc::new(FileWindows::new(&descriptor).expect("files were mapped before"))
}

impl TestFile {
    /// Makes a synced one. `None` where files cannot be mapped, unless that is required.
    fn new(bytes: usize) -> Option<Self> {
        if Arena::of_process().is_none() {
            let required =
                std::env::var("TONNAGE_TEST_MAPPED").is_ok_and(|value| value == "require");
            assert!(!required, "files cannot be mapped here");
            // Not captured, unlike what `eprintln!` writes.
            let skipped = b"SKIPPED: mapped windows because files cannot be mapped here\n";
            std::io::stderr().write_all(skipped).unwrap_or_default();
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut options = std::fs::File::options();
        options.create_new(true).read(true).write(true);
        let mut file = options.open(&path).unwrap();
        let content: Vec<u8> = (0..bytes as u64).map(byte_at).collect();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        let windows = new_windows(&file);
        Some(Self {
            _directory: directory,
            path,
            file,
            windows,
        })
    }

    fn map(&self, offset: u64, length: usize) -> Option<MappedWindow> {
        static POOL: LazyLock<Arc<Pool>> = LazyLock::new(|| Arc::new(Pool::start().unwrap()));
        let descriptor = self.file.try_clone().unwrap().into();
        MappedWindow::new(&self.windows, &descriptor, offset, length, &POOL)
    }

    /// Closes the file as far as windows are concerned.
    fn close_windows(&mut self) {
        self.windows = new_windows(&self.file);
    }

    /// Drops what no process has mapped from memory.
    fn uncache(&self) {
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    /// Returns how often it is mapped.
    fn mappings(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.matches(self.path.to_str().unwrap()).count()
    }
}

/// Uses every byte.
fn sum(window: &MappedWindow) -> u64 {
    window.bytes().iter().map(|byte| u64::from(*byte)).sum()
}

/// Guards: a window has the bytes of the file at any offset, also where it is mapped again. It stays mapped for its
/// next reader, but not once its file is closed.
#[test]
fn a_window_has_the_bytes_of_the_file() {
    let Some(mut file) = TestFile::new(2 << 20) else {
        return;
    };
    for (offset, length) in [(0, 1 << 20), (4096, 4096), (5000, 1 << 20), (1, 1)] {
        for _ in 0..3 {
            let (one, other) = (file.map(offset, length).unwrap(), file.map(offset, length));
            for window in [one, other.unwrap()] {
                assert_eq!(window.bytes().len(), length);
                assert_eq!(window.bytes()[0], byte_at(offset));
            }
        }
    }
    assert!(file.map(0, (1 << 20) + 8192).is_none(), "too large");
    assert_eq!(file.mappings(), 8, "two for each");
    let window = file.map(0, 1 << 20).unwrap();
    file.close_windows();
    assert_eq!(file.mappings(), 1, "the one that is in use");
    assert_eq!(window.bytes()[200], 2);
    drop(window);
    assert_eq!(file.mappings(), 0);
}

/// Guards: a page that the kernel evicted is noticed when it is used again, by the code of this process and by a system
/// call.
#[test]
fn a_page_that_is_used_again_is_a_fault() {
    let Some(file) = TestFile::new(1 << 20) else {
        return;
    };
    let window = file.map(0, 1 << 20).unwrap();
    sum(&window);
    let mut other = tempfile::tempfile().unwrap();
    let uses: [&mut dyn FnMut(&MappedWindow); 2] =
        [&mut |window| assert!(sum(window) > 0), &mut |window| {
            other.write_all(window.bytes()).unwrap();
        }];
    for use_bytes in uses {
        use_bytes(&window);
        let watch = FaultWatch::begin();
        use_bytes(&window);
        assert!(watch.saw_none(), "nothing was evicted");
        window.slot.pages().evict().unwrap();
        use_bytes(&window);
        assert!(!watch.saw_none(), "all of it was evicted");
    }
}

/// Guards: a page that cannot be read, here behind the end of a truncated file, reads as zeros and does not end the
/// process. A later window at the same addresses has the bytes of its file.
#[test]
fn a_page_that_cannot_be_read_is_zeros() {
    let Some(file) = TestFile::new(1 << 20) else {
        return;
    };
    let window = file.map(0, 1 << 20).unwrap();
    file.file.set_len(8192).unwrap();
    assert!(
        window.bytes()[..8192]
            .iter()
            .rev()
            .take(1000)
            .all(|byte| *byte != 0)
    );
    assert!(window.bytes()[8192..].iter().all(|byte| *byte == 0));
    assert!(file.map(0, 1 << 20).is_none(), "not all of it is there");
    drop(window);
    file.file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    let window = file.map(0, 1 << 20).unwrap();
    assert!(window.bytes().iter().all(|byte| *byte == 7));
}

/// Guards: what is not in memory is not mapped, and what is no longer in memory can be read again.
#[test]
fn only_what_is_in_memory_is_mapped() {
    let Some(mut file) = TestFile::new(1 << 20) else {
        return;
    };
    let window = Arc::new(file.map(0, 1 << 20).unwrap());
    assert!(window.is_resident());
    file.uncache();
    let load = Arc::clone(&window).load(Class::ForegroundRead.call());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(load).unwrap();
    assert!(window.is_resident());
    drop(window);
    file.close_windows();
    file.uncache();
    if file.map(0, 1 << 20).is_some() {
        // A file system in memory has nothing else.
        let kind = rustix::fs::fstatfs(&file.file).unwrap().f_type;
        assert_eq!(kind, 0x0102_1994, "mapped without a read");
    }
}
