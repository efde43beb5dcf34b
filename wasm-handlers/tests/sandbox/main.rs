//! What a handler may do, may not do and leaves behind, in the sandbox as an embedder uses it. One binary,
//! since each has the whole engine in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod capabilities;
mod capabilities_js;
mod ends;
mod fetch;
mod handler_p3;
mod isolation;
mod languages;
mod recycled;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/text.rs"]
mod text;
