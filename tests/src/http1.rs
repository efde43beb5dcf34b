//! An HTTP/1.1 client that writes the bytes that a test wants and reads strictly what comes back.

use crate::reply::Reply;
use crate::wait::within;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A byte stream: TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection.
pub struct Http1 {
    stream: BufReader<Box<dyn Stream>>,
}

/// Sends one GET on a connection of its own.
///
/// # Panics
/// When no response comes back.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Reply {
    Http1::connect(address).await.get(host, path).await
}

/// Sends bytes on a connection of their own and reads one response.
///
/// # Errors
/// When the connection ends without one.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Reply> {
    let mut client = Http1::connect(address).await;
    client.send(bytes).await?;
    client.read_reply(false).await
}

impl Http1 {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> Http1 {
        let stream = within("to connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Http1::over(Box::new(stream))
    }

    /// Speaks over a stream that is there already.
    #[must_use]
    pub fn over(stream: Box<dyn Stream>) -> Http1 {
        Http1 { stream: BufReader::with_capacity(64 * 1024, stream) }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the peer has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// GET, read to its end.
    ///
    /// # Panics
    /// When no response comes back.
    pub async fn get(&mut self, host: &str, path: &str) -> Reply {
        self.request("GET", host, path, &[], b"").await
    }

    /// A request, its response read to the end.
    ///
    /// # Panics
    /// When no response comes back.
    pub async fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        self.try_request(method, host, path, fields, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {host}{path}: {error}"))
    }

    /// A request, its response read to the end.
    ///
    /// # Errors
    /// When the connection ends before a whole header section came back.
    pub async fn try_request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes).await?;
        within("a response", self.read_reply(method == "HEAD")).await
    }

    /// Reads one final response; interim ones (1xx, but 101) are skipped.
    ///
    /// # Errors
    /// When the connection ends before a whole header section, or what comes is not HTTP/1.1.
    pub async fn read_reply(&mut self, to_head: bool) -> io::Result<Reply> {
        loop {
            let (status, headers) = self.read_head().await?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let bodiless = to_head || matches!(status, 101 | 204 | 304);
            let (body, whole) =
                if bodiless { (Vec::new(), true) } else { self.read_body(&headers).await };
            return Ok(Reply { status, headers, body: Bytes::from(body), whole });
        }
    }

    /// Reads a header section alone.
    ///
    /// # Errors
    /// When the connection ends first, or what comes is not HTTP/1.1.
    pub async fn read_head(&mut self) -> io::Result<(u16, HeaderMap)> {
        let line = self.line().await?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| wrong(&line))?;
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong(&line))?;
            let name = HeaderName::try_from(name).map_err(|_| wrong(&line))?;
            headers.append(name, HeaderValue::try_from(value.trim()).map_err(|_| wrong(&line))?);
        }
    }

    /// Reads content as its header section frames it; and whether it was whole.
    pub async fn read_body(&mut self, headers: &HeaderMap) -> (Vec<u8>, bool) {
        let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut body = Vec::new();
        if field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            let whole = self.read_chunks(&mut body).await.is_ok();
            return (body, whole);
        }
        if let Some(length) = field("content-length") {
            let length: u64 = length.parse().expect("a Content-Length that is a number");
            let mut limited = (&mut self.stream).take(length);
            let read = limited.read_to_end(&mut body).await;
            let whole = read.is_ok() && body.len() as u64 == length;
            return (body, whole);
        }
        let whole = self.stream.read_to_end(&mut body).await.is_ok();
        (body, whole)
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Reads what comes next, at least one byte unless the peer has closed.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read_some(&mut self) -> io::Result<Vec<u8>> {
        let bytes = self.stream.fill_buf().await?.to_vec();
        self.stream.consume(bytes.len());
        Ok(bytes)
    }

    /// Whether the peer has closed the connection: waits for it, up to the deadline.
    pub async fn is_closed(&mut self) -> bool {
        within("the peer to close", async {
            loop {
                match self.read_some().await {
                    Ok(bytes) if bytes.is_empty() => return true,
                    Ok(_) => {}
                    Err(_) => return true,
                }
            }
        })
        .await
    }

    async fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        while self.read_chunk(body).await? {}
        Ok(())
    }

    /// Reads one chunk of content behind what is there; false after the last one.
    ///
    /// # Errors
    /// When the connection ends first, or what comes is no chunk.
    pub async fn read_chunk(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| wrong(&line))?;
        if size == 0 {
            while !self.line().await?.is_empty() {}
            return Ok(false);
        }
        let start = body.len();
        body.resize(start + size, 0);
        if let Err(error) = self.stream.read_exact(&mut body[start..]).await {
            body.truncate(start);
            return Err(error);
        }
        if !self.line().await?.is_empty() {
            return Err(wrong("no line break after a chunk"));
        }
        Ok(true)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection ended in a line"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| wrong("not text"))
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not HTTP/1.1: {what:?}"))
}
