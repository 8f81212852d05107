//! HTTP/2 frames, as far as they show whether a connection makes progress.
//!
//! Owns: [`Frames`]. Acknowledgements, pings and window updates are not progress, because a client can send and receive
//! them forever.
//! Refuses: any other meaning of frames; hyper reads and writes them.

/// Bytes of a frame before its payload (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;
/// Largest payload of a frame, the protocol's default. Each active request may have one frame buffered.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 16 << 10;
/// Kinds of frames (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The kind of progress that bytes of a connection make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    #[default]
    None,
    /// The head of a request or an answer.
    Head,
    /// Content.
    Data,
}

/// One direction of a connection, after the preface.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that are known.
    known: usize,
    /// Bytes of the payload that are to come.
    left: usize,
}

impl Frames {
    /// Parses the next bytes of the connection.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> Progress {
        let mut moved = Progress::None;
        while !bytes.is_empty() {
            if self.left > 0 {
                let payload = bytes.split_off(..self.left.min(bytes.len())).unwrap_or(&[]);
                self.left -= payload.len();
                moved = moved.max(self.kind());
                continue;
            }
            let wanted = self.head.get_mut(self.known..).unwrap_or_default();
            let count = wanted.len().min(bytes.len());
            let part = bytes.split_off(..count).unwrap_or(&[]);
            wanted
                .iter_mut()
                .zip(part)
                .for_each(|(to, from)| *to = *from);
            self.known += count;
            if self.known == HEAD_BYTES {
                let [a, b, c, ..] = self.head;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.known = 0;
            }
        }
        moved
    }

    /// Returns the kind of progress that the payload of the frame makes.
    fn kind(&self) -> Progress {
        let [_, _, _, kind, ..] = self.head;
        match kind {
            DATA => Progress::Data,
            HEADERS | CONTINUATION => Progress::Head,
            _ => Progress::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: pings, their acknowledgements, settings and window updates are not progress, wherever the bytes are
    /// split; heads and content are, from their first byte.
    #[test]
    fn pings_move_nothing() {
        let frame = |kind: u8, length: u8| {
            let mut all = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
            all.resize(HEAD_BYTES + usize::from(length), 0xff);
            all
        };
        let (settings, ping, window) = (frame(4, 6), frame(6, 8), frame(8, 4));
        let idle = [settings, ping.clone(), window, frame(4, 0), ping].concat();
        for part in 1..=idle.len() {
            let mut frames = Frames::default();
            for bytes in idle.chunks(part) {
                assert_eq!(frames.follow(bytes), Progress::None);
            }
            let (head, data) = (frame(1, 3), frame(0, 3));
            assert_eq!(frames.follow(&head), Progress::Head);
            assert_eq!(frames.follow(&data[..HEAD_BYTES]), Progress::None);
            assert_eq!(
                frames.follow(&data[HEAD_BYTES..=HEAD_BYTES]),
                Progress::Data
            );
            assert_eq!(frames.follow(&data[HEAD_BYTES + 1..]), Progress::Data);
            assert_eq!(
                frames.follow(&[frame(0, 0), idle.clone()].concat()),
                Progress::None
            );
        }
    }
}
