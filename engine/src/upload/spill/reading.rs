//! Reading payload back, with each chunk checked.

use std::sync::Arc;

use bytes::Bytes;

use super::Spill;
use crate::digest::{Algorithm, Hasher};
use crate::error::{Error, Result};
use crate::format::checksum::check_chunks;
use crate::format::record::DEDICATED_PAYLOAD;
use crate::io::Class;
use crate::io::exact::read_exact;
use crate::limits::{CHUNK_BYTES, READ_BYTES_MAX};
use crate::memory::{ReadPool, Reading};
use crate::segment::SegmentFile;
use crate::upload::payload_hash::PayloadHash;
use crate::vocabulary::ClientId;

impl Spill {
    /// Hashes the first `length` bytes of the payload again, checking each chunk against `table`.
    pub(in crate::upload) async fn hash_again(
        &mut self,
        pool: &ReadPool,
        algorithm: Algorithm,
        length: u64,
        table: &[u32],
    ) -> Result<Hasher> {
        self.settle_writes(0).await?;
        self.reopen().await?;
        let (env, file) = (self.shared.env.clone(), Arc::clone(self.writer().file()));
        let client = self.writer().client();
        let mut hasher = Hasher::new(algorithm);
        let window = READ_BYTES_MAX;
        let mut entries = table.chunks(window / CHUNK_BYTES);
        let mut offset = 0;
        while offset < length {
            let entries = entries.next().unwrap_or_default().to_vec();
            let bytes = usize::try_from(length - offset).map_or(window, |left| left.min(window));
            let piece = read_piece(pool, &file, client, (offset, bytes)).await?;
            let hashed = env.hash(client, move || {
                check_chunks(&piece, &entries)?;
                hasher.update(&piece);
                Ok(hasher)
            });
            let checked: Option<std::result::Result<Hasher, (usize, _)>> = hashed.await;
            hasher = checked.ok_or(Error::Closed)?.map_err(
                |(at, what): (usize, crate::format::codec::Malformed)| {
                    Error::corrupt(file.path(), DEDICATED_PAYLOAD + offset + at as u64, what.0)
                },
            )?;
            offset += bytes as u64;
        }
        Ok(hasher)
    }

    /// Reads the payload of a small upload back, checking each chunk.
    pub(in crate::upload) async fn read_back(
        &mut self,
        pool: &ReadPool,
        payload_hash: &PayloadHash,
    ) -> Result<Bytes> {
        self.settle_writes(0).await?;
        self.reopen().await?;
        let (file, client) = (Arc::clone(self.writer().file()), self.writer().client());
        let bytes = usize::try_from(payload_hash.length()).unwrap_or(usize::MAX);
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let piece = read_piece(pool, &file, client, (0, bytes)).await?;
        match check_chunks(&piece, &payload_hash.table()) {
            Ok(()) => Ok(piece),
            Err((at, what)) => {
                let at = DEDICATED_PAYLOAD + at as u64;
                Err(Error::corrupt(file.path(), at, what.0))
            }
        }
    }
}

async fn read_piece(
    pool: &ReadPool,
    file: &Arc<SegmentFile>,
    client: ClientId,
    (offset, bytes): (u64, usize),
) -> Result<Bytes> {
    let buffer = pool.take(bytes, &Reading::internal()).await;
    let read = read_exact(
        file.file(),
        Class::UploadWrite.call().for_client(client),
        DEDICATED_PAYLOAD + offset,
        buffer,
    )
    .await;
    read.map(crate::buffer::Buffer::freeze)
        .map_err(|error| Error::io("read segment", file.path(), error))
}
