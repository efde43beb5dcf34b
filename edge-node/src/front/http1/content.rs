//! A request's content off the wire: fixed length or chunked (RFC 9112 section 7), read strictly. Pure;
//! it takes bytes out of a buffer.

use super::head::Framing;
use bytes::{Buf, Bytes, BytesMut};

/// The most bytes of one chunk's size line, extension included.
const MAX_SIZE_LINE: usize = 1024;
/// The most bytes of a trailer section; trailers are read and dropped, since a field that frames or
/// routes must not come in by the back door.
const MAX_TRAILERS: usize = 8 * 1024;
/// The most bytes of one piece.
const MAX_PIECE: usize = 64 * 1024;

/// What a step of decoding gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of content.
    Piece(Bytes),
    /// More bytes are needed.
    Starved,
    /// The content is complete; what follows is another request.
    Done,
}

/// The chunked coding was violated; the text says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ContentError(&'static str);

/// Where in the content the next byte belongs.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    Length(u64),
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers { seen: usize },
    Done,
}

impl Decoder {
    /// A decoder for a request's framing.
    #[must_use]
    pub fn new(framing: Framing) -> Decoder {
        Decoder(match framing {
            Framing::None => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
        })
    }

    /// Whether all content has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Takes the next piece out of `buffer`.
    ///
    /// # Errors
    /// A violation of the chunked coding.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, ContentError> {
        loop {
            match &mut self.0 {
                State::Done | State::Length(0) => {
                    self.0 = State::Done;
                    return Ok(Step::Done);
                }
                State::Length(left) | State::Chunk(left) if *left > 0 => {
                    let Some(piece) = take(buffer, *left) else { return Ok(Step::Starved) };
                    *left -= piece.len() as u64;
                    return Ok(Step::Piece(piece));
                }
                State::Length(_) | State::Chunk(_) => self.0 = State::ChunkEnd,
                State::ChunkEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.0 = State::Size;
                    }
                    None if buffer.is_empty() || buffer.starts_with(b"\r") => {
                        return Ok(Step::Starved);
                    }
                    _ => return Err(ContentError("a chunk is longer than its size says")),
                },
                State::Size => {
                    let Some(line) = line(buffer, MAX_SIZE_LINE)? else {
                        return Ok(Step::Starved);
                    };
                    self.0 = match chunk_size(&line)? {
                        0 => State::Trailers { seen: 0 },
                        size => State::Chunk(size),
                    };
                }
                State::Trailers { seen } => {
                    let Some(line) = line(buffer, MAX_TRAILERS)? else { return Ok(Step::Starved) };
                    *seen += line.len() + 2;
                    if line.is_empty() {
                        self.0 = State::Done;
                    } else if *seen > MAX_TRAILERS {
                        return Err(ContentError("the trailer section is too large"));
                    }
                }
            }
        }
    }
}

fn take(buffer: &mut BytesMut, left: u64) -> Option<Bytes> {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let count = buffer.len().min(left).min(MAX_PIECE);
    (count > 0).then(|| buffer.split_to(count).freeze())
}

/// The next line without its CRLF; `None` when it is not complete.
fn line(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, ContentError> {
    match memchr::memchr(b'\n', buffer) {
        Some(at) if at == 0 || buffer.get(at - 1) != Some(&b'\r') => {
            Err(ContentError("a line of the chunked coding does not end in CRLF"))
        }
        Some(at) if at > max => Err(ContentError("a line of the chunked coding is too long")),
        Some(at) => {
            let mut line = buffer.split_to(at + 1);
            line.truncate(at - 1);
            Ok(Some(line))
        }
        None if buffer.len() > max => Err(ContentError("a line of the chunked coding is too long")),
        None => Ok(None),
    }
}

/// A chunk's size; its extensions are checked for characters that have no place in a line and dropped.
fn chunk_size(line: &[u8]) -> Result<u64, ContentError> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if digits == 0 || digits > 15 {
        return Err(ContentError("a chunk's size is not a hexadecimal number"));
    }
    let extension_ok = match extension.iter().find(|b| **b != b' ' && **b != b'\t') {
        None => extension.is_empty(),
        Some(b';') => extension.iter().all(|b| matches!(b, b'\t' | 0x20..=0x7e)),
        Some(_) => false,
    };
    let open_quote = extension.iter().filter(|b| **b == b'"').count() % 2 == 1;
    if !extension_ok || open_quote {
        return Err(ContentError("a chunk's size line is malformed"));
    }
    let size = std::str::from_utf8(size).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    size.ok_or(ContentError("a chunk's size is not a hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(framing: Framing, text: &[u8]) -> Result<(Vec<u8>, bool, usize), ContentError> {
        let mut decoder = Decoder::new(framing);
        let mut buffer = BytesMut::from(text);
        let mut content = Vec::new();
        loop {
            match decoder.step(&mut buffer)? {
                Step::Piece(piece) => content.extend_from_slice(&piece),
                Step::Starved => return Ok((content, false, buffer.len())),
                Step::Done => return Ok((content, true, buffer.len())),
            }
        }
    }

    #[test]
    fn content_ends_where_it_says() {
        let done = decode(Framing::Length(3), b"abcGET").unwrap();
        assert_eq!(done, (b"abc".to_vec(), true, 3));
        let chunked = b"3;a=\"b\"\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\nGET";
        assert_eq!(decode(Framing::Chunked, chunked).unwrap(), (b"abcde".to_vec(), true, 3));
        let cut = decode(Framing::Chunked, &chunked[..12]).unwrap();
        assert_eq!((cut.0.as_slice(), cut.1), (&b"abc"[..], false));
    }

    #[test]
    fn a_malformed_coding_is_refused() {
        for text in [
            &b"3\nabc\r\n0\r\n\r\n"[..],
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc0\r\n\r\n",
            b"-3\r\nabc\r\n",
            b"+3\r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"3 4\r\nabc\r\n",
            b"\r\nabc\r\n",
            b"ffffffffffffffffff\r\n",
            b"3;a=\"\r\nabc\r\n",
            b"3;a\x00\r\nabc\r\n",
            b"3\r\nabc\r\n0\r\nX: y\n\r\n",
        ] {
            assert!(
                decode(Framing::Chunked, text).is_err(),
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
        let long = [b"3;".as_slice(), &[b'a'; 8192], b"\r\nabc\r\n0\r\n\r\n"].concat();
        assert!(decode(Framing::Chunked, &long).is_err());
    }

    proptest::proptest! {
        #[test]
        fn pieces_do_not_depend_on_how_bytes_arrive(
            chunks in proptest::collection::vec(proptest::collection::vec(0u8.., 1..50), 0..8),
            step in 1usize..40,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut decoder = Decoder::new(Framing::Chunked);
            let mut buffer = BytesMut::new();
            let mut content = Vec::new();
            for part in wire.chunks(step) {
                buffer.extend_from_slice(part);
                while let Step::Piece(piece) = decoder.step(&mut buffer).unwrap() {
                    content.extend_from_slice(&piece);
                }
            }
            proptest::prop_assert!(decoder.is_done());
            proptest::prop_assert_eq!(content, chunks.concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode(Framing::Chunked, &bytes);
        }
    }
}
