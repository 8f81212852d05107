//! Finds, creates and checks the superblock.
//!
//! Owns: what a directory is: a store, a store being created, empty, or something else. Refuses: changing a directory
//! that holds foreign files.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::names::{DIRECTORIES, is_ours, list};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::format::superblock::{
    COPY_BYTES, Decoded, FORMAT_VERSION, SUPERBLOCK_BYTES, Superblock,
};
use crate::io::{Class, Env, Io, OpenMode, exact};
use crate::journal;

/// Name of the superblock's file.
pub(crate) const SUPERBLOCK: &str = "superblock";
/// Name of the socket on which a running server accepts its operator's requests.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Directory in the root of a new ext4 file system, where a store may be created.
const LOST_AND_FOUND: &str = "lost+found";
/// Directories beside a store that the program keeps there: users may be added before a store is created.
const BESIDE: [&str; 2] = ["auth", "tls"];

/// What a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The directory does not exist.
    Absent,
    /// Empty, or a store whose creation was cut short.
    Fresh,
    /// A store: it has a superblock.
    Store,
}

/// Returns what `store` is, without changing it.
///
/// # Errors
/// [`Error::Foreign`] if it holds something else, [`Error::Corrupt`] if it is a store that lost its superblock.
pub(crate) async fn classify(io: &dyn Io, store: &Path) -> Result<Kind> {
    let names = match io.list_dir(Class::Directory.call(), store).await {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Absent),
        Err(source) => return Err(Error::io("list", store, source)),
    };
    if names.iter().any(|name| name == SUPERBLOCK) {
        return Ok(Kind::Store);
    }
    let traces = traces(io, store, &names).await?;
    if let Some(trace) = traces.journal.as_ref().or(traces.other.as_ref()) {
        let path = store.join(SUPERBLOCK);
        let what = format!(
            "missing, and the store was in use: {trace} exists; restore it before opening the store"
        );
        return Err(Error::corrupt(&path, 0, what));
    }
    if let Some(other) = traces.foreign {
        let why = format!("it has no superblock, and it holds {other:?}");
        return Err(Error::Foreign {
            path: store.to_path_buf(),
            why,
        });
    }
    Ok(Kind::Fresh)
}

/// Reads and checks the superblock of a store. Returns `Ok(None)` if its creation was cut short.
pub(crate) async fn read(io: &dyn Io, store: &Path) -> Result<Option<(Superblock, Vec<u32>)>> {
    let path = store.join(SUPERBLOCK);
    let failed = |source| Error::io("read", &path, source);
    let file = io
        .open(Class::Background.call(), &path, OpenMode::Read)
        .await
        .map_err(failed)?;
    let buffer = Buffer::unpooled(SUPERBLOCK_BYTES);
    let bytes = exact::read_up_to(&*file, Class::Background.call(), 0, buffer)
        .await
        .map_err(failed)?;
    match Superblock::decode(bytes.filled()) {
        Decoded::Usable {
            read_only: true, ..
        } => Err(Error::Unsupported {
            path,
            needs: "a feature that this program can only read".to_owned(),
            supports: format!("on-disk format {FORMAT_VERSION}"),
        }),
        Decoded::Usable {
            superblock,
            damaged_copies,
            read_only: false,
        } => {
            // If nothing was ever stored, the write of the copies may have been cut short, or never synced, which the
            // page cache hides. Then the superblock is written again.
            let is_used = is_used(io, store).await?;
            Ok(is_used.then_some((superblock, damaged_copies)))
        }
        Decoded::Unsupported { needs } => Err(Error::Unsupported {
            path,
            needs,
            supports: format!("on-disk format {FORMAT_VERSION}"),
        }),
        Decoded::Damaged(what) => {
            if !is_used(io, store).await? {
                return Ok(None);
            }
            let what = format!(
                "no usable copy ({what}), and the store was in use; restore it before opening the store"
            );
            Err(Error::corrupt(&path, 0, what))
        }
    }
}

/// Whether anything was ever stored in the store. Then the journal has a file.
///
/// # Errors
/// [`Error::Corrupt`] if there are other traces and no journal file: the journal is elsewhere, and an open without it
/// would create another store.
async fn is_used(io: &dyn Io, store: &Path) -> Result<bool> {
    let names = list(io, &journal::directory(store)).await?;
    if names.iter().any(|name| is_ours("journal", name)) {
        // Nearly always so. The other directories may have very many names.
        return Ok(true);
    }
    let names = list(io, store).await?;
    let traces = traces(io, store, &names).await?;
    match traces.other {
        Some(trace) => {
            let what = format!(
                "no journal file is in it, and the store was in use: {trace} exists; mount or restore the store's directories \
                 before opening the store"
            );
            Err(Error::corrupt(&journal::directory(store), 0, what))
        }
        None => Ok(false),
    }
}

/// Names in a directory beside the superblock; one example of each kind, relative to it.
#[derive(Debug, Default)]
struct Traces {
    /// A journal file. The superblock is durable before the first one is created.
    journal: Option<String>,
    /// Another file of a store. The first journal file is durable before any of them is created.
    other: Option<String>,
    /// A file that no store creates.
    foreign: Option<String>,
}

