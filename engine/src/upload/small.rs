//! Small content that comes in one piece.
//!
//! Owns: making it durable before anything names it. Refuses: sessions.

use bytes::Bytes;

use super::payload_hash::{HASH_INLINE_BYTES, PayloadHash};
use super::sessions::Uploads;
use super::space::with_space;
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::finished_blob::FinishedBlob;
use crate::limits::SMALL_CONTENT_BYTES;
use crate::segment::SmallBlob;
use crate::vocabulary::ClientId;

impl Uploads {
    /// Makes small content durable at once, for manifests. Nothing names it yet.
    pub(crate) async fn put_small(
        &self,
        content: Bytes,
        algorithm: Algorithm,
    ) -> Result<FinishedBlob> {
        let length = content.len() as u64;
        let max = SMALL_CONTENT_BYTES.max(self.shared().options.spill_threshold_bytes);
        if length > max {
            return Err(Error::TooLarge {
                what: "small content",
                length,
                max,
            });
        }
        let mut payload_hash = PayloadHash::new(algorithm);
        let payload = vec![content.clone()];
        if length <= HASH_INLINE_BYTES {
            payload_hash.update(&payload);
        } else {
            let hashed = self.shared().env.hash(ClientId::ENGINE, move || {
                payload_hash.update(&[content]);
                payload_hash
            });
            payload_hash = hashed.await.ok_or(Error::Closed)?;
        }
        let digest = payload_hash.digest();
        let pin = self.leases().pin(&[digest]).await?;
        let stored = self.stored_intact(&digest, ClientId::ENGINE).await?;
        let (extent, in_use) = if let Some(extent) = stored {
            (extent, None)
        } else {
            let checksums = payload_hash.table();
            let blob = SmallBlob {
                payload,
                length,
                digest,
                checksums,
            };
            let appender = self.segments().appender();
            let appended = with_space!(self.shared(), appender.append(blob.clone()).await)?;
            (appended.extent, Some(appended.in_use))
        };
        Ok(FinishedBlob {
            digest,
            length,
            extent,
            abandon: None,
            in_use,
            pin,
            listener: None,
        })
    }
}
