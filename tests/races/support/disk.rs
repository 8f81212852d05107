//! The simulated disk on a machine whose scheduler is `shuttle`.
//!
//! Owns: [`Disk`], and queries of its journal. Refuses: crashes and noise, which the simulator tests (`tests/sim`).
//! Here only the order of threads matters.

use std::path::Path;
use std::sync::Arc;

use tonnage_engine::Lsn;
use tonnage_engine::format::journal::FrameHeader;
use tonnage_engine::limits::JOURNAL_BLOCK_BYTES;
use tonnage_machine::{Fault, Host, Image, Noise, OpKind, SimDisk};

/// A simulated disk. All clones are the same one.
#[derive(Debug, Clone)]
pub struct Disk(pub SimDisk);

impl Disk {
    /// Creates an empty disk of `host`.
    pub fn new(host: Arc<dyn Host>) -> Self {
        let disk = SimDisk::on(host, 1, &Image::default());
        disk.set_noise(Noise::NONE);
        Self(disk)
    }

    /// Returns the last transaction that is certainly on the disk.
    pub fn durable(&self) -> Lsn {
        let image = self.0.durable_image();
        let journal = image.files.iter().filter(|(path, _)| is_journal(path));
        let blocks = journal.flat_map(|(_, content)| {
            let blocks = content.to_vec();
            let blocks = blocks.chunks(JOURNAL_BLOCK_BYTES).map(last_lsn);
            blocks.collect::<Vec<_>>()
        });
        Lsn(blocks.max().unwrap_or_default())
    }

    /// Fails the next sync of a journal file.
    pub fn fail_journal_sync(&self) {
        self.0
            .add_fault(Fault::nth(OpKind::SyncData, 1).on("/journal/"));
    }

    /// Returns whether the file whose sync failed was written to afterwards.
    pub fn wrote_after_failure(&self) -> bool {
        let log = self.0.log();
        let mut after = log
            .iter()
            .skip_while(|record| record.kind != OpKind::SyncData || record.errno.is_none());
        let failed = after.next().expect("a sync failed");
        after.any(|record| record.kind == OpKind::Write && record.path == failed.path)
    }

    /// Returns whether a file of this name exists.
    pub fn has(&self, path: &Path) -> bool {
        self.0.live_image().files.contains_key(path)
    }
}

fn is_journal(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("journal"))
}

/// Returns the last transaction of the frame that begins here, or 0.
fn last_lsn(block: &[u8]) -> u64 {
    let nonce = block.get(8..16).and_then(|nonce| nonce.try_into().ok());
    let frame =
        nonce.and_then(|nonce| FrameHeader::decode_anywhere(block, u64::from_le_bytes(nonce)).ok());
    match frame {
        Some(frame) if frame.transactions > 0 => {
            frame.first_lsn.0 + u64::from(frame.transactions) - 1
        }
        Some(_) | None => 0,
    }
}
