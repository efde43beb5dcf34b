//! Objects longer than anybody's memory: an origin that makes their bytes as it sends them, and a visitor
//! that checks each as it comes. It may not hold more of one than a piece.

use crate::origin::{Gate, Origin};
use crate::wait::within;
use http::HeaderMap;
use rand::{RngCore, SeedableRng};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How much is written and read at a time, in bytes.
const PIECE: usize = 256 * 1024;
/// The content repeats after a prime number of bytes: a piece in the wrong place is never right.
const PERIOD: usize = 1_000_003;

/// The bytes of an object, by their place in it.
#[derive(Clone)]
pub struct Bytes {
    twice: Arc<[u8]>,
    length: u64,
}

/// An origin of one object under every path. `/chunked…` is sent without its length; the rest with it,
/// and in ranges; `/held…` stops at the gate between its header section and its content.
pub struct Generated {
    /// The object.
    pub bytes: Bytes,
    /// The origin.
    pub origin: Origin,
    /// Where it is held.
    pub gate: Gate,
    sent: Arc<AtomicU64>,
    asked: Arc<AtomicUsize>,
}

/// A response whose content is yet to be read and checked.
pub struct Download {
    /// The status.
    pub status: u16,
    /// The fields.
    pub headers: HeaderMap,
    stream: BufReader<TcpStream>,
    bytes: Bytes,
    /// The place of the next byte, and the one behind the last.
    next: u64,
    end: u64,
    /// Left of the present chunk, in a chunked response.
    chunk: Option<u64>,
}

// === impl Bytes ===

impl Bytes {
    /// An object of so many bytes, always the same.
    #[must_use]
    pub fn new(length: u64) -> Bytes {
        let mut once = vec![0; PERIOD];
        rand::rngs::StdRng::seed_from_u64(7).fill_bytes(&mut once);
        Bytes { twice: once.repeat(2).into(), length }
    }

    /// Whether this is what it has from a place on.
    #[must_use]
    pub fn are(&self, mut place: u64, bytes: &[u8]) -> bool {
        place + bytes.len() as u64 <= self.length
            && bytes.chunks(PIECE).all(|piece| {
                let count = piece.len() as u64;
                place += count;
                piece == self.at(place - count, count)
            })
    }

    /// Its bytes from a place on, at most a piece.
    fn at(&self, place: u64, most: u64) -> &[u8] {
        let start = usize::try_from(place % PERIOD as u64).unwrap();
        let count = usize::try_from(most.min(PIECE as u64)).unwrap();
        &self.twice[start..start + count]
    }
}

// === impl Generated ===

impl Generated {
    /// Starts an origin of an object of so many bytes.
    pub async fn start(length: u64) -> Generated {
        let bytes = Bytes::new(length);
        let (sent, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Gate::default();
        let shared = (bytes.clone(), gate.clone(), Arc::clone(&sent), Arc::clone(&asked));
        let origin = Origin::raw(move |stream| {
            let (bytes, gate, sent, asked) = shared.clone();
            async move {
                let _ = serve(stream, (&bytes, &gate), &sent, &asked).await;
            }
        })
        .await;
        Generated { bytes, origin, gate, sent, asked }
    }

    /// How long the object is, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.bytes.length
    }