/// Looks for traces of a store in its directory, whose entries are `names`, and in the directories below.
async fn traces(io: &dyn Io, store: &Path, names: &[String]) -> Result<Traces> {
    let mut traces = Traces::default();
    for name in names {
        if is_ours("", name) {
            traces.other.get_or_insert_with(|| name.clone());
        } else if ![SUPERBLOCK, ADMIN_SOCKET, LOST_AND_FOUND].contains(&name.as_str())
            && !DIRECTORIES.contains(&name.as_str())
            && !BESIDE.contains(&name.as_str())
        {
            traces.foreign.get_or_insert_with(|| name.clone());
        }
    }
    for directory in DIRECTORIES {
        for name in list(io, &store.join(directory)).await? {
            let found = match directory {
                _ if name == LOST_AND_FOUND => continue,
                _ if !is_ours(directory, &name) => &mut traces.foreign,
                "journal" => &mut traces.journal,
                _ => &mut traces.other,
            };
            found.get_or_insert_with(|| format!("{directory}/{name}"));
        }
    }
    Ok(traces)
}

/// Creates the directories and the superblock, durable on return. Continues where an earlier attempt stopped.
pub(crate) async fn create(env: &Env, store: &Path) -> Result<Superblock> {
    for name in DIRECTORIES {
        create_dir(&*env.io, &store.join(name)).await?;
    }
    let mut random = [0; 32];
    env.rng.fill(&mut random);
    let (store_id, hash_key) = random.split_at(16);
    let superblock = Superblock {
        store_id: <[u8; 16]>::try_from(store_id).unwrap_or_default(),
        hash_key: <[u8; 16]>::try_from(hash_key).unwrap_or_default(),
        compatible: 0,
        read_only_compatible: 0,
        incompatible: 0,
        created_unix_ms: env.clock.wall_unix_ms(),
    };
    sync_dir(&*env.io, store).await?;
    let path = store.join(SUPERBLOCK);
    let failed = |source| Error::io("write", &path, source);
    let file = match env
        .io
        .open(Class::Background.call(), &path, OpenMode::CreateNew)
        .await
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            env.io
                .open(Class::Background.call(), &path, OpenMode::Write)
                .await
        }
        other => other,
    }
    .map_err(failed)?;
    exact::write_all(
        &*file,
        Class::Background.call(),
        0,
        vec![Bytes::from(superblock.encode())],
    )
    .await
    .map_err(failed)?;
    file.sync_data(Class::Background.call())
        .await
        .map_err(failed)?;
    sync_dir(&*env.io, store).await?;
    Ok(superblock)
}

/// Writes these copies of the superblock again; the others stay. A failure is only logged, because the others are
/// intact.
pub(crate) async fn repair(io: &dyn Io, store: &Path, superblock: &Superblock, copies: &[u32]) {
    let path = store.join(SUPERBLOCK);
    let written = async {
        if copies.is_empty() {
            return Ok(());
        }
        let file = io
            .open(Class::Background.call(), &path, OpenMode::Write)
            .await?;
        for copy in copies {
            let bytes = vec![Bytes::from(superblock.encode_copy(*copy))];
            let at = u64::from(*copy) * COPY_BYTES as u64;
            exact::write_all(&*file, Class::Background.call(), at, bytes).await?;
        }
        file.sync_data(Class::Background.call()).await
    };
    if let Err(error) = written.await {
        let path = path.display();
        tracing::warn!(%path, %error, "damaged copies of the superblock could not be written again; others are intact");
    }
}

/// Creates the store's own directory and its missing parents.
pub(crate) async fn create_path(io: &dyn Io, path: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut next = path;
    while let Err(error) = create_dir(io, next).await {
        match next.parent().filter(|above| !above.as_os_str().is_empty()) {
            Some(above) if error.is_not_found() => {
                missing.push(next);
                next = above;
            }
            _ => return Err(error),
        }
    }
    for path in missing.into_iter().rev() {
        create_dir(io, path).await?;
    }
    Ok(())
}

/// Makes the name of the store's directory and those of its parents durable.
///
/// They may be new, or left by a process that was killed before it synced them, which the page cache hides. `made`
/// says that this process created the last one.
pub(crate) async fn sync_path(io: &dyn Io, path: &Path, made: bool) -> Result<()> {
    let mut must = made;
    for above in path.ancestors().skip(1) {
        let here = above.as_os_str().is_empty();
        match sync_dir(io, if here { Path::new(".") } else { above }).await {
            // This process may not read this directory, or it cannot be synced: others created what is below it.
            Err(error) if !must && error.is_inaccessible() => return Ok(()),
            synced => synced?,
        }
        must = false;
    }
    Ok(())
}

/// Creates a directory unless it exists.
pub(crate) async fn create_dir(io: &dyn Io, path: &Path) -> Result<()> {
    match io.create_dir(Class::Directory.call(), path).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(Error::io("create directory", path, source)),
    }
    Ok(())
}

/// Makes the entries of a directory durable.
pub(crate) async fn sync_dir(io: &dyn Io, path: &Path) -> Result<()> {
    exact::sync_dir(io, Class::Directory.call(), path)
        .await
        .map_err(|source| Error::io("sync directory", path, source))
}
