//! Compilation in a child process: a component is hostile input, and compiling one may take any
//! amount of time and memory. The two ends of the pipe live here, and what their exit codes mean.

mod child;
mod parent;

pub use child::compile_child;
pub(crate) use parent::{CompileError, Compiler};

/// The child's exit codes, after `sysexits.h`.
mod exit {
    /// The bytes are no component that this engine takes; standard error says why.
    pub(super) const INVALID: u8 = 65;
    /// The child could not do its work.
    pub(super) const FAILED: u8 = 70;
}

/// The environment by which the child is told its limits.
mod environment {
    /// Seconds of CPU time.
    pub(super) const CPU: &str = "VERGE_COMPILE_CPU_SECONDS";
    /// Bytes of memory.
    pub(super) const MEMORY: &str = "VERGE_COMPILE_MEMORY_BYTES";
}
