//! Opening a segment for reads that leave the page cache as it is.

use super::{SegmentFiles, open};
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::io::{Class, FileRef, OpenMode};
use crate::segment::open_files::{OpenFile, Purpose};

impl SegmentFiles {
    /// Opens a segment for reads of the drive. The handle is beside those of other readers, and does not keep a retired
    /// segment from being unlinked, only its space from being free.
    pub(in crate::segment) async fn open_uncached(
        &self,
        id: SegmentId,
    ) -> Result<(FileRef, OpenFile)> {
        let path = self.path(id);
        let admitted = self.admit(Purpose::Background);
        let opened = open(
            self,
            Class::Background.call(),
            &path,
            OpenMode::ReadUncached,
            admitted,
        );
        opened
            .await
            .map_err(|error| Error::io("open segment", &path, error))
    }
}
