//! What a read must prove to clear a mark of damage.
//!
//! Owns: [`Proof`], a byte of the journal's operation and of the mark's row. Refuses: when a mark is set and cleared
//! (`segment::damaged`).
//!
//! Layout: FORMAT.md, "Rows".

use std::fmt;

use super::codec::{Decoder, Encoder, Malformed};

/// What a verified read proves. A later one includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Proof {
    /// The bytes match their checksums. They may come from the page cache, which may have what the drive lost.
    #[default]
    Read,
    /// So do the bytes on the drive.
    Drive,
    /// The whole has its digest, too.
    Digest,
}

impl Proof {
    /// Writes the proof.
    pub fn encode(self, out: &mut Encoder) {
        out.u8(match self {
            Self::Read => 0,
            Self::Drive => 1,
            Self::Digest => 2,
        });
    }

    /// Reads a proof.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        match from.u8()? {
            0 => Ok(Self::Read),
            1 => Ok(Self::Drive),
            2 => Ok(Self::Digest),
            other => Err(Malformed(format!("unknown proof {other} of damage"))),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Read => "a read",
            Self::Drive => "a read of the drive",
            Self::Digest => "a check of its digest",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: every proof is read as it was written, and an unknown one is an error.
    #[test]
    fn proofs_are_kept_and_unknown_ones_rejected() {
        for (byte, proof) in [(0, Proof::Read), (1, Proof::Drive), (2, Proof::Digest)] {
            let mut out = Encoder::new();
            proof.encode(&mut out);
            assert_eq!(out.finish(), [byte]);
            assert_eq!(Proof::decode(&mut Decoder::new(&[byte])), Ok(proof));
        }
        for bytes in [&[3][..], &[255], &[]] {
            assert!(Proof::decode(&mut Decoder::new(bytes)).is_err());
        }
    }
}
