//! The handler's configuration, as the site file has it under `config`. Every handler has it.

use crate::bindings::wasi::config::store;
use std::collections::BTreeMap;

/// The value of a key.
#[must_use]
pub fn get(key: &str) -> Option<String> {
    // An edge reads it from the site's version, which is there for as long as the handler is.
    store::get(key).ok().flatten()
}

/// All keys with their values.
#[must_use]
pub fn all() -> BTreeMap<String, String> {
    store::get_all().unwrap_or_default().into_iter().collect()
}
