//! A guest's output and messages as lines of its log: cut at a limit of bytes, long lines in pieces.
//! Holds no more than one unfinished line of each stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use super::Call;
use crate::host::{LogLevel, LogLine, LogStream};
use crate::settings::limits;

/// The lines of one request.
#[derive(Debug, Default)]
pub(super) struct Log {
    out: Vec<u8>,
    err: Vec<u8>,
    written: usize,
    lines: usize,
    bytes: u64,
    is_cut: bool,
}

impl Log {
    /// Takes what a guest writes and gives the lines that are whole.
    pub(super) fn write(&mut self, stream: LogStream, bytes: &[u8], emit: &mut dyn FnMut(LogLine)) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.is_cut {
            return;
        }
        let room = limits::LOG_BYTES.saturating_sub(self.written);
        let kept = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.written += kept.len();
        let buffer = match stream {
            LogStream::Stdout => &mut self.out,
            LogStream::Stderr | LogStream::Logging(_) | LogStream::Host => &mut self.err,
        };
        let mut is_full = kept.len() < bytes.len();
        for piece in kept.split_inclusive(|byte| *byte == b'\n') {
            if self.lines >= limits::LOG_LINES {
                is_full = true;
                break;
            }
            let (text, is_whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            append(buffer, text, stream, emit);
            if is_whole {
                self.lines += 1;
                flush(buffer, stream, emit);
            }
        }
        if is_full {
            self.cut(emit);
        }
    }

