//! Messages with a level and a context, for the handler's log. Every handler has it; what it prints goes
//! there, too, and both count towards 64 KiB and 1,024 lines a request.

use crate::bindings::wasi::logging::logging;

pub use crate::bindings::wasi::logging::logging::Level;

/// Writes a message. The context is any text by which readers put messages together; of a long one the
/// first 128 bytes are kept.
pub fn log(level: Level, context: &str, message: &str) {
    logging::log(level, context, message);
}
