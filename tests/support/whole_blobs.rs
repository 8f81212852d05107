//! Reads of whole blobs by their digest, for tests.
//!
//! Owns: [`ByDigest`], [`InOnePiece`]. Refuses: checks of what was read.

use tonnage_engine::{BlobReader, ClientId, Digest, Error, Result, Store};

/// [`Store::open_found`] with the lookup in front.
pub trait ByDigest {
    /// Returns a reader of a blob's bytes, or `None` if the store does not have it.
    fn open_blob(&self, digest: &Digest)
    -> impl Future<Output = Result<Option<BlobReader>>> + Send;
}

impl ByDigest for Store {
    async fn open_blob(&self, digest: &Digest) -> Result<Option<BlobReader>> {
        let Some(found) = self.view().read(|view| view.blob(digest)).await? else {
            return Ok(None);
        };
        self.open_found(digest, &found, ClientId::default()).await
    }
}

/// [`BlobReader::read`] of the whole blob.
pub trait InOnePiece {
    /// Returns the whole blob. More than `max` bytes are an error.
    fn read_whole(&self, max: u64) -> impl Future<Output = Result<Vec<u8>>> + Send;
}

impl InOnePiece for BlobReader {
    async fn read_whole(&self, max: u64) -> Result<Vec<u8>> {
        if self.len() > max {
            return Err(Error::TooLarge {
                what: "blob",
                length: self.len(),
                max,
            });
        }
        let mut stream = self.read(0..self.len());
        let mut whole = Vec::new();
        while let Some(piece) = stream.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}
