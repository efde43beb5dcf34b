//! The site's key-value store, `wasi:keyvalue`. Needs `grants = ["keyvalue"]`.
//!
//! All handlers of the site share it, on all edges; [`open`] of `""` gives it. A write is durable when it
//! returns, and soon seen everywhere. Every key that is read or written counts towards `limits.kv_calls` (64 a
//! request by default).

pub use crate::bindings::wasi::keyvalue::batch::{delete_many, get_many, set_many};
pub use crate::bindings::wasi::keyvalue::store::{Bucket, Error, KeyResponse, open};
