//! Whole reads and writes over a backend that may move fewer bytes than asked.
//!
//! Owns: the only loops for short transfers. Refuses: retrying anything else; a failed sync in particular is never
//! repeated.
//!
//! Invariant: if bytes were moved before an operation that was not attempted, the whole counts as attempted.

use std::io;
use std::path::Path;

use bytes::{Buf, Bytes};

use super::{Call, File, Io, IoError, IoFuture, IoResult};
use crate::buffer::Buffer;

/// Fills `buffer` up to its limit from `offset`, or up to the end of the file. The caller compares [`Buffer::len`] with
/// the length it needs.
pub async fn read_up_to(
    file: &dyn File,
    call: Call,
    offset: u64,
    buffer: Buffer,
) -> IoResult<Buffer> {
    let least = buffer.room();
    read_at_least(file, call, offset, buffer, least).await
}

/// Adds at least `least` bytes from `offset` to `buffer`, and at most as many as it has room for. Adds fewer at the end
/// of the file.
pub async fn read_at_least(
    file: &dyn File,
    call: Call,
    offset: u64,
    mut buffer: Buffer,
    least: usize,
) -> IoResult<Buffer> {
    let start = buffer.len();
    while buffer.len() - start < least {
        let at = offset + (buffer.len() - start) as u64;
        let (back, count) = file.read_at(call, at, buffer).await?;
        buffer = back;
        if count == 0 {
            break;
        }
    }
    Ok(buffer)
}

/// Reads exactly as many bytes as `buffer` has room for.
///
/// # Errors
/// `UnexpectedEof` if the file ends before.
pub async fn read_exact(
    file: &dyn File,
    call: Call,
    offset: u64,
    buffer: Buffer,
) -> IoResult<Buffer> {
    let buffer = read_up_to(file, call, offset, buffer).await?;
    if buffer.room() > 0 {
        let early = format!("file ends {} bytes early", buffer.room());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, early).into());
    }
    Ok(buffer)
}

/// Writes all slices at `offset`.
pub async fn write_all(
    file: &dyn File,
    call: Call,
    offset: u64,
    slices: Vec<Bytes>,
) -> IoResult<()> {
    write(offset, slices, |at, slices| file.write_at(call, at, slices)).await
}

/// Writes all slices at `offset`, at least one byte, and makes data and size durable.
pub async fn write_all_and_sync(
    file: &dyn File,
    call: Call,
    offset: u64,
    slices: Vec<Bytes>,
) -> IoResult<()> {
    assert!(
        slices.iter().any(|slice| !slice.is_empty()),
        "nothing to write is nothing to sync"
    );
    let step = |at, slices| file.write_and_sync(call, at, slices);
    write(offset, slices, step).await
}

async fn write(
    offset: u64,
    mut slices: Vec<Bytes>,
    mut step: impl FnMut(u64, Vec<Bytes>) -> IoFuture<usize>,
) -> IoResult<()> {
    slices.retain(|slice| !slice.is_empty());
    let mut at = offset;
    while !slices.is_empty() {
        let count = match step(at, slices.clone()).await {
            Ok(0) => {
                return Err(
                    io::Error::new(io::ErrorKind::WriteZero, "the disk accepted no bytes").into(),
                );
            }
            Ok(count) => count,
            Err(IoError::NotAttempted(cause)) if at > offset => return Err(IoError::Failed(cause)),
            Err(error) => return Err(error),
        };
        at += count as u64;
        advance(&mut slices, count);
    }
    Ok(())
}

/// Makes the entries of a directory that is not kept open durable.
pub async fn sync_dir(io: &dyn Io, call: Call, path: &Path) -> IoResult<()> {
    io.open_dir(call, path).await?.sync(call).await
}

/// Drops the first `count` bytes of the slices.
fn advance(slices: &mut Vec<Bytes>, mut count: usize) {
    let mut whole = 0;
    for slice in slices.iter_mut() {
        if slice.len() <= count {
            count -= slice.len();
            whole += 1;
        } else {
            slice.advance(count);
            break;
        }
    }
    slices.drain(..whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a short write continues at the first byte that was not taken.
    #[test]
    fn advance_drops_exactly_count_bytes() {
        let mut slices = vec![
            Bytes::from_static(b"abc"),
            Bytes::from_static(b"de"),
            Bytes::from_static(b"f"),
        ];
        advance(&mut slices, 4);
        assert_eq!(
            slices,
            vec![Bytes::from_static(b"e"), Bytes::from_static(b"f")]
        );
        advance(&mut slices, 2);
        assert!(slices.is_empty());
    }
}
