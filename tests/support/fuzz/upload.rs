//! Fuzz target for the log of an unfinished upload, and the hash that continues from it.
//!
//! The input: a byte of choices, then the file, or (lowest bit) fields of a header and of checkpoints, which are
//! completed with magic, length, place and checksum. Checked: the values in the log are consistent, and a hash
//! continues from its mid-state or is rejected.

use tonnage_engine::Hasher;
use tonnage_engine::format::checksum::ChunkChecksums;
use tonnage_engine::format::upload_log::{HEADER_BYTES, UploadCheckpoint, replay};
use tonnage_engine::limits::CHUNK_BYTES;

use super::input::Input;
use super::seal;

const BUILD: u8 = 1;
const FIXED_BYTES: usize = 76;

/// Runs the target on one log.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let file = if choices & BUILD == 0 {
        input.all().to_vec()
    } else {
        build(input)
    };
    let Some(log) = replay(&file) else { return };
    assert!(log.end >= HEADER_BYTES as u64 && log.end <= file.len() as u64);
    let last = &log.last;
    assert_eq!(
        last.checksums.len() as u64,
        last.mark.length / CHUNK_BYTES as u64
    );
    let resumed = ChunkChecksums::resume(last.checksums.clone(), last.mark);
    assert_eq!(resumed.map(|sums| sums.length()), Some(last.mark.length));
    let again = UploadCheckpoint {
        first_chunk: 0,
        ..last.clone()
    };
    let encoded = again.encode(&log.header.upload, HEADER_BYTES as u64);
    let decoded = UploadCheckpoint::decode(&encoded, &log.header.upload, HEADER_BYTES as u64);
    assert_eq!(decoded, Ok((again, encoded.len())));
    let length = last.mark.length;
    if let Some(mut hasher) = Hasher::from_mid_state(last.algorithm, &last.mid_state, length) {
        let state = hasher.mid_state();
        let twin = state.and_then(|state| Hasher::from_mid_state(last.algorithm, &state, length));
        let mut twin = twin.expect("an accepted state is encoded and accepted again");
        for hasher in [&mut hasher, &mut twin] {
            hasher.update(b"the next bytes");
        }
        assert_eq!(hasher.finish(), twin.finish());
    }
}

/// Builds a header from 64 bytes and texts, then checkpoints: length of the rest, named fields, rest.
fn build(mut input: Input<'_>) -> Vec<u8> {
    let mut head = b"TNUPLOAD\x01\0\0\0\0\0\0\0".to_vec();
    head.extend([7; 16]);
    head.extend([8; 16]);
    let length = usize::from(input.byte());
    head.extend(input.piece(16 + length));
    let mut file = seal::block(&head, HEADER_BYTES);
    while !input.is_empty() {
        let rest = usize::from(input.word());
        let named: [u8; 40] = input.array();
        let rest = input.piece(rest);
        let length = FIXED_BYTES + rest.len();
        let mut checkpoint = b"TUCP".to_vec();
        checkpoint.extend(
            u32::try_from(length)
                .expect("a piece is short")
                .to_le_bytes(),
        );
        checkpoint.extend([8; 16]);
        checkpoint.extend((file.len() as u64).to_le_bytes());
        // Time, offset, partial, first chunk, number, algorithm, version, bytes of the mid-state, zeros.
        checkpoint.extend(&named[..36]);
        checkpoint.extend([0; 4]);
        checkpoint.extend(rest);
        file.extend(seal::block(&checkpoint, length));
    }
    file
}
