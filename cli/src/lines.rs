//! JSON lines out of a response that goes on: one at a time, within bounds, and not without signs of life.
//! Knows nothing of what they say.

use crate::error::CliError;
use reqwest::Response;
use std::time::Duration;

/// The longest line, in bytes.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// A response's lines.
pub(crate) struct Lines {
    response: Response,
    url: String,
    buffer: Vec<u8>,
    /// The longest silence.
    silence: Duration,
}

impl Lines {
    pub(crate) fn new(response: Response, url: String, silence: Duration) -> Lines {
        Lines { response, url, buffer: Vec::new(), silence }
    }

    /// The next line without its end.
    ///
    /// # Errors
    /// When the response has ended, however it did, or says nothing any more.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, CliError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(self.broken("a line is too long"));
            }
            match tokio::time::timeout(self.silence, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Err(self.broken("it was ended")),
                Ok(Err(error)) => return Err(self.broken(&error.to_string())),
                Err(_) => return Err(self.broken("nothing is heard any more")),
            }
        }
    }

    fn broken(&self, why: &str) -> CliError {
        CliError::Network { url: self.url.clone(), message: why.to_owned() }
    }
}
