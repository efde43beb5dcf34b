//! Upgrades (WebSocket, RFC 6455): the visitor's connection leaves HTTP when the origin says so, and
//! is a tunnel from there on.

use super::Http1;
use super::write::{self, Asked};
use crate::front::tunnel;
use crate::listen::Rewind;
use crate::serve::{Passage, Switched};
use crate::telemetry;
use std::io::Result;
use std::time::Duration;

/// Silence on a tunnel, in both directions, before it is closed.
const IDLE: Duration = Duration::from_secs(600);

impl Http1 {
    /// Asks for the upgrade, and serves the connection to its end.
    pub(super) async fn upgrade(mut self, passage: Passage) -> Result<()> {
        let switched = match passage.ask().await {
            Ok(switched) => switched,
            Err(reply) => {
                // What the visitor may have sent in the new protocol already is no request.
                let asked = Asked { head: false, http11: true, keep_alive: false };
                self.write_reply(reply, asked, &mut None, false).await?;
                self.close().await;
                return Ok(());
            }
        };
        let Switched { headers, mut stream, record } = switched;
        self.write_parts([write::switching(&headers)], &mut None).await?;
        let Http1 { io, buffer, context, .. } = self;
        // What the visitor had sent behind its header section goes first.
        let mut visitor = Rewind::new(buffer.freeze(), io);
        let ended = tunnel::copy(&mut visitor, &mut stream, IDLE).await;
        telemetry::metrics().received(ended.forth);
        if let Err(error) = &ended.result {
            tracing::debug!(peer = %context.connection.peer, %error, "tunnel ended");
        }
        record.done(ended.back, true);
        Ok(())
    }
}
