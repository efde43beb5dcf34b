//! What a Verge edge offers the handlers of its sites, for handlers in Rust: configuration and a log for
//! every handler, and what the site file grants besides ([`cache`], [`client`], [`kv`],
//! [`secrets`]).
//!
//! Requests and responses are another crate's, `wstd` for instance: this one needs no runtime and works
//! beside any of them. A handler that uses it starts on every edge; what is not granted answers with
//! [`Error::NotGranted`], whose text says what to add to the site file.
//!
//! ```ignore
//! use std::time::Duration;
//! use verge_sdk::{cache, config};
//!
//! fn price(name: &str) -> Result<Vec<u8>, verge_sdk::Error> {
//!     if let Some(kept) = cache::get(name)? {
//!         return Ok(kept);
//!     }
//!     let currency = config::get("currency").unwrap_or_else(|| "EUR".to_owned());
//!     let made = format!("12 {currency}").into_bytes();
//!     cache::put(name, &made, Duration::from_secs(60), &["prices"])?;
//!     Ok(made)
//! }
//! ```

#[allow(missing_docs)]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "imports", generate_all });
}

pub mod cache;
pub mod client;
pub mod config;
pub mod kv;
pub mod log;
pub mod secrets;

pub use bindings::verge::edge::types::Error;