    /// Takes a message, and gives its lines, each with the context.
    pub(super) fn message(
        &mut self,
        level: LogLevel,
        context: &str,
        message: &str,
        emit: &mut dyn FnMut(LogLine),
    ) {
        let bytes = context.len().saturating_add(message.len());
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.is_cut {
            return;
        }
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let context: String =
            beginning(context, limits::LOG_CONTEXT_BYTES).chars().map(visible).collect();
        // A message without any text is a line as well.
        let lines = if message.is_empty() { "\n" } else { message }.lines();
        for mut rest in lines {
            loop {
                // The context and the line's end count each time, or empty lines would cost nothing.
                let spent = self.written + context.len() + 1;
                let room = limits::LOG_BYTES.checked_sub(spent);
                let piece = beginning(rest, room.unwrap_or(0).min(limits::LOG_LINE_BYTES));
                let is_full = self.lines >= limits::LOG_LINES;
                if is_full || room.is_none() || (piece.is_empty() && !rest.is_empty()) {
                    return self.cut(emit);
                }
                self.written = spent + piece.len();
                self.lines += 1;
                let (stream, message) = (LogStream::Logging(level), piece.to_owned());
                emit(LogLine { stream, context: context.clone(), message });
                rest = rest.get(piece.len()..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
            }
        }
    }

    /// Takes no more, and says so.
    fn cut(&mut self, emit: &mut dyn FnMut(LogLine)) {
        self.is_cut = true;
        self.finish(emit);
        let message = format!(
            "log truncated: a request may write {} bytes in {} lines",
            limits::LOG_BYTES,
            limits::LOG_LINES
        );
        emit(LogLine { stream: LogStream::Host, context: String::new(), message });
    }

    /// Gives the unfinished lines, too.
    pub(super) fn finish(&mut self, emit: &mut dyn FnMut(LogLine)) {
        for (buffer, stream) in
            [(&mut self.out, LogStream::Stdout), (&mut self.err, LogStream::Stderr)]
        {
            if !buffer.is_empty() {
                flush(buffer, stream, emit);
            }
        }
    }

    /// What was written, before the cut, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Adds to an unfinished line, and gives the pieces of it that are full.
fn append(buffer: &mut Vec<u8>, mut text: &[u8], stream: LogStream, emit: &mut dyn FnMut(LogLine)) {
    loop {
        let room = limits::LOG_LINE_BYTES - buffer.len();
        let Some((fits, rest)) = text.split_at_checked(room).filter(|(_, rest)| !rest.is_empty())
        else {
            buffer.extend_from_slice(text);
            return;
        };
        buffer.extend_from_slice(fits);
        flush(buffer, stream, emit);
        text = rest;
    }
}

fn flush(buffer: &mut Vec<u8>, stream: LogStream, emit: &mut dyn FnMut(LogLine)) {
    let message = String::from_utf8_lossy(buffer).trim_end_matches('\r').to_owned();
    buffer.clear();
    emit(LogLine { stream, context: String::new(), message });
}

/// As much of the beginning of a text as fits into so many bytes.
fn beginning(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// The call that an instance works for; a guest's output goes to the log of the one that it is in.
pub(super) type Seat = Arc<Mutex<Arc<Call>>>;

/// A guest's standard output or error.
#[derive(Clone)]
pub(super) struct LogPipe {
    seat: Seat,
    stream: LogStream,
}

impl LogPipe {
    pub(super) fn new(seat: Seat, stream: LogStream) -> LogPipe {
        LogPipe { seat, stream }
    }

    fn write_log(&self, bytes: &[u8]) {
        let call = Arc::clone(&self.seat.lock());
        call.write_log(self.stream, bytes);
    }
}

impl IsTerminal for LogPipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogPipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for LogPipe {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.write_log(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(limits::BODY_CHUNK_BYTES)
    }
}

// Written out, because the trait is made by `async_trait`: always ready.
impl Pollable for LogPipe {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for LogPipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_log(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(writes: &[(LogStream, Vec<u8>)]) -> (Vec<LogLine>, u64) {
        let mut log = Log::default();
        let mut lines = Vec::new();
        for (stream, bytes) in writes {
            log.write(*stream, bytes, &mut |line| lines.push(line));
        }
        log.finish(&mut |line| lines.push(line));
        (lines, log.bytes())
    }

    #[test]
    fn splits_streams_into_lines() {
        let (got, _) = lines(&[
            (LogStream::Stdout, b"one\ntw".to_vec()),
            (LogStream::Stderr, b"other\r\n".to_vec()),
            (LogStream::Stdout, b"o\n\nlast".to_vec()),
        ]);
        let got: Vec<_> = got.iter().map(|l| (l.stream, l.message.as_str())).collect();
        assert_eq!(
            got,
            [
                (LogStream::Stdout, "one"),
                (LogStream::Stderr, "other"),
                (LogStream::Stdout, "two"),
                (LogStream::Stdout, ""),
                (LogStream::Stdout, "last"),
            ]
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let (got, _) = lines(&[(LogStream::Stdout, vec![b'y'; limits::LOG_LINE_BYTES * 2 + 5])]);
        let lengths: Vec<_> = got.iter().map(|l| l.message.len()).collect();
        assert_eq!(lengths, [limits::LOG_LINE_BYTES, limits::LOG_LINE_BYTES, 5]);
    }

    #[test]
    fn past_the_limit_one_line_says_so() {
        let writes = vec![(LogStream::Stdout, vec![b'z'; 1000]); 100];
        let (got, bytes) = lines(&writes);
        let kept: usize =
            got.iter().filter(|l| l.stream == LogStream::Stdout).map(|l| l.message.len()).sum();
        assert_eq!(kept, limits::LOG_BYTES);
        let said = got.iter().filter(|l| l.stream == LogStream::Host).count();
        assert_eq!(said, 1);
        assert_eq!(bytes, 100_000);
    }

    fn messages(messages: &[(LogLevel, &str, &str)]) -> (Vec<LogLine>, u64) {
        let mut log = Log::default();
        let mut lines = Vec::new();
        for (level, context, message) in messages {
            log.message(*level, context, message, &mut |line| lines.push(line));
        }
        log.finish(&mut |line| lines.push(line));
        (lines, log.bytes())
    }

    #[test]
    fn a_message_keeps_its_level_and_its_context_on_every_line() {
        let (got, bytes) = messages(&[
            (LogLevel::Warn, "cart", "one\r\ntwo"),
            (LogLevel::Critical, "a\nb\u{1b}", ""),
        ]);
        let got: Vec<_> =
            got.iter().map(|l| (l.stream, l.context.as_str(), l.message.as_str())).collect();
        let (warn, critical) =
            (LogStream::Logging(LogLevel::Warn), LogStream::Logging(LogLevel::Critical));
        assert_eq!(got, [(warn, "cart", "one"), (warn, "cart", "two"), (critical, "a b ", "")]);
        assert_eq!(bytes, 4 + 8 + 4);
    }

    #[test]
    fn messages_share_the_budget_with_what_is_printed() {
        for message in ["", "\n\n\n\n", "x", &"y".repeat(20_000), &"ä".repeat(9_000)] {
            let mut log = Log::default();
            let mut lines = Vec::new();
            let emit = &mut |line: LogLine| lines.push(line);
            log.write(LogStream::Stdout, &[b'z'; 1000], emit);
            for _ in 0..100_000 {
                log.message(LogLevel::Info, "context", message, emit);
            }
            log.write(LogStream::Stdout, b"nothing of this", emit);
            log.finish(emit);
            let kept: usize = lines.iter().map(|l| l.context.len() + l.message.len()).sum();
            assert!(kept <= limits::LOG_BYTES + 100, "{kept}");
            assert!(lines.len() <= limits::LOG_BYTES / 8 + 2, "{}", lines.len());
            assert!(lines.iter().all(|l| l.message.len() <= limits::LOG_LINE_BYTES));
            let said = lines.iter().filter(|l| l.stream == LogStream::Host).count();
            assert_eq!(said, 1);
        }
    }

    proptest! {
        #[test]
        fn any_message_comes_out_whole_while_there_is_room(
            context in "\\PC{0,60}",
            message in "[a-zä€\n]{0,400}",
        ) {
            let (got, _) = messages(&[(LogLevel::Debug, &context, &message)]);
            let told: Vec<_> = got.iter().map(|line| line.message.as_str()).collect();
            let lines: Vec<_> = message.lines().collect();
            prop_assert_eq!(told, if message.is_empty() { vec![""] } else { lines });
            prop_assert!(got.iter().all(|line| context.starts_with(&line.context)));
        }

        #[test]
        fn however_it_is_cut_into_writes_the_lines_are_the_same(
            text in "[a-z\n]{0,400}",
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let whole = lines(&[(LogStream::Stdout, text.clone().into_bytes())]);
            let mut rest = text.as_bytes();
            let mut writes = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, tail) = rest.split_at(rest.len().min(*cut));
                writes.push((LogStream::Stdout, piece.to_vec()));
                rest = tail;
            }
            prop_assert_eq!(lines(&writes), whole);
        }
    }
}
