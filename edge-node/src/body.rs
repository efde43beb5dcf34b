//! The one type of streaming content that passes between the rooms of the edge.

pub mod file;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// An error's cause, whatever it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Content that streams; the same type as the cache's and the sandbox's.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// No content.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Content that is all there.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
