//! The order of writes and syncs before each 201, as the kernel saw it.
//!
//! Owns: the run of the server under strace, and [`check_order`], which reads the trace. Refuses: a trace without
//! writes, because a 201 without a segment write and a journal write proves nothing; `io_uring`, whose operations are
//! no calls. The engine above the backend, which orders them, is the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tonnage_tests::content::Content;
use tonnage_tests::http::Connection;
use tonnage_tests::process::{Server, folder};
use tonnage_tests::push::{EMPTY_JSON, Pusher, Shape};
use tonnage_tests::uring;

const CALLS: &str = "open,openat,openat2,write,pwrite64,pwritev,pwritev2,writev,sendto,sendmsg,fsync,fdatasync,\
    sync_file_range,unlink,unlinkat,rename,renameat2";
/// The empty object, a small blob, a large one, a manifest.
const PUSHES: usize = 4;

/// Pushes under strace and checks the trace. Prints why it skips where strace cannot run.
pub fn watch() -> Result<(), String> {
    if !uring::strace("every_201_leaves_after_its_syncs")? {
        return Ok(());
    }
    let folder = folder()?;
    let trace = folder.path().join("trace");
    let trace_option = format!("trace={CALLS}");
    let wrapper = ["strace", "-f", "-y", "-s", "64", "-e", &trace_option, "-o"];
    let mut wrapper = wrapper.map(str::to_owned).to_vec();
    wrapper.push(trace.display().to_string());
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    // strace does not see what a ring does.
    let threads = ["--io", "threads"].map(str::to_owned).to_vec();
    let mut server = Server::start_as(&data, &log, &wrapper, threads)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    runtime.block_on(push(&server))?;
    server.stop()?;
    let text = read(&trace)?;
    let seen = check_order(&text).map_err(|why| format!("{why}\ntrace:\n{}", excerpt(&text)))?;
    if seen != PUSHES {
        return Err(format!(
            "{seen} answers 201 in the trace of {PUSHES} pushes"
        ));
    }
    Ok(())
}

