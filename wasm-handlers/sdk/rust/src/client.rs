//! Who asks. Needs `grants = ["client"]`.
//!
//! Where the cache stands before the handler, this is the visitor whose request the answer is made for;
//! others get the stored answer.

use crate::Error;
use crate::bindings::verge::edge::client;

pub use crate::bindings::verge::edge::client::{Scheme, Tls, Visitor};

/// The visitor of this request.
///
/// # Errors
/// When it is not granted.
pub fn visitor() -> Result<Visitor, Error> {
    client::get()
}
