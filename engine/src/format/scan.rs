//! The frames of one journal file, read in order. Pure.
//!
//! Owns: walking frames, and the distinction between a torn tail and corruption. Refuses: repairing and skipping.
//!
//! After a bad frame the file is searched for headers with its secret nonce, which no client can forge. A torn write
//! leaves no such header but its own, so any other means corruption. Payload bytes are never searched for anything
//! else.

use super::codec::{Decoder, Malformed, checksum};
use super::journal::{FRAME_HEADER_BYTES, FrameHeader, JournalHeader, frame_bytes};
use super::mark::FRAMES_START;
use super::transaction::Transaction;
use crate::extent::Lsn;
use crate::limits::DRIVE_SECTOR_BYTES;

/// How the frames of a file end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// With a close frame, or where the successor's header says.
    Clean,
    /// Without a close frame; only zeros follow.
    Unclosed,
    /// With an unfinished frame after the last intact one, as a crash leaves it.
    Torn,
}

/// The result of a scan of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameScan {
    /// End of the last intact frame.
    pub end: u64,
    /// Offset of the last intact frame. Without one, 0, or the offset at which the scan began in the middle of the
    /// file.
    pub last_frame: u64,
    /// How the frames end.
    pub tail: Tail,
    /// Number of intact frames.
    pub frames: u64,
    /// LSN of the last transaction, if there is one.
    pub last_lsn: Option<Lsn>,
    /// Whether the last frame is a close frame.
    pub closed: bool,
}

/// A frame or transaction that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    /// Offset of the frame.
    pub offset: u64,
    /// What is wrong with it.
    pub what: Malformed,
}

/// Reads the frames of a file from offset `from` on, and passes every transaction to `visit`.
///
/// `end` is the end of the frames as the successor's header says. Without it the file is the last one, and may have a
/// torn tail. `visit` returns an error for a transaction that cannot be applied.
pub fn frames(
    bytes: &[u8],
    header: &JournalHeader,
    from: u64,
    end: Option<u64>,
    visit: &mut dyn FnMut(Transaction) -> Result<(), Malformed>,
) -> Result<FrameScan, BadFrame> {
    let mut walk = Walk {
        at: from,
        last_frame: from,
        previous_crc: None,
        frames: 0,
        last_lsn: None,
    };
    if from == FRAMES_START {
        walk.previous_crc = Some(0);
        walk.last_frame = 0;
    }
    loop {
        if end == Some(walk.at) {
            return Ok(walk.done(Tail::Clean));
        }
        let offset = walk.at;
        match walk.next(bytes, header) {
            Ok(frame) if frame.close => {
                if let Some(end) = end.filter(|end| *end != walk.at) {
                    let what = format!(
                        "closed here, but the next file says that frames end at byte {end}"
                    );
                    return Err(BadFrame {
                        offset,
                        what: Malformed(what),
                    });
                }
                return Ok(FrameScan {
                    closed: true,
                    ..walk.done(Tail::Clean)
                });
            }
            Ok(frame) => walk.visit(bytes, &frame, offset, visit)?,
            Err(what) if end.is_some() => return Err(BadFrame { offset, what }),
            Err(what) => return tail(bytes, header, walk, &what),
        }
    }
}

/// Returns the offset of the first byte from `end` on that is not zero.
pub fn first_nonzero(bytes: &[u8], end: u64) -> Option<u64> {
    let found = slice(bytes, end).iter().position(|byte| *byte != 0)?;
    Some(end + found as u64)
}

/// Decides whether the bytes after the last intact frame of the last file are a torn tail or corrupt.
fn tail(
    bytes: &[u8],
    header: &JournalHeader,
    walk: Walk,
    what: &Malformed,
) -> Result<FrameScan, BadFrame> {
    let rest = slice(bytes, walk.at);
    let sectors = rest.chunks(DRIVE_SECTOR_BYTES).enumerate();
    let mut headers = sectors.filter_map(|(sector, chunk)| {
        let at = walk.at + (sector * DRIVE_SECTOR_BYTES) as u64;
        let found = FrameHeader::decode_anywhere(chunk, header.nonce).ok()?;
        // The torn frame's own header may be whole.
        (at != walk.at || found.offset != at).then_some((at, found.offset))
    });
    if let Some((at, belongs)) = headers.next() {
        let what = if at == belongs {
            format!("{what}, but an intact frame follows at byte {at}")
        } else {
            format!("{what}: the frame for byte {belongs} was written to byte {at}")
        };
        return Err(BadFrame {
            offset: walk.at,
            what: Malformed(what),
        });
    }
    let torn = rest.iter().any(|byte| *byte != 0);
    Ok(walk.done(if torn { Tail::Torn } else { Tail::Unclosed }))
}

