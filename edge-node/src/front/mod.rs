//! From a connection to requests and back: HTTP/1.1, HTTP/2 and upgrades. Decides nothing about content;
//! that is [`crate::serve`].

mod deadline;
pub mod http1;
mod http2;
mod short_file;
#[cfg(test)]
mod testing;
mod tunnel;

use crate::listen::{Connection, Io, Limits, Rewind};
use crate::serve::Edge;
use bytes::BytesMut;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// What the requests of one connection share.
#[derive(Clone)]
pub struct Context {
    /// The edge that serves them.
    pub edge: Arc<Edge>,
    /// The connection's facts.
    pub connection: Arc<Connection>,
    /// What visitors are held to.
    pub limits: Limits,
    /// Cancelled when the edge drains.
    pub shutdown: CancellationToken,
}

/// The client connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first read of a connection, in bytes: most header sections whole.
const FIRST_READ: usize = 4096;

/// Serves a connection to its end. `http2` is what ALPN chose; without ALPN the first bytes tell.
pub async fn run(mut io: Io, context: Context, http2: Option<bool>) {
    let mut start = BytesMut::with_capacity(FIRST_READ);
    let http2 = match http2 {
        Some(chosen) => chosen,
        None => match sniff(&mut io, &mut start, &context).await {
            Some(found) => found,
            None => return,
        },
    };
    if http2 {
        http2::serve(Rewind::new(start.freeze(), io), context).await;
    } else {
        http1::serve(io, start, context).await;
    }
}

/// Whether the first bytes are HTTP/2's preface; `None` when none came in time.
async fn sniff(io: &mut Io, start: &mut BytesMut, context: &Context) -> Option<bool> {
    let reading = async {
        loop {
            let read = io.read_buf(start).await.ok()?;
            if read == 0 {
                return None;
            }
            let common = start.len().min(PREFACE.len());
            if start.get(..common) != PREFACE.get(..common) {
                return Some(false);
            }
            if common == PREFACE.len() {
                return Some(true);
            }
        }
    };
    tokio::select! {
        found = tokio::time::timeout(context.limits.header, reading) => found.ok().flatten(),
        () = context.shutdown.cancelled() => None,
    }
}
