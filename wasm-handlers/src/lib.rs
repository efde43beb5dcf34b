//! The sandbox: runs tenants' WebAssembly components, one instance a request, within limits. It
//! knows neither pingora nor sockets; whatever a guest may reach is behind the trait [`Host`].

mod artefact;
mod body;
mod compile;
mod engine;
mod guest;
mod handler;
mod host;
mod hostcalls;
mod idle;
mod outcome;
mod p2;
mod p3;
mod running;
mod sandbox;
mod settings;
mod target;
mod ticker;
mod turns;

pub use compile::compile_child;
pub use handler::Handler;
pub use host::{
    CacheEntry, FetchError, Host, LogLevel, LogLine, LogStream, Tls, Unavailable, Visitor,
};
pub use outcome::{End, Ended, Usage, Verdict, seconds};
pub use sandbox::{Component, LoadError, Sandbox, SandboxError};
pub use settings::{CompileLimits, CompilerCommand, SandboxSettings, limits};

/// What a body may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The content of a request or response, with its trailers.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