struct Walk {
    at: u64,
    last_frame: u64,
    /// Unknown (`None`) when the scan starts in the middle of a file.
    previous_crc: Option<u32>,
    frames: u64,
    last_lsn: Option<Lsn>,
}

impl Walk {
    fn done(self, tail: Tail) -> FrameScan {
        FrameScan {
            end: self.at,
            last_frame: self.last_frame,
            tail,
            frames: self.frames,
            last_lsn: self.last_lsn,
            closed: false,
        }
    }

    /// Returns the frame at the current offset, fully checked, and advances past it.
    fn next(&mut self, bytes: &[u8], header: &JournalHeader) -> Result<FrameHeader, Malformed> {
        let rest = slice(bytes, self.at);
        let frame = FrameHeader::decode(rest, header.nonce, self.at)?;
        if self
            .previous_crc
            .is_some_and(|crc| crc != frame.previous_crc)
        {
            return Err(Malformed::new(
                "the frame does not follow the one before it",
            ));
        }
        let payload = payload(rest, &frame)?;
        let found = checksum(payload);
        if found != frame.payload_crc {
            return Err(Malformed(format!(
                "payload checksum {found:08x}, expected {:08x}",
                frame.payload_crc
            )));
        }
        let whole = frame_bytes(payload.len());
        let padding = rest.get(FRAME_HEADER_BYTES + payload.len()..whole);
        if padding.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
            return Err(Malformed::new("padding after the frame is cut or not zero"));
        }
        self.previous_crc = Some(frame.crc());
        self.last_frame = self.at;
        self.at += whole as u64;
        self.frames += 1;
        Ok(frame)
    }

    /// Passes the transactions of an intact frame to `visit`. One that does not decode is corrupt, because the frame's
    /// checksum matches.
    fn visit(
        &mut self,
        bytes: &[u8],
        frame: &FrameHeader,
        offset: u64,
        visit: &mut dyn FnMut(Transaction) -> Result<(), Malformed>,
    ) -> Result<(), BadFrame> {
        let bad = |what| BadFrame { offset, what };
        let mut decoder = Decoder::new(payload(slice(bytes, offset), frame).map_err(bad)?);
        for _ in 0..frame.transactions {
            let transaction = Transaction::decode(&mut decoder).map_err(bad)?;
            let lsn = transaction.lsn;
            if lsn < frame.first_lsn || self.last_lsn.is_some_and(|last| last >= lsn) {
                return Err(bad(Malformed(format!("LSN {lsn} is out of order"))));
            }
            self.last_lsn = Some(lsn);
            visit(transaction).map_err(bad)?;
        }
        decoder.end().map_err(bad)
    }
}

fn slice(bytes: &[u8], at: u64) -> &[u8] {
    usize::try_from(at)
        .ok()
        .and_then(|at| bytes.get(at..))
        .unwrap_or_default()
}

