//! Answers for the clients of conntrace itself: standard output, standard error and the exit status of a command in one
//! body. A frame is a byte for its kind, four bytes for its length (big-endian), and its content.

use bytes::{Bytes, BytesMut};

/// The type of such a body.
pub(crate) const FRAMES: &str = "application/vnd.conntrace.frames";
/// The header with which a client says that the end of its body is Ctrl-C.
pub(crate) const UNTIL: &str = "conntrace-until";
/// The header that says of a stream whether it outlives the daemon, and the one value of it.
pub(crate) const STREAM_HEADER: &str = "conntrace-stream";
pub(crate) const KEPT: &str = "kept";
/// The one value of [`UNTIL`].
pub(crate) const BODY_END: &str = "body-end";

const OUT: u8 = 1;
const ERR: u8 = 2;
const READY: u8 = 3;
const EXIT: u8 = 4;
const HEAD: usize = 5;
/// The longest content that a reader takes.
const MAX_CONTENT: usize = 1 << 20;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text of standard output.
    Out(Bytes),
    /// Text of standard error.
    Err(Bytes),
    /// The command traces.
    Ready,
    /// The exit status. Last of all.
    Exit(u8),
}

impl Piece {
    /// The piece as a frame.
    pub(crate) fn frame(&self) -> Bytes {
        let (kind, content): (u8, &[u8]) = match self {
            Self::Out(bytes) => (OUT, bytes),
            Self::Err(bytes) => (ERR, bytes),
            Self::Ready => (READY, &[]),
            Self::Exit(code) => (EXIT, std::slice::from_ref(code)),
        };
        let mut frame = BytesMut::with_capacity(HEAD + content.len());
        frame.extend_from_slice(&[kind]);
        frame.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(content);
        frame.freeze()
    }
}

/// Takes bytes as they come, and gives pieces.
#[derive(Debug, Default)]
pub(crate) struct Reader(BytesMut);

impl Reader {
    /// Takes bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next piece, if all of it is there.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, &'static str> {
        let Some(&[kind, a, b, c, d]) = self.0.first_chunk() else { return Ok(None) };
        let length = [a, b, c, d].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        if length > MAX_CONTENT {
            return Err("a frame of the daemon is too long");
        }
        if self.0.len() < HEAD + length {
            return Ok(None);
        }
        let content = self.0.split_to(HEAD + length).split_off(HEAD).freeze();
        Ok(Some(match (kind, &content[..]) {
            (OUT, _) => Piece::Out(content),
            (ERR, _) => Piece::Err(content),
            (READY, []) => Piece::Ready,
            (EXIT, &[code]) => Piece::Exit(code),
            _ => return Err("a frame of the daemon has no meaning"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_however_they_are_cut() {
        let pieces = [Piece::Ready, Piece::Out("a line\n".into()), Piece::Err("".into()), Piece::Exit(3)];
        let all: Vec<u8> = pieces.iter().flat_map(Piece::frame).collect();
        for size in 1..all.len() {
            let (mut reader, mut read) = (Reader::default(), Vec::new());
            for part in all.chunks(size) {
                reader.push(part);
                while let Some(piece) = reader.next().unwrap() {
                    read.push(piece);
                }
            }
            assert_eq!(read, pieces, "in parts of {size}");
        }
    }

    #[test]
    fn other_bytes_are_an_error() {
        for bytes in [&b"HTTP/1.1 200"[..], &[9, 0, 0, 0, 0], &[EXIT, 0, 0, 0, 0], &[OUT, 255, 0, 0, 0]] {
            let mut reader = Reader::default();
            reader.push(bytes);
            assert!(reader.next().is_err(), "{bytes:?}");
        }
    }
}
