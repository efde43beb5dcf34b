//! What an operator sets about the sandbox, and the limits that nobody sets. Values only.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Limits that hold for every guest of every tenant.
pub mod limits {
    use std::time::Duration;

    /// The largest component, in bytes.
    pub const COMPONENT_BYTES: usize = 50 * 1024 * 1024;
    /// The largest compiled artefact that is read back from the compiler, in bytes.
    pub const ARTEFACT_BYTES: usize = 512 * 1024 * 1024;
    /// A guest that has run for less, in all, does not wait for turns.
    pub const SHORT_RUN: Duration = Duration::from_micros(100);
    /// While one runs that has run for longer, all are looked at more often.
    pub const LONG_RUN: Duration = Duration::from_millis(1);
    /// What a request may log, in bytes; the rest is dropped, and one line says so.
    pub const LOG_BYTES: usize = 64 * 1024;
    /// The lines that a request may log: each costs more than its bytes.
    pub const LOG_LINES: usize = 1024;
    /// What is told of a guest's own words about a failure, in bytes.
    pub const REASON_BYTES: usize = 1024;
    /// The longest line of a log, in bytes; a longer one is told in pieces.
    pub const LOG_LINE_BYTES: usize = 8 * 1024;
    /// The context of a logged message, in bytes; the rest of it is cut off.
    pub const LOG_CONTEXT_BYTES: usize = 128;
    /// A key of the cache, in bytes.
    pub const CACHE_KEY_BYTES: usize = 512;
    /// A value that a handler puts into the cache, in bytes.
    pub const CACHE_VALUE_BYTES: usize = 1024 * 1024;
    /// The longest that it is fresh: a year, in seconds.
    pub const CACHE_TTL_SECONDS: u32 = 365 * 86_400;
    /// Tags of such a value, and of one purge.
    pub const CACHE_TAGS: usize = 64;
    /// One of these tags, in bytes.
    pub const CACHE_TAG_BYTES: usize = 256;
    /// The values that one call gets of the key-value store, in bytes. Keys and values of their own are
    /// bounded in [`verge_config::kv`].
    pub const KV_BATCH_BYTES: usize = 8 * 1024 * 1024;
    /// The names and values of a response's fields together, in bytes.
    pub const RESPONSE_HEADER_BYTES: usize = 64 * 1024;
    /// The fields of a response.
    pub const RESPONSE_HEADER_COUNT: usize = 256;
    /// One `fields` resource, in bytes as `wasi:http` counts them; in the host's memory it takes up to half
    /// as much again.
    pub const FIELDS_BYTES: usize = 128 * 1024;
    /// Fetches of a request that wait for their response's head at the same time.
    pub const CONCURRENT_FETCHES: usize = 6;
    /// All tables of an instance, in bytes.
    pub const TABLE_BYTES: usize = 16 * 1024 * 1024;
    /// What a guest may hand to the host in one call, in bytes.
    pub const HOSTCALL_BYTES: usize = 8 * 1024 * 1024;
    /// Random bytes in one call.
    pub const RANDOM_BYTES: u64 = 64 * 1024;
    /// What the host keeps for a guest at the same time: bodies, fields, streams, pollables. Times
    /// the largest of them (`FIELDS_BYTES`), it bounds the host memory that a guest can take.
    pub const RESOURCES: usize = 1024;
    /// One write to an outgoing body, in bytes; two of them may wait for their reader.
    pub const BODY_CHUNK_BYTES: usize = 64 * 1024;
    /// The stack of WebAssembly frames, in bytes.
    pub const STACK_BYTES: usize = 512 * 1024;
    /// Core instances of one component; a Python one has one for each of its libraries.
    pub const CORE_INSTANCES: u32 = 100;
    /// Linear memories of one component.
    pub const MEMORIES: u32 = 4;
    /// Tables of one component.
    pub const TABLES: u32 = 20;
}

/// How to start the compiler: this program with these leading arguments, which then must call
/// [`compile_child`](crate::compile_child).
#[derive(Debug, Clone)]
pub struct CompilerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// What one compilation may use.
#[derive(Debug, Clone, Copy)]
pub struct CompileLimits {
    /// Time on a CPU, summed over the compiler's threads.
    pub cpu: Duration,
    /// Time by the clock.
    pub wall: Duration,
    /// Memory, in bytes.
    pub memory: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        CompileLimits {
            cpu: Duration::from_secs(60),
            wall: Duration::from_secs(90),
            memory: 2 * 1024 * 1024 * 1024,
        }
    }
}

/// What an operator sets about the sandbox.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// Where compiled artefacts are kept. Made when absent, for this user only (0700).
    pub artefact_dir: PathBuf,
    /// The artefacts' bytes on disk; those that were not used for longest go first.
    pub max_artefact_bytes: u64,
    /// How to start the compiler.
    pub compiler: CompilerCommand,
    /// What one compilation may use.
    pub compile: CompileLimits,
    /// Compilations at the same time.
    pub max_compilations: usize,
    /// Instances at the same time, of all handlers.
    pub max_instances: u32,
    /// The ceiling of every handler's memory limit, in bytes.
    pub max_memory: u64,
    /// How often a running guest is looked at: it bounds how late a limit is noticed, and how long
    /// a guest holds a thread before others get their turn. Ten times as often while one runs for long.
    pub epoch_tick: Duration,
    /// How many guests that run for long may run at the same time: as many as threads that run guests.
    pub long_turns: usize,
}

impl SandboxSettings {
    /// The defaults: 1,000 instances of up to 256 MiB, a look at each guest every millisecond, one
    /// compilation at a time.
    #[must_use]
    pub fn new(artefact_dir: impl Into<PathBuf>, compiler: CompilerCommand) -> SandboxSettings {
        SandboxSettings {
            artefact_dir: artefact_dir.into(),
            max_artefact_bytes: 4 * 1024 * 1024 * 1024,
            compiler,
            compile: CompileLimits::default(),
            max_compilations: 1,
            max_instances: 1000,
            max_memory: 256 * 1024 * 1024,
            epoch_tick: Duration::from_millis(1),
            long_turns: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}
