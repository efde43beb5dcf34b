//! The commands, one file each: arguments, the calls they make, what they show.

pub(crate) mod activate;
pub(crate) mod component;
pub(crate) mod debug_token;
pub(crate) mod deploy;
pub(crate) mod dev;
pub(crate) mod edges;
pub(crate) mod explain;
pub(crate) mod init;
pub(crate) mod kv;
pub(crate) mod login;
pub(crate) mod preview;
pub(crate) mod purge;
pub(crate) mod rollback;
pub(crate) mod secrets;
pub(crate) mod sites;
pub(crate) mod tail;
pub(crate) mod tokens;
pub(crate) mod usage;
pub(crate) mod versions;