    /// Content that it has sent so far, in bytes.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Requests that it has answered so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Asks an edge for the object, or for a range of it.
    ///
    /// # Panics
    /// When no response comes back.
    pub async fn get(&self, edge: SocketAddr, path: &str, range: Option<(u64, u64)>) -> Download {
        let mut stream = TcpStream::connect(edge).await.unwrap();
        let field = range
            .map_or_else(String::new, |(first, last)| format!("Range: bytes={first}-{last}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nHost: large.example\r\n{field}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = BufReader::with_capacity(PIECE, stream);
        let (line, headers) = within("a header section", head(&mut stream)).await.unwrap().unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let (next, end) = match range {
            Some((first, last)) if status == 206 => (first, last + 1),
            _ => (0, self.bytes.length),
        };
        let chunk = headers.contains_key("transfer-encoding").then_some(0);
        if let Some(length) = headers.get("content-length") {
            assert_eq!(length.to_str().unwrap(), (end - next).to_string(), "{headers:?}");
        }
        Download { status, headers, stream, bytes: self.bytes.clone(), next, end, chunk }
    }
}

async fn serve(
    stream: TcpStream,
    (bytes, gate): (&Bytes, &Gate),
    sent: &AtomicU64,
    asked: &AtomicUsize,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some((line, headers)) = head(&mut stream).await? {
        asked.fetch_add(1, Ordering::SeqCst);
        let is_chunked = line.contains(" /chunked");
        let range = headers.get("range").and_then(|v| v.to_str().ok()).filter(|_| !is_chunked);
        let (status, mut place, end) = match range.map(|text| bounds(text, bytes.length)) {
            Some((first, end)) => (206, first, end),
            None => (200, 0, bytes.length),
        };
        let mut answer = format!(
            "HTTP/1.1 {status} Said\r\nCache-Control: max-age=3600\r\nETag: \"one\"\r\n\
             Content-Type: application/octet-stream\r\n"
        );
        if status == 206 {
            let length = bytes.length;
            answer.push_str(&format!("Content-Range: bytes {place}-{}/{length}\r\n", end - 1));
        }
        answer.push_str(&match is_chunked {
            true => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            false => format!("Content-Length: {}\r\n\r\n", end - place),
        });
        let stream = stream.get_mut();
        stream.write_all(answer.as_bytes()).await?;
        if line.contains(" /held") {
            gate.pass().await;
        }
        while place < end {
            let piece = bytes.at(place, end - place);
            if is_chunked {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            stream.write_all(piece).await?;
            if is_chunked {
                stream.write_all(b"\r\n").await?;
            }
            place += piece.len() as u64;
            sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        if is_chunked {
            stream.write_all(b"0\r\n\r\n").await?;
        }
    }
    Ok(())
}

/// The first byte of a range, and the one behind its last.
fn bounds(range: &str, length: u64) -> (u64, u64) {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first = first.parse().unwrap();
    (first, last.parse().map_or(length, |last: u64| (last + 1).min(length)))
}

/// A first line and its fields; `None` at the end of the connection.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(String, HeaderMap)>> {
    let (mut first, mut headers) = (String::new(), HeaderMap::new());
    if stream.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let wrong = || io::Error::new(ErrorKind::InvalidData, line.clone());
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return if line == "\r\n" { Ok(Some((first, headers))) } else { Err(wrong()) };
        };
        let name = http::HeaderName::try_from(name).map_err(|_| wrong())?;
        headers.append(name, value.trim().parse().map_err(|_| wrong())?);
    }
}

// === impl Download ===

impl Download {
    /// Reads and checks up to so many bytes more; how many are left.
    ///
    /// # Panics
    /// When a byte is wrong, or the content ends early.
    pub async fn read(&mut self, most: u64) -> u64 {
        let until = self.end.min(self.next.saturating_add(most));
        while self.next < until {
            let count = self.piece(until - self.next).await.unwrap();
            assert!(count > 0, "the content ends at {} of {}", self.next, self.end);
        }
        self.end - self.next
    }

    /// Reads and checks what comes until the connection ends; how many bytes are missing.
    ///
    /// # Panics
    /// When a byte is wrong.
    pub async fn read_to_cut(mut self) -> u64 {
        while self.next < self.end {
            if matches!(self.piece(self.end - self.next).await, Ok(0) | Err(_)) {
                break;
            }
        }
        self.end - self.next
    }

    /// Reads and checks a piece, at most so many bytes; none at the end of the connection.
    async fn piece(&mut self, most: u64) -> io::Result<u64> {
        if self.chunk == Some(0) {
            self.chunk = Some(within("a chunk", self.chunk_size()).await?);
        }
        let here = self.chunk.unwrap_or(u64::MAX).min(most);
        let read = within("content", self.stream.fill_buf()).await?;
        let count = here.min(read.len() as u64).min(PIECE as u64);
        let piece = &read[..usize::try_from(count).unwrap()];
        // Not assert_eq: nobody wants to read both.
        assert!(piece == self.bytes.at(self.next, count), "wrong bytes from {}", self.next);
        self.stream.consume(usize::try_from(count).unwrap());
        self.next += count;
        if let Some(left) = self.chunk.as_mut() {
            *left -= count;
            if *left == 0 && count > 0 {
                let mut line_end = [0; 2];
                within("a line's end", self.stream.read_exact(&mut line_end)).await?;
            }
        }
        Ok(count)
    }

    /// Reads and checks all that is left, and that the framing ends there.
    ///
    /// # Panics
    /// When a byte is wrong, or the content ends early or late.
    pub async fn finish(mut self) {
        self.read(u64::MAX).await;
        if self.chunk.is_some() {
            assert_eq!(within("the last chunk", self.chunk_size()).await.unwrap(), 0);
        }
    }

    async fn chunk_size(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        u64::from_str_radix(line.trim_end(), 16).map_err(|_| ErrorKind::InvalidData.into())
    }
}
