//! The groups of cases, and the lab that they run in. They may speak to the edge over sockets only.

pub(crate) mod another_tag;
pub(crate) mod cache_status;
pub(crate) mod freshness;
pub(crate) mod invalidation;
pub(crate) mod known;
pub(crate) mod lab;
pub(crate) mod parts;
pub(crate) mod requests;
pub(crate) mod stale;
pub(crate) mod storing;
pub(crate) mod validation;