async fn push(server: &Server) -> Result<(), String> {
    let client = Connection::connect(server.address()).await?;
    let mut pusher = Pusher::new(client, "crash/traced");
    pusher.empty_json().await?;
    let (small, large) = (Content::new(1, 1000), Content::new(2, 70 << 20));
    let (small_digest, large_digest) = (small.digest(), large.digest());
    pusher.blob(small, &small_digest, Shape::Monolithic).await?;
    pusher.blob(large, &large_digest, Shape::Streamed).await?;
    let layers = [(small_digest, small.length), (large_digest, large.length)];
    pusher
        .put_manifest("v1", &Pusher::manifest(&layers, EMPTY_JSON.len() as u64))
        .await
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the lines that the check reads, up to a limit.
fn excerpt(trace: &str) -> String {
    let telling = |line: &&str| {
        ["/segments", "/journal", "HTTP/1.1 201"]
            .iter()
            .any(|word| line.contains(word))
    };
    let lines: Vec<&str> = trace.lines().filter(telling).collect();
    lines[lines.len().saturating_sub(200)..].join("\n")
}

/// The state of one file at a point of the trace.
#[derive(Debug, Default)]
struct File {
    /// The number of writes that began since the last sync began.
    unsynced: usize,
    /// Writes that began and have not ended, by thread.
    writing: Vec<String>,
    /// `unsynced` when the current sync of a thread began: the number of writes that it covers if it succeeds.
    syncing: BTreeMap<String, usize>,
    /// The file was created, and its directory was not synced since.
    unlisted: bool,
    /// The trace shows the creation of the file.
    created: bool,
}

/// A call that entered the kernel.
#[derive(Debug)]
struct Call {
    name: String,
    path: String,
    /// New files whose directory this call syncs.
    covered: Vec<String>,
    /// The call may create its file. The trace shows this only where the call begins.
    creates: bool,
}

/// A position in the trace: a line number.
type At = usize;

#[derive(Debug, Default)]
struct Checker {
    files: BTreeMap<String, File>,
    /// The position where the last segment write, segment sync or directory sync ended.
    data_done: At,
    /// The position where the last journal write began.
    journal_written: At,
    segment_writes: usize,
    journal_writes: usize,
    /// The current call of each thread.
    open_calls: BTreeMap<String, Call>,
    answers: usize,
}

/// Reads a trace (`strace -f -y -o`) of a server with one sequential client. Returns the number of 201 answers. Fails
/// at the first one that is not after its syncs.
pub fn check_order(trace: &str) -> Result<usize, String> {
    let mut checker = Checker::default();
    for (at, line) in trace.lines().enumerate() {
        checker
            .line(at + 1, line)
            .map_err(|why| format!("line {}: {why}: {line}", at + 1))?;
    }
    Ok(checker.answers)
}

impl Checker {
    fn line(&mut self, at: At, line: &str) -> Result<(), String> {
        let Some((thread, rest)) = line.split_once(' ') else {
            return Ok(());
        };
        let (thread, rest) = (thread.to_owned(), rest.trim_start());
        if let Some(rest) = rest.strip_prefix("<... ") {
            let Some(call) = self.open_calls.remove(&thread) else {
                return Ok(());
            };
            return self.end(at, &thread, &call, rest);
        }
        let Some((name, arguments)) = rest.split_once('(') else {
            return Ok(());
        };
        let path = path_of(name, arguments);
        let covered = self.begin(at, &thread, name, &path, arguments)?;
        let call = Call {
            name: name.to_owned(),
            path,
            covered,
            creates: arguments.contains("O_CREAT"),
        };
        if rest.ends_with("<unfinished ...>") {
            self.open_calls.insert(thread, call);
            return Ok(());
        }
        self.end(at, &thread, &call, arguments)
    }

    /// Handles a call that enters the kernel. Returns the new files in a directory that a sync of it covers.
    fn begin(
        &mut self,
        at: At,
        thread: &str,
        call: &str,
        path: &str,
        arguments: &str,
    ) -> Result<Vec<String>, String> {
        match call {
            // A mark covers only frames that are durable already; the next frame's sync makes it durable.
            "pwrite64" | "pwritev" | "pwritev2" if arguments.contains("TMRK") => {}
            "write" | "pwrite64" | "pwritev" | "pwritev2" if is_kept(path) => {
                let file = self.files.entry(path.to_owned()).or_default();
                file.unsynced += 1;
                file.writing.push(thread.to_owned());
                if is_journal(path) {
                    self.journal_written = at;
                    self.journal_writes += 1;
                } else {
                    self.segment_writes += 1;
                }
            }
            "fsync" | "fdatasync" if is_kept(path) => {
                let file = self.files.entry(path.to_owned()).or_default();
                // A sync does not cover a write that has not ended when it begins.
                let covered = if file.writing.is_empty() {
                    file.unsynced
                } else {
                    0
                };
                file.syncing.insert(thread.to_owned(), covered);
            }
            "fsync" | "fdatasync" if is_folder(path) => {
                let inside = format!("{path}/");
                let unlisted = self.files.iter().filter(|(_, file)| file.unlisted);
                return Ok(unlisted
                    .map(|(name, _)| name.clone())
                    .filter(|name| name.starts_with(&inside))
                    .collect());
            }
            "write" | "writev" | "sendto" | "sendmsg" if arguments.contains("HTTP/1.1 201") => {
                self.answer()?;
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// Handles a call that leaves the kernel.
    fn end(&mut self, at: At, thread: &str, call: &Call, rest: &str) -> Result<(), String> {
        let path = call.path.as_str();
        let result = rest.rsplit_once(" = ").map_or("", |(_, result)| result);
        let failed = result.starts_with('-') || result.starts_with('?');
        match call.name.as_str() {
            "write" | "pwrite64" | "pwritev" | "pwritev2" if is_kept(path) => {
                let file = self.files.entry(path.to_owned()).or_default();
                file.writing.retain(|writer| writer != thread);
                self.note_data(at, path);
            }
            "fsync" | "fdatasync" if is_kept(path) => {
                let file = self.files.entry(path.to_owned()).or_default();
                let covered = file.syncing.remove(thread).unwrap_or(0);
                if failed {
                    return Err("a sync failed".into());
                }
                file.unsynced -= covered.min(file.unsynced);
                // A second sync that began with the same writes covers nothing more.
                let left = file.unsynced;
                file.syncing
                    .values_mut()
                    .for_each(|other| *other = (*other).min(left));
                self.note_data(at, path);
            }
            "fsync" | "fdatasync" if is_folder(path) && !failed => {
                for name in &call.covered {
                    self.files.entry(name.clone()).or_default().unlisted = false;
                }
                if path.ends_with("/segments") {
                    self.data_done = at;
                }
            }
            "open" | "openat" | "openat2" if call.creates && !failed => {
                if let Some(path) = between(result, '<', '>').filter(|path| is_kept(path)) {
                    let file = self.files.entry(path.to_owned()).or_default();
                    file.unlisted |= !file.created;
                    file.created = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_data(&mut self, at: At, path: &str) {
        if !is_journal(path) {
            self.data_done = at;
        }
    }

    /// Checks a 201 that is about to be sent: every write before it must be durable, in order.
    fn answer(&mut self) -> Result<(), String> {
        for (path, file) in &self.files {
            if file.unsynced > 0 {
                return Err(format!(
                    "a 201 was sent with {} unsynced writes to {path}",
                    file.unsynced
                ));
            }
            if !file.created {
                return Err(format!("the trace does not show how {path} was created"));
            }
            if file.unlisted {
                return Err(format!(
                    "a 201 was sent before the directory of the new {path} was synced"
                ));
            }
        }
        if self.segment_writes == 0 {
            return Err("a 201 was sent and no segment was written for it".into());
        }
        if self.journal_writes == 0 {
            return Err("a 201 was sent and the journal was not written for it".into());
        }
        if self.journal_written < self.data_done {
            return Err(format!(
                "the journal was written at line {}, before its data was durable at line {}",
                self.journal_written, self.data_done
            ));
        }
        (self.segment_writes, self.journal_writes) = (0, 0);
        self.answers += 1;
        Ok(())
    }
}

/// Returns the file of a call, as `-y` shows descriptors: `9</path>`.
fn path_of(call: &str, arguments: &str) -> String {
    if call.starts_with("open") {
        return String::new();
    }
    let descriptor = arguments.split([',', ')']).next().unwrap_or_default();
    between(descriptor, '<', '>').unwrap_or_default().to_owned()
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    text.split_once(open)?
        .1
        .split_once(close)
        .map(|(inside, _)| inside)
}

fn is_journal(path: &str) -> bool {
    path.ends_with(".journal")
}

fn is_kept(path: &str) -> bool {
    is_journal(path) || path.ends_with(".segment")
}

fn is_folder(path: &str) -> bool {
    path.ends_with("/segments") || path.ends_with("/journal")
}

#[cfg(test)]
mod tests {
    use super::check_order;

    const GOOD: &[&str] = &[
        r#"1 openat(AT_FDCWD</d>, "/d/journal/01.journal", O_RDWR|O_CREAT|O_EXCL, 0600) = 5</d/journal/01.journal>"#,
        "1 fsync(6</d/journal>) = 0",
        r#"2 openat(AT_FDCWD</d>, "/d/segments/01.segment", O_RDWR|O_CREAT|O_EXCL, 0600) = 7</d/segments/01.segment>"#,
        r#"2 pwrite64(7</d/segments/01.segment>, "abc"..., 4096, 0) = 4096"#,
        "2 fdatasync(7</d/segments/01.segment> <unfinished ...>",
        r#"3 sendto(9<socket:[1]>, "HTTP/1.1 202 Accepted"..., 21, 0, NULL, 0) = 21"#,
        "2 <... fdatasync resumed>) = 0",
        "2 fsync(8</d/segments>) = 0",
        r#"1 pwrite64(5</d/journal/01.journal>, "TFRM"..., 4096, 4096) = 4096"#,
        "1 fdatasync(5</d/journal/01.journal>) = 0",
        r#"3 writev(9<socket:[1]>, [{iov_base="HTTP/1.1 201 Created\r\n", iov_len=22}], 1) = 22"#,
    ];

    fn with(change: impl Fn(&mut Vec<&str>)) -> Result<usize, String> {
        let mut lines = GOOD.to_vec();
        change(&mut lines);
        check_order(&lines.join("\n"))
    }

    /// Guards: the check accepts the order that DURABILITY.md promises.
    #[test]
    fn the_promised_order_is_accepted() {
        assert_eq!(with(|_| {}), Ok(1));
    }

    /// Guards: a new file is noticed also if another thread's call is between the two lines of its creation.
    #[test]
    fn a_creation_in_two_lines_is_noticed() {
        let without_folder_sync = with(|lines| {
            lines.remove(7);
            let whole = lines.remove(2);
            let (begin, end) = whole.split_once(") = ").expect("a whole call");
            let begin = format!("{begin} <unfinished ...>");
            lines.insert(2, Box::leak(begin.into_boxed_str()));
            lines.insert(
                3,
                Box::leak(format!("2 <... openat resumed>) = {end}").into_boxed_str()),
            );
        });
        assert!(without_folder_sync.unwrap_err().contains("directory"));
    }

    /// Guards: the check fails if any one write or sync is missing.
    #[test]
    fn each_missing_step_is_noticed() {
        for gone in [0, 1, 2, 7, 9] {
            assert!(
                with(|lines| {
                    lines.remove(gone);
                })
                .is_err(),
                "without {}",
                GOOD[gone]
            );
        }
        assert!(
            with(|lines| drop(lines.drain(2..8)))
                .unwrap_err()
                .contains("no segment")
        );
        assert!(
            with(|lines| drop(lines.drain(8..10)))
                .unwrap_err()
                .contains("journal was not")
        );
        let without_data_sync = with(|lines| {
            lines.remove(6);
            lines.remove(4);
        });
        assert!(without_data_sync.unwrap_err().contains("unsynced"));
    }

    /// Guards: the check fails if a journal frame is written before its data is durable.
    #[test]
    fn the_wrong_order_is_noticed() {
        let early_journal = with(|lines| {
            let frame = lines.remove(8);
            lines.insert(5, frame);
        });
        assert!(early_journal.unwrap_err().contains("before its data"));
        let sync_during_write = with(|lines| {
            lines[3] =
                r#"4 pwrite64(7</d/segments/01.segment>, "abc"..., 4096, 0 <unfinished ...>"#;
            lines.insert(7, "4 <... pwrite64 resumed>) = 4096");
        });
        assert!(sync_during_write.unwrap_err().contains("unsynced"));
    }

    /// Guards: `sync_file_range` starts writeback and does not count as a sync.
    #[test]
    fn writeback_is_not_a_sync() {
        let weak = with(|lines| {
            lines[4] = "2 sync_file_range(7</d/segments/01.segment>, 0, 0, 2 <unfinished ...>";
            lines[6] = "2 <... sync_file_range resumed>) = 0";
        });
        assert!(weak.unwrap_err().contains("unsynced"));
    }
}