fn payload<'a>(frame: &'a [u8], header: &FrameHeader) -> Result<&'a [u8], Malformed> {
    let mut decoder = Decoder::new(frame);
    decoder.bytes(FRAME_HEADER_BYTES)?;
    decoder.bytes(usize::try_from(header.payload_bytes).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::codec::Encoder;
    use crate::limits::JOURNAL_BLOCK_BYTES;
    use crate::vocabulary::Origin;

    const NONCE: u64 = 0x5eed;

    fn header() -> JournalHeader {
        JournalHeader {
            store_id: [1; 16],
            number: 1,
            epoch: 1,
            nonce: NONCE,
            first_lsn: Lsn(1),
            previous_end: 0,
            created_unix_ms: 0,
            file_bytes: 0,
        }
    }

    /// Returns a file with one frame per entry of `frames`, each with that many transactions, and the offsets of the
    /// frames.
    fn file(frames: &[u32], close: bool) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header().encode();
        bytes.resize(usize::try_from(FRAMES_START).unwrap(), 0);
        let (mut lsn, mut previous_crc, mut offsets) = (1, 0, Vec::new());
        let plan = frames
            .iter()
            .map(|count| (*count, false))
            .chain(close.then_some((0, true)));
        for (count, close) in plan {
            let mut payload = Encoder::new();
            let first_lsn = Lsn(lsn);
            for _ in 0..count {
                let origin = Origin {
                    actor: "x".repeat(200),
                    request: String::new(),
                };
                Transaction {
                    lsn: Lsn(lsn),
                    unix_ms: 0,
                    origin,
                    operations: vec![],
                }
                .encode(&mut payload);
                lsn += 1;
            }
            let payload = payload.finish();
            let frame = FrameHeader {
                close,
                nonce: NONCE,
                offset: bytes.len() as u64,
                first_lsn,
                transactions: count,
                payload_bytes: u32::try_from(payload.len()).unwrap(),
                payload_crc: checksum(&payload),
                previous_crc,
            };
            previous_crc = frame.crc();
            offsets.push(bytes.len());
            let end = bytes.len() + frame_bytes(payload.len());
            bytes.extend(frame.encode());
            bytes.extend(payload);
            bytes.resize(end, 0);
        }
        offsets.push(bytes.len());
        bytes.resize(bytes.len() + 16 * JOURNAL_BLOCK_BYTES, 0);
        (bytes, offsets)
    }

    fn scan(bytes: &[u8], end: Option<u64>) -> Result<(Vec<u64>, FrameScan), BadFrame> {
        let mut lsns = Vec::new();
        let scanned = frames(bytes, &header(), FRAMES_START, end, &mut |transaction| {
            lsns.push(transaction.lsn.0);
            Ok(())
        })?;
        Ok((lsns, scanned))
    }

    /// Guards: all transactions in order; a file without a close frame ends where zeros begin.
    #[test]
    fn frames_are_walked_to_the_end() {
        let (bytes, offsets) = file(&[1, 40, 2], false);
        let (lsns, scanned) = scan(&bytes, None).unwrap();
        assert_eq!(lsns, (1..=43).collect::<Vec<_>>());
        assert_eq!(
            (scanned.tail, scanned.end),
            (Tail::Unclosed, offsets[3] as u64)
        );
        let (bytes, _) = file(&[1], true);
        assert_eq!(scan(&bytes, None).unwrap().1.tail, Tail::Clean);
    }

    /// Guards: a last frame cut or changed anywhere is torn, and everything before it stays.
    #[test]
    fn a_bad_last_frame_is_torn() {
        let (bytes, offsets) = file(&[3, 40], false);
        for at in (offsets[1]..offsets[2]).step_by(61) {
            let mut torn = bytes.clone();
            torn[at] ^= 0x40;
            let (lsns, scanned) = scan(&torn, None).unwrap();
            assert_eq!(lsns, [1, 2, 3], "byte {at}");
            assert_eq!((scanned.tail, scanned.end), (Tail::Torn, offsets[1] as u64));
        }
    }

    /// Guards: a bad frame with an intact one after it is corruption; nothing acknowledged is dropped.
    #[test]
    fn a_bad_frame_before_an_intact_one_is_corrupt() {
        let (bytes, offsets) = file(&[3, 40, 1], false);
        for at in (offsets[0]..offsets[2]).step_by(97) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x01;
            assert!(scan(&bad, None).is_err(), "byte {at}");
        }
    }

    /// Guards: a frame that was written over another one, at any sector, is no torn write: the other one may have been
    /// acknowledged.
    #[test]
    fn a_frame_at_the_place_of_another_is_corrupt() {
        let (bytes, offsets) = file(&[3, 1, 2], false);
        let (last, moved) = (offsets[1], offsets[2]);
        let frame = bytes[moved..moved + 4096].to_vec();
        for sector in 0..8 {
            let mut bad = bytes.clone();
            bad[moved..].fill(0);
            let at = last + sector * DRIVE_SECTOR_BYTES;
            bad[at..at + frame.len()].copy_from_slice(&frame);
            let found = scan(&bad, None).unwrap_err();
            assert!(found.what.0.contains("was written to byte"), "{found:?}");
        }
    }

    /// Guards: where a successor names the end, nothing after it counts and everything before it must be intact.
    #[test]
    fn the_successor_decides_where_a_file_ends() {
        let (mut bytes, offsets) = file(&[1, 1, 1], false);
        let (lsns, scanned) = scan(&bytes, Some(offsets[2] as u64)).unwrap();
        assert_eq!((lsns, scanned.tail), (vec![1, 2], Tail::Clean));
        bytes[offsets[1] + 70] ^= 1;
        assert!(scan(&bytes, Some(offsets[2] as u64)).is_err());
    }

    /// Guards: bytes chosen by a client that look like a frame do not count without the file's nonce.
    #[test]
    fn forged_frames_after_a_torn_one_are_ignored() {
        let (mut bytes, offsets) = file(&[1, 40], false);
        let at = offsets[1] + JOURNAL_BLOCK_BYTES;
        let forged = FrameHeader {
            close: false,
            nonce: 0,
            offset: at as u64,
            first_lsn: Lsn(100),
            transactions: 0,
            payload_bytes: 0,
            payload_crc: 0,
            previous_crc: 0,
        };
        bytes[at..at + FRAME_HEADER_BYTES].copy_from_slice(&forged.encode());
        assert_eq!(scan(&bytes, None).unwrap().1.tail, Tail::Torn);
    }
}
