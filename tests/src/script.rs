//! Origins that answer each path by a script, turn by turn and byte by byte; the way to send what no
//! library would. It may not know anything of HTTP but how a request ends.

use crate::origin::{Gate, Origin, Seen};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What an origin does once it has sent a turn's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Waits for the next request.
    Stay,
    /// Closes the connection in order (FIN).
    Close,
    /// Breaks the connection (RST).
    Reset,
}

/// One answer of a script.
#[derive(Clone)]
pub struct Turn {
    interim: Vec<u8>,
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    date: bool,
    raw: bool,
    gates: Option<(usize, Gate)>,
    before: Option<Gate>,
    end: End,
}

type Turns = HashMap<String, VecDeque<Turn>>;

/// An origin with a script; gone when it is dropped.
pub struct Script {
    origin: Origin,
    turns: Arc<Mutex<Turns>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Writes each `@±N` of a text as the date N seconds from now.
#[must_use]
pub fn with_dates(text: &str) -> String {
    let mut parts = text.split('@');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && !"+-".contains(c));
        let (number, rest) = part.split_at(end.unwrap_or(part.len()));
        match number.parse::<i64>() {
            Ok(seconds) => out.push_str(&date(seconds)),
            Err(_) => out.push_str(&format!("@{number}")),
        }
        out.push_str(rest);
    }
    out
}

/// The date so many seconds from now, as fields write it.
#[must_use]
pub fn date(seconds: i64) -> String {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    httpdate::fmt_http_date(if seconds < 0 { now - distance } else { now + distance })
}

// === impl Turn ===

impl Turn {
    /// An answer with a Date of now, unless the fields have one, and a Content-Length, unless they say
    /// how the content ends. `@±N` in a field is the date N seconds from now.
    #[must_use]
    pub fn new(status: u16, fields: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Turn {
        let fields =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Turn {
            interim: Vec::new(),
            status,
            fields,
            body: body.into(),
            date: true,
            raw: false,
            gates: None,
            before: None,
            end: End::Stay,
        }
    }

    /// These bytes and no others.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Turn {
        Turn { raw: true, ..Turn::new(0, &[], bytes) }
    }

    /// The end of the connection, without a byte.
    #[must_use]
    pub fn hang_up() -> Turn {
        Turn::bytes("").then(End::Close)
    }

    /// Leaves the Date away.
    #[must_use]
    pub fn without_date(mut self) -> Turn {
        self.date = false;
        self
    }

    /// Sends these bytes first.
    #[must_use]
    pub fn after(mut self, interim: &str) -> Turn {
        self.interim = interim.as_bytes().to_vec();
        self
    }

    /// Stops at a gate before the first byte.
    #[must_use]
    pub fn held(mut self, gate: &Gate) -> Turn {
        self.before = Some(gate.clone());
        self
    }

    /// Stops at a gate once so many bytes of the content (or of all, for bare bytes) are sent.
    #[must_use]
    pub fn held_at(mut self, bytes: usize, gate: &Gate) -> Turn {
        self.gates = Some((bytes, gate.clone()));
        self
    }

    /// What comes after the last byte.
    #[must_use]
    pub fn then(mut self, end: End) -> Turn {
        self.end = end;
        self
    }

    fn head(&self) -> Vec<u8> {
        let has = |name: &str| self.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut head = format!("HTTP/1.1 {} Said\r\n", self.status);
        if self.date && !has("date") {
            head.push_str(&format!("Date: {}\r\n", date(0)));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {}\r\n", with_dates(value)));
        }
        let framed = has("content-length") || has("transfer-encoding");
        if !framed && !matches!(self.status, 204 | 304) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    async fn send(&self, stream: &mut TcpStream, to_head: bool) -> io::Result<()> {
        if let Some(gate) = &self.before {
            gate.pass().await;
        }
        let mut first = self.interim.clone();
        if !self.raw {
            first.extend(self.head());
        }
        let body: &[u8] = if !self.raw && (to_head || matches!(self.status, 204 | 304)) {
            b""
        } else {
            &self.body
        };
        let at = self.gates.as_ref().map_or(body.len(), |(at, _)| (*at).min(body.len()));
        first.extend_from_slice(&body[..at]);
        stream.write_all(&first).await?;
        if let Some((_, gate)) = &self.gates {
            gate.pass().await;
            stream.write_all(&body[at..]).await?;
        }
        Ok(())
    }
}

// === impl Script ===

impl Script {
    /// Starts one without a script yet: what is asked for gets a 599.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Script {
        let turns: Arc<Mutex<Turns>> = Arc::default();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (plan, noted) = (Arc::clone(&turns), Arc::clone(&seen));
        let origin = Origin::raw(move |stream| {
            let (plan, noted) = (Arc::clone(&plan), Arc::clone(&noted));
            async move {
                let _ = converse(stream, &plan, &noted).await;
            }
        })
        .await;
        Script { origin, turns, seen }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.origin.address
    }

    /// The origin itself, as site files name it.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Gives a path its turns; the last one is taken again and again.
    ///
    /// # Panics
    /// Never, unless a test has panicked meanwhile.
    pub fn plan(&self, path: &str, turns: impl IntoIterator<Item = Turn>) {
        self.turns.lock().unwrap().insert(path.to_owned(), turns.into_iter().collect());
    }

    /// Every request for a path so far.
    ///
    /// # Panics
    /// Never, unless a test has panicked meanwhile.
    #[must_use]
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }

    /// How many requests there were for a path.
    ///
    /// # Panics
    /// Never, unless a test has panicked meanwhile.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).count()
    }
}

async fn converse(
    stream: TcpStream,
    turns: &Mutex<Turns>,
    noted: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read_request(&mut stream).await? {
        let turn = {
            let mut turns = turns.lock().unwrap();
            match turns.get_mut(&seen.path) {
                Some(queue) if queue.len() > 1 => queue.pop_front(),
                Some(queue) => queue.front().cloned(),
                None => None,
            }
        };
        let turn = turn.unwrap_or_else(|| Turn::new(599, &[], "not in the script"));
        let to_head = seen.method == Method::HEAD;
        noted.lock().unwrap().push(seen);
        turn.send(stream.get_mut(), to_head).await?;
        match turn.end {
            End::Stay => {}
            End::Close => return stream.get_mut().shutdown().await,
            End::Reset => return stream.get_ref().set_zero_linger(),
        }
    }
    Ok(())
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let Some(first) = line(stream).await? else { return Ok(None) };
    let mut parts = first.split(' ');
    let method = parts.next().unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("no method"))?;
    let path = parts.next().ok_or_else(|| wrong("no path"))?.to_owned();
    let mut headers = HeaderMap::new();
    loop {
        let line = line(stream).await?.ok_or(ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("no colon"))?;
        headers.append(
            HeaderName::try_from(name).map_err(|_| wrong("no name"))?,
            HeaderValue::try_from(value.trim()).map_err(|_| wrong("no value"))?,
        );
    }
    let mut body = Vec::new();
    let length = headers.get("content-length").and_then(|value| value.to_str().ok());
    if let Some(length) = length.and_then(|value| value.parse().ok()) {
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let size = line(stream).await?.ok_or(ErrorKind::UnexpectedEof)?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| wrong("no chunk"))?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk).await?;
            body.extend(chunk);
            line(stream).await?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some(Seen { method, path, headers, body: Bytes::from(body) }))
}
