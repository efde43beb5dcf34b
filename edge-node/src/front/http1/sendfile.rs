//! A response whose content is in a file, on a connection in the clear: the kernel sends the file's
//! bytes itself (sendfile(2)), without a copy in this process.

use crate::body::file::{FilePart, Resident};
use crate::front::deadline::Deadline;
use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::SockRef;
use std::io::{Error, ErrorKind, Result};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// From how many bytes on a file is a long one.
const LONG: u64 = 256 * 1024;
/// Of a long file so many bytes at most wait unsent in the kernel (`TCP_NOTSENT_LOWAT`): the visitor then
/// reads what is still in the processor's caches, and memory is not bound by visitors that read slowly.
const UNSENT: u32 = 16 * 1024;

/// A header section and a file's bytes, as far as they are not sent yet.
pub(super) struct FileWrite {
    head: Bytes,
    part: FilePart,
    resident: Resident,
    sent: u64,
}

/// How sending ended.
#[derive(Debug)]
pub(super) enum FileEnd {
    /// All was sent.
    Whole,
    /// The file gave less than it should.
    Short(Error),
}

impl FileWrite {
    pub(super) fn new(head: Bytes, part: FilePart) -> FileWrite {
        FileWrite { head, part, resident: Resident::default(), sent: 0 }
    }

    /// Bytes of content sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends on; late when nothing moves for the time that `clock` was set to before the call.
    pub(super) fn poll(
        &mut self,
        stream: &TcpStream,
        clock: &mut Deadline,
        stall: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<FileEnd>> {
        loop {
            let moved = match self.poll_step(stream, cx) {
                Poll::Ready(Ok(moved)) => moved,
                Poll::Ready(Err(Failure::Socket(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Err(Failure::File(error))) => {
                    return Poll::Ready(Ok(FileEnd::Short(error)));
                }
                Poll::Pending => {
                    ready!(clock.poll(cx));
                    let late = Error::new(ErrorKind::TimedOut, "the visitor is stalled");
                    return Poll::Ready(Err(late));
                }
            };
            if !moved {
                return Poll::Ready(Ok(FileEnd::Whole));
            }
            clock.set(stall);
        }
    }

    /// One call of the kernel; whether there was something left to do.
    fn poll_step(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<std::result::Result<bool, Failure>> {
        let head = !self.head.is_empty();
        if !head && self.part.len == 0 {
            return Poll::Ready(Ok(false));
        }
        if head && self.part.len >= LONG {
            // Without it the file is sent all the same.
            let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
        }
        // Looked at before the header section goes out, which the kernel holds for what follows it.
        let resident = match self.part.len {
            0 => 0,
            _ => match ready!(self.resident.poll_some(&self.part, cx)) {
                Ok(count) => count,
                Err(error) if !head => return Poll::Ready(Err(Failure::File(error))),
                // The header section promises what cannot be sent: it goes out, and the promise breaks.
                Err(_) => 0,
            },
        };
        loop {
            ready!(stream.poll_write_ready(cx)).map_err(Failure::Socket)?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                if head { self.send_head(stream) } else { self.send_file(stream, resident) }
            });
            return Poll::Ready(match sent {
                Ok(0) if head => Err(Failure::Socket(ErrorKind::WriteZero.into())),
                Ok(0) => Err(Failure::File(ErrorKind::UnexpectedEof.into())),
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // What sendfile(2) says of the file rather than of the socket.
                Err(error) if !head && Errno::from_io_error(&error) == Some(Errno::IO) => {
                    Err(Failure::File(error))
                }
                Err(error) => Err(Failure::Socket(error)),
            });
        }
    }

    fn send_head(&mut self, stream: &TcpStream) -> Result<usize> {
        let mut flags = SendFlags::NOSIGNAL;
        // The first bytes of the content go into the same segment.
        flags.set(SendFlags::MORE, self.part.len > 0);
        let sent = rustix::net::send(stream, &self.head, flags)?;
        self.head.advance(sent);
        Ok(sent)
    }

    fn send_file(&mut self, stream: &TcpStream, most: u64) -> Result<usize> {
        let count = usize::try_from(most).unwrap_or(usize::MAX);
        let mut offset = self.part.offset;
        let sent = rustix::fs::sendfile(stream, self.part.file.file(), Some(&mut offset), count)?;
        self.part.offset += sent as u64;
        self.part.len = self.part.len.saturating_sub(sent as u64);
        self.sent += sent as u64;
        Ok(sent)
    }
}

enum Failure {
    File(Error),
    Socket(Error),
}
