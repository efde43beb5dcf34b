//! A stream of JSON lines out of a control plane, read when a test wants to and not before.

use crate::control::Control;
use crate::http1::Http1;
use crate::wait::within;
use serde_json::Value;
use tokio::net::TcpSocket;

/// What the kernel keeps for a reader that does not read, in bytes: little.
const SMALL_WINDOW: u32 = 8 * 1024;

/// An open stream.
pub struct Lines {
    client: Http1,
    rest: Vec<u8>,
}

impl Lines {
    /// Opens one, with the admin's token.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(control: &Control, path: &str) -> Lines {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SMALL_WINDOW).unwrap();
        let stream = within("to connect", socket.connect(control.address)).await.unwrap();
        let mut client = Http1::over(Box::new(stream));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            control.address, control.admin_token
        );
        client.send(request.as_bytes()).await.unwrap();
        let (status, headers) = within("a head", client.read_head()).await.unwrap();
        assert_eq!(status, 200, "{headers:?}");
        Lines { client, rest: Vec::new() }
    }

    /// The next line; nothing once the stream has ended. It may be given up before it is ready only
    /// between two lines.
    ///
    /// # Panics
    /// When none comes in time, or one that is not JSON.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match within("a line", self.client.read_chunk(&mut self.rest)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return None,
            }
        }
    }
}
